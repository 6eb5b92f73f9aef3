"""Images and masks that figures and page draw: test masks come from what scoring stored, never from the data."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import cv2
import numpy as np

from lesion_core.acquire.images import read_image
from lesion_core.errors import ScoreError
from lesion_core.paths import Layout


class MaskArchive(zipfile.ZipFile):
    """A run's ``test_masks.zip``, open for reading.

    Raises:
        ScoreError: the run has none, or it is broken.
    """

    def __init__(self, root: Path, run: str) -> None:
        path = next(iter(Layout(root).run_files("test_masks.zip", run)), None)
        if path is None:
            raise ScoreError("The run has no stored masks", ids=[run], remedy="score the run again")
        try:
            super().__init__(path)
        except zipfile.BadZipFile as error:
            raise ScoreError(f"It is no archive: {error}", file=path, remedy="score the run again") from error

    def scored(self, dataset: str, image_id: str) -> np.ndarray:
        """The mask that was scored, bool (H, W).

        Raises:
            ScoreError: it is missing or broken.
        """
        return self._mask(f"{dataset}/{image_id}.png")

    def true(self, dataset: str, image_id: str) -> np.ndarray:
        """The mask that it was scored against, bool (H, W).

        Raises:
            ScoreError: it is missing or broken.
        """
        return self._mask(f"truth/{dataset}/{image_id}.png")

    def sha256(self, dataset: str, image_id: str) -> str:
        """SHA-256 of the stored PNG of the mask that was scored.

        Raises:
            ScoreError: it is missing or broken.
        """
        return hashlib.sha256(self._content(f"{dataset}/{image_id}.png")).hexdigest()

    def _content(self, name: str) -> bytes:
        try:
            return self.read(name)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ScoreError(
                f"A stored mask is missing: {error}", file=self.filename, remedy="score the run again"
            ) from error

    def _mask(self, name: str) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(self._content(name), np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise ScoreError(
                "A stored mask does not decode", file=self.filename, ids=[name], remedy="score the run again"
            )
        return np.asarray(pixels > 0)


def small_image(path: Path, side: int) -> np.ndarray:
    """An image as uint8 RGB (H, W, 3), its longer side at most ``side`` pixels."""
    pixels = read_image(path, side)
    scale = side / max(pixels.shape[:2])
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1.0 else pixels
