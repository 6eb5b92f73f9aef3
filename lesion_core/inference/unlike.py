"""How unlike the images of training an image is: a distance of image statistics, with its limit on validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from lesion_core.inference.segments import Segments
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.progress import say
from lesion_core.settings import SegmentationMethod

CELLS = 4  # along each side
MOST_IMAGES = 2000  # of a dataset's split, evenly taken
FAMILIAR = 0.99  # share of validation images that lie within the limit
NEIGHBOURS = 5
LEAST_IMAGES = 100  # a quantile of fewer says nothing


def image_statistics(pixels: np.ndarray) -> np.ndarray:
    """Of each cell of a 4 x 4 grid the mean of Lab, the SD of lightness and the mean of its gradient.

    Args:
        pixels: uint8 (S, S, 3) RGB, harmonized.

    Returns:
        float64 (80,).
    """
    lab = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB).astype(np.float32)
    light = np.ascontiguousarray(lab[..., 0])
    gradient = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    maps = np.dstack([lab, light**2, gradient])
    cells = cv2.resize(maps, (CELLS, CELLS), interpolation=cv2.INTER_AREA).astype(np.float64)
    cells[..., 3] = np.sqrt(np.maximum(cells[..., 3] - cells[..., 0] ** 2, 0))
    return cells.ravel()


class Unlikeness:
    """Mean distance to the 5 nearest training images, in statistics scaled by their SD in training, over its limit.

    The limit is the 0.99 quantile of validation images: about 1 % of images like those of training lie above 1.
    """

    def __init__(self, training: np.ndarray, validation: np.ndarray) -> None:
        """Take statistics float64 (N, 80) of images of training and validation."""
        self._scale = StandardScaler().fit(training)
        self._near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(self._scale.transform(training))
        self._limit = float(np.quantile(self._distances(validation), FAMILIAR))

    def of(self, pixels: np.ndarray) -> float:
        """Unlikeness of an image uint8 (S, S, 3), harmonized as those of training; over 1: unlike them."""
        return float(self._distances(image_statistics(pixels)[None])[0]) / self._limit

    def _distances(self, statistics: np.ndarray) -> np.ndarray:
        return self._near.kneighbors(self._scale.transform(statistics))[0].mean(axis=1)


def unlikeness_of(segmenter: Segments, run_dir: Path) -> Unlikeness | None:
    """Measured on the harmonized images beside a run; None, and told, where they are missing or fewer than 100.

    Raises:
        RunError, CatalogError: they are incomplete or damaged.
    """
    layout, trained_on = Layout.of_run(run_dir), cast(SegmentationMethod, segmenter.run.spec).train_on
    folders = [layout.pixels(segmenter.run.pixels, name, segmenter.size) for name in trained_on]
    parts = [list(_statistics(folders, split)) for split in ("train", "val")]
    if min(map(len, parts)) < LEAST_IMAGES:
        say("fewer than 100 images of training and of validation lie beside the run: no column unlikeness")
        return None
    return Unlikeness(*map(np.stack, parts))


def _statistics(folders: list[Path], split: str) -> Iterator[np.ndarray]:
    for folder in folders:
        if folder.is_dir():
            data = Harmonized.open(folder)
            rows = data.rows(split)
            for row in rows[:: -(-len(rows) // MOST_IMAGES) or 1]:
                yield image_statistics(data.images[row])
