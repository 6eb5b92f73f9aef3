"""Where the lesion lies and what is no skin: a simple map without a trained model, for the search for other views.

Distances in pixels hold for images scaled to about 40,000 pixels. All constants were chosen by looking at maps of the
mirror's ISIC 2018 Task 1 and HAM10000 images.
"""

from __future__ import annotations

import cv2
import numpy as np

DARK = 60  # of 255: the brightest channel of a field border stays below
INK = 20  # grey levels by which blue exceeds red in ink, more than it does in the image's median
LINE_WIDTH, LINE_CONTRAST, LINE_LENGTH = 9, 20, 20  # ruler ticks and hairs: thinner, darker and longer than this
LINE_FILL = 0.06  # of its length squared: what a line covers at most, with a ruler's teeth, crossing hairs included
REACH = 5  # a marking changes the pixels around it
SMOOTHING = 3.0
GRID = 6  # the skin's brightness is fitted to every sixth pixel
FITS = 4


def markings(image: np.ndarray) -> np.ndarray:
    """What is no skin: field border, ink, rulers, long hairs.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        bool (H, W).
    """
    height, width = image.shape[:2]
    dark = (cv2.medianBlur(image.max(axis=2), 5) < DARK).astype(np.uint8)
    _, parts = cv2.connectedComponents(dark)
    corners = {int(parts[row, column]) for row in (2, height - 3) for column in (2, width - 3)} - {0}
    found = np.isin(parts, list(corners))
    blue = cv2.blur(image[:, :, 2].astype(np.float32) - image[:, :, 0], (3, 3))
    found |= blue > max(0.0, float(np.median(blue))) + INK
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thin = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, _disc(LINE_WIDTH)) > LINE_CONTRAST
    _, parts, stats, _ = cv2.connectedComponentsWithStats(thin.astype(np.uint8))
    length = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    line = (length >= LINE_LENGTH) & (stats[:, cv2.CC_STAT_AREA] <= LINE_FILL * length**2)
    line[0] = False
    return cv2.dilate((found | line[parts]).astype(np.uint8), _disc(REACH)) > 0


def lesion_map(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The lesion: what is darker than the skin around it, by Otsu's threshold, nearest to the middle.

    The skin's brightness is a quadratic surface fitted to the brighter pixels: a field darkens toward its border.

    Args:
        image: uint8 (H, W, 3) RGB.
        skin: bool (H, W), where there are no markings.

    Returns:
        bool (H, W); ``skin`` itself if nothing stands out.
    """
    height, width = skin.shape
    closed = cv2.morphologyEx(image[:, :, 1], cv2.MORPH_CLOSE, _disc(LINE_WIDTH))  # green shows pigment best
    green = cv2.GaussianBlur(closed, (0, 0), SMOOTHING).astype(np.float32)
    y, x = (2 * np.mgrid[:height, :width] / np.array([height, width])[:, None, None] - 1).astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    sampled, values = terms[::GRID, ::GRID].reshape(-1, 6), green[::GRID, ::GRID].ravel()
    usable = skin[::GRID, ::GRID].ravel()
    bright = usable
    for _ in range(FITS):
        if bright.sum() < sampled.shape[1]:
            return skin
        surface, *_ = np.linalg.lstsq(sampled[bright], values[bright], rcond=None)
        above = values - sampled @ surface
        bright = usable & (above > -above[bright].std())
    relief = np.clip(np.rint(green - terms @ surface + 128), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(relief[skin][:, None], 0, 255, cv2.THRESH_OTSU)
    dark = ((relief <= threshold) & skin).astype(np.uint8)
    # A hair across a lesion does not part it.
    count, parts = cv2.connectedComponents(cv2.morphologyEx(dark, cv2.MORPH_CLOSE, _disc(LINE_WIDTH)))
    if count == 1:
        return skin
    central = np.exp(-2 * (x * x + y * y)) * (parts > 0)
    chosen = np.bincount(parts.ravel(), central.ravel())[1:].argmax() + 1
    return parts == chosen


def _disc(size: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
