"""Smooth random fields: the raw material of skin and lesions."""

from __future__ import annotations

import cv2
import numpy as np


def field(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: float,
    octaves: int = 1,
    gain: float = 0.5,
    stretch: float = 1.0,
) -> np.ndarray:
    """Band-limited noise, float32 (H, W), mean about 0 and standard deviation about 1.

    The random grids do not depend on the resolution, only on the aspect, ``cells`` (blobs along the longer
    side) and ``stretch`` (how much longer than wide the blobs are): the same generator gives the same pattern
    at any size.
    """
    height, width = shape
    longest = max(height, width)
    total = np.zeros(shape, np.float32)
    power = 0.0
    amplitude = 1.0
    for octave in range(octaves):
        count = cells * 2.0**octave
        rows = max(2, round(count * height / longest)) + 2
        columns = max(2, round(count * width / longest / stretch)) + 2
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        interpolation = cv2.INTER_CUBIC if rows <= height else cv2.INTER_AREA
        # Cubic interpolation of white noise loses about 45 % of its variance; 1.35 brings it back.
        total += (1.35 * amplitude) * cv2.resize(grid, (width, height), interpolation=interpolation)
        power += amplitude * amplitude
        amplitude *= gain
    return total / np.float32(np.sqrt(power))


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Cubic ramp from 0 at ``low`` to 1 at ``high`` (``low`` may exceed ``high``), float32."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def honeycomb(x: np.ndarray, y: np.ndarray, frequency: float, warp_x: np.ndarray, warp_y: np.ndarray) -> np.ndarray:
    """Lines of a hexagonal net, 1 on the lines and 0 in the meshes, bent by the two warp fields (cells)."""
    u = (x * np.float32(frequency) + warp_x) * np.float32(2 * np.pi)
    v = (y * np.float32(frequency) + warp_y) * np.float32(2 * np.pi)
    waves = np.cos(u)
    waves += np.cos(np.float32(-0.5) * u + np.float32(0.8660254) * v)
    waves += np.cos(np.float32(-0.5) * u - np.float32(0.8660254) * v)
    return smoothstep(waves, 0.4, -1.2)
