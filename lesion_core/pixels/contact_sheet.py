"""A sheet of samples before and after harmonization, with the refined mask outlined, for a person to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lesion_core.pixels.masks import HALF

CELL = 192
GAP = 14
CAPTION = 22
TITLE = 40
TILES_PER_ROW = 3
PAPER = (255, 255, 255)
INK = (40, 40, 40)
HALO = (0, 0, 0)
OUTLINE = (0, 255, 190)


@dataclass(frozen=True)
class Sample:
    """One tile: the image as it came, as harmonized, and its mask.

    Attributes:
        caption: printed above the tile; ASCII.
        before: uint8 (H, W, 3) RGB, any size; shown with its aspect ratio.
        after: uint8 (S, S, 3) RGB.
        soft_mask: uint8 (S, S), outlined at one half; None draws no outline.
    """

    caption: str
    before: np.ndarray
    after: np.ndarray
    soft_mask: np.ndarray | None


def contact_sheet(samples: Sequence[Sample], title: str) -> np.ndarray:
    """Lay the samples out three to a row, before on the left of each tile and after on the right.

    Args:
        samples: at least one; their arrays are not changed.
        title: printed at the top; ASCII.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    tile_width, tile_height = 2 * CELL + 2, CAPTION + CELL
    rows = -(-len(samples) // TILES_PER_ROW)
    height = TITLE + rows * (tile_height + GAP) + GAP
    width = TILES_PER_ROW * (tile_width + GAP) + GAP
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    _write(sheet, title, GAP, 27, 0.55)
    for position, sample in enumerate(samples):
        row, column = divmod(position, TILES_PER_ROW)
        left = GAP + column * (tile_width + GAP)
        top = TITLE + row * (tile_height + GAP)
        _write(sheet, sample.caption, left, top + 15, 0.42)
        body = sheet[top + CAPTION : top + tile_height, left : left + tile_width]
        body[:, :CELL] = fit(sample.before, CELL)
        body[:, -CELL:] = _outlined(sample.after, sample.soft_mask)
    return sheet


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Fit uint8 (H, W, 3) into a white square of ``side`` pixels, aspect ratio kept, centred."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((side, side, 3), PAPER, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _outlined(image: np.ndarray, soft_mask: np.ndarray | None) -> np.ndarray:
    """The image at cell size; a bright line on a dark halo shows on pale and on dark skin alike."""
    if soft_mask is None:
        return fit(image, CELL)
    # Drawn at twice the size and reduced: a line of one pixel would be jagged.
    side = 2 * CELL
    shown = fit(image, side)
    mask = (cv2.resize(soft_mask, (side, side), interpolation=cv2.INTER_LINEAR) >= HALF).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, contours, -1, HALO, 4, cv2.LINE_AA)
    cv2.drawContours(shown, contours, -1, OUTLINE, 2, cv2.LINE_AA)
    return fit(shown, CELL)


def _write(sheet: np.ndarray, text: str, left: int, baseline: int, scale: float) -> None:
    cv2.putText(sheet, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
