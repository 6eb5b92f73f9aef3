"""Skin around a lesion, and the device's colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesion_core.acquire.synthetic.noise import field, smoothstep


@dataclass(frozen=True)
class Device:
    """A dermoscope and its light.

    Attributes:
        skin: mean RGB of light skin in its images; spread: standard deviation of that colour.
        share: how often it occurs; circle: chance of a round black frame.
    """

    skin: tuple[float, float, float]
    spread: float
    share: float
    circle: float


DEVICES: tuple[Device, ...] = (
    Device((216, 168, 176), 13, 0.22, 0.05),
    Device((230, 146, 152), 11, 0.19, 0.0),
    Device((202, 180, 198), 12, 0.15, 0.08),
    Device((222, 196, 196), 13, 0.10, 0.05),
    Device((206, 160, 112), 17, 0.09, 0.85),
    Device((216, 193, 156), 14, 0.07, 0.85),
    Device((214, 176, 164), 14, 0.07, 0.7),
    Device((160, 152, 156), 14, 0.06, 0.2),
    Device((142, 100, 78), 20, 0.05, 0.2),
)
PH2_DEVICES = (4, 5, 6)

# Absorption per unit of pigment (R, G, B), in log reflectance of the image.
MELANIN = np.array([0.42, 0.86, 1.06], np.float32)
BLOOD = np.array([0.23, 0.95, 0.54], np.float32)


def skin_maps(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Melanin, blood (float32 (H, W), about 0 on average, may be negative) and relief of healthy skin."""
    melanin = np.float32(rng.uniform(0.005, 0.03)) * field(rng, shape, 5, 4, 0.6)
    blood = np.float32(rng.uniform(0.01, 0.06)) * field(rng, shape, 5, 4, 0.65)
    fine = rng.uniform(0.0, 0.025)
    melanin += np.float32(fine) * field(rng, shape, 70, 2, 0.8)
    relief = np.float32(rng.uniform(0.0, 0.012)) * field(rng, shape, 90, 1)
    if rng.random() < 0.5:
        # Furrows: two crossing families of thin lines.
        for _ in range(2):
            line = field(rng, shape, rng.uniform(18, 40), 2, 0.5, rng.uniform(1.0, 3.0))
            relief -= np.float32(rng.uniform(0.005, 0.025)) * np.exp(-((line / 0.22) ** 2))
    if rng.random() < 0.25:
        red = field(rng, shape, rng.uniform(8, 16), 3, 0.6)
        blood += np.float32(rng.uniform(0.05, 0.25)) * smoothstep(np.abs(red), 0.22, 0.0)
    if rng.random() < 0.3:
        melanin += np.float32(rng.uniform(0.04, 0.2)) * smoothstep(field(rng, shape, 9, 4, 0.7), 0.5, 2.2)
    if rng.random() < 0.25:
        blood += np.float32(rng.uniform(0.05, 0.22)) * smoothstep(field(rng, shape, 4, 3), 0.2, 2.0)
    return melanin, blood, relief


def base_colour(rng: np.random.Generator, device: Device) -> np.ndarray:
    """Mean RGB of this image's skin, float32 (3,), by device, skin type and exposure."""
    colour = np.array(device.skin) + device.spread * (0.7 * rng.standard_normal() + 0.5 * rng.standard_normal(3))
    type_depth = max(0.0, rng.normal(0.02, 0.09)) + (rng.random() < 0.06) * rng.uniform(0.15, 0.5)
    return np.clip(colour * np.exp(-type_depth * MELANIN), 45, 246).astype(np.float32)
