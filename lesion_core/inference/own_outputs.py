"""What ``lesion predict`` writes beside a mask on request: an overlay, a probability map, columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesion_core.acquire.images import write_image
from lesion_core.errors import SettingsError

OUTLINE = (0, 255, 0)
HALO = (0, 0, 0)


@dataclass(frozen=True)
class Extras:
    """What is wanted beside masks.

    Attributes:
        overlay: ``<image_id>.overlay.jpg``, the image with the mask's outline.
        probabilities: ``<image_id>.probability.tif``, uint8 at the image's size, 255 p.
        flips: predict three flips too, for the column ``flip_disagreement``.
        mm_per_pixel: side of a pixel in mm, for the column ``area_mm2``; None where it is unknown.
    """

    overlay: bool = False
    probabilities: bool = False
    flips: bool = False
    mm_per_pixel: float | None = None

    def __post_init__(self) -> None:
        if self.mm_per_pixel is not None and not 0 < self.mm_per_pixel < 10:
            raise SettingsError(
                f"A pixel is no {self.mm_per_pixel} mm wide", remedy="give the side of one pixel in mm, e.g. 0.02"
            )

    def write(self, stem: Path, original: np.ndarray, native: np.ndarray, mask: np.ndarray) -> None:
        """Write the pictures that are wanted; ``stem`` is the mask's path without ending.

        Args:
            original: uint8 (H, W, 3) RGB.
            native: float (H, W), the lesion's probability.
            mask: bool (H, W).
        """
        if self.overlay:
            write_image(stem.with_name(f"{stem.name}.overlay.jpg"), overlay(original, mask))
        if self.probabilities:
            write_image(stem.with_name(f"{stem.name}.probability.tif"), np.round(native * 255).astype(np.uint8))


MASKS_ALONE = Extras()


def overlay(original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image uint8 (H, W, 3) with the outline of a mask bool (H, W) on it."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    shown, width = original.copy(), max(1, round(max(mask.shape) / 400))
    cv2.drawContours(shown, contours, -1, HALO, 3 * width)
    return cv2.drawContours(shown, contours, -1, OUTLINE, width)
