"""How smooth a mask's border is: total absolute turning of its outline."""

from __future__ import annotations

import math

import cv2
import numpy as np

STEPS_PER_SIDE = 64  # outlines are walked in steps of 1/64 of the longer side: what a 64 px grid would leave as stairs
LEAST_STEP = 4.0  # pixels; below it, the pixel grid itself is what is measured


def border_turning(mask: np.ndarray) -> float:
    """Sum of absolute turning angles along the outline of the largest component, in full turns.

    Any convex outline turns once, 1.0 exactly (Fenchel's theorem), whatever its size; each stair adds half a turn.

    Args:
        mask: (H, W) bool.

    Returns:
        At least about 1; NaN where there is no lesion, or its outline has fewer than 8 steps.
    """
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return math.nan
    outline = max(outlines, key=cv2.contourArea)[:, 0].astype(np.float64)
    step = max(LEAST_STEP, max(mask.shape) / STEPS_PER_SIDE)
    count = int(len(outline) / step)
    if count < 8:
        return math.nan
    # pixel outlines wobble by half a pixel: a blur below the step takes that away and leaves stairs
    walked = _resample(_blur_closed(outline, max(LEAST_STEP / 2, step / 4)), count)
    edges = np.roll(walked, -1, axis=0) - walked
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    turns = (np.roll(angles, -1) - angles + math.pi) % (2 * math.pi) - math.pi
    return float(np.abs(turns).sum() / (2 * math.pi))


def _blur_closed(points: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a closed curve (N, 2) along its points."""
    frequency = np.fft.fftfreq(len(points))
    gain = np.exp(-2.0 * (math.pi * frequency * sigma) ** 2)
    return np.fft.ifft(np.fft.fft(points, axis=0) * gain[:, None], axis=0).real


def _resample(points: np.ndarray, count: int) -> np.ndarray:
    """``count`` points at equal arc length on a closed curve (N, 2)."""
    closed = np.vstack([points, points[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    places = np.linspace(0.0, length[-1], count, endpoint=False)
    return np.column_stack([np.interp(places, length, closed[:, axis]) for axis in range(2)])
