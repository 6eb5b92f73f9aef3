"""How far two outlines of a lesion lie apart, by MONAI: 95th percentile Hausdorff and average surface distance."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

MOST_PIXELS = 512  # of a mask's longer side: larger ones are reduced before distances are taken
FARTHEST = 1.0


def border_distances(prediction: np.ndarray, truth: np.ndarray, shape: tuple[int, int]) -> tuple[float, float]:
    """HD95 and average symmetric surface distance as fractions of the image's diagonal.

    HD95 is the greater of the two directed 95th percentiles. One mask empty: 1 each, the diagonal; both: 0.

    Args:
        prediction, truth: bool (h, w).
        shape: (height, width) of the image in pixels, which the masks may show resized without its aspect ratio.
    """
    if not prediction.any() or not truth.any():
        apart = 0.0 if prediction.any() == truth.any() else FARTHEST
        return apart, apart
    masks = [_reduced(mask) for mask in (prediction, truth)]
    if not all(mask.any() for mask in masks):  # reduction leaves nothing of a speck
        masks = [prediction, truth]
    spacing = [side / now for side, now in zip(shape, masks[0].shape, strict=True)]
    first, second = (torch.from_numpy(mask[None, None]) for mask in masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.5 warns of an argument that it gives itself
        far = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing)
        mean = compute_average_surface_distance(first, second, include_background=True, symmetric=True, spacing=spacing)
    diagonal = float(np.hypot(*shape))
    return float(far) / diagonal, float(mean) / diagonal


def _reduced(mask: np.ndarray) -> np.ndarray:
    """At most ``MOST_PIXELS`` along the longer side; a pixel is lesion where at least half of it was."""
    scale = MOST_PIXELS / max(mask.shape)
    if scale >= 1:
        return mask
    size = [max(1, round(side * scale)) for side in mask.shape[::-1]]
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
