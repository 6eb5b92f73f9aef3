"""Does a map point at the lesion? Pointing game, energy inside, and the centre prior that any map must beat."""

from __future__ import annotations

import cv2
import numpy as np

from lesion_core.errors import ScoreError

REFERENCE_SIDE = 512  # the tolerance is in pixels of a image whose longer side is this


def pointing_hit(values: np.ndarray, mask: np.ndarray, tolerance: float = 0.0) -> float:
    """Share of the map's maxima that lie in the mask or within ``tolerance`` of it; mostly one maximum, so 0 or 1.

    Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126:1084, 2018 (tolerance 15 pixels). A flat
    map has its maximum everywhere: it scores the mask's share, as a blind guess does.

    Args:
        values: float (H, W), finite.
        mask: bool (H, W), with a lesion.
        tolerance: pixels of a image with a longer side of 512.

    Raises:
        ScoreError: shapes differ, a value is not finite, or the mask is empty.
    """
    _check(values, mask)
    maxima = values == values.max()
    if tolerance > 0:
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        mask = distance <= tolerance * max(mask.shape) / REFERENCE_SIDE
    return float(mask[maxima].mean())


def energy_inside(values: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's sum that lies in the mask, 0..1; an empty map counts as an even one.

    The energy-based pointing game of Wang et al., "Score-CAM", CVPR workshops 2020.

    Args:
        values: float (H, W), finite, not negative. mask: bool (H, W), with a lesion.

    Raises:
        ScoreError: as `pointing_hit`, or a value is negative.
    """
    _check(values, mask)
    if values.min() < 0:
        raise ScoreError("The energy of a map with negative values is not defined", remedy="rectify the map")
    total = float(values.sum(dtype=np.float64))
    if total == 0.0:
        return float(mask.mean())
    return float(values[mask].sum(dtype=np.float64)) / total


def centre_prior(size: int, sigma: float) -> np.ndarray:
    """A Gaussian in the middle, float32 (size, size), maximum near 1; it looks at no image.

    Args:
        sigma: standard deviation as a share of the side.
    """
    place = (np.arange(size) + 0.5) / size - 0.5
    profile = np.exp(-(place**2) / (2.0 * sigma**2))
    return np.outer(profile, profile).astype(np.float32)


def _check(values: np.ndarray, mask: np.ndarray) -> None:
    if values.shape != mask.shape or values.ndim != 2 or mask.dtype != np.bool_:
        raise ScoreError(f"Expected a map and a bool mask (H, W), got {values.shape} and {mask.dtype} {mask.shape}")
    if not np.isfinite(values).all():
        raise ScoreError("The map is not finite")
    if not mask.any():
        raise ScoreError("The mask has no lesion to point at")
