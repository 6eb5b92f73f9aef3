"""Masks that the scoring stage stored: figures and page draw these and never open a test mask."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.paths import Layout

TRUTH = "truth/"


class MaskArchive:
    """A run's ``test_masks.zip``, opened once.

    Attributes:
        path: the archive; None where the run's scoring left none.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.run = run
        self.path = next(iter(Layout(root).run_files("test_masks.zip", run)), None)
        self._open: zipfile.ZipFile | None = None

    def scored(self, dataset: str, image_id: str) -> np.ndarray:
        """The mask that was scored, bool (H, W).

        Raises:
            ScoreError: the archive or the mask is missing.
        """
        return self._read(f"{dataset}/{image_id}.png")

    def true(self, dataset: str, image_id: str) -> np.ndarray:
        """The mask that it was scored against, bool (H, W).

        Raises:
            ScoreError: the archive or the mask is missing.
        """
        return self._read(f"{TRUTH}{dataset}/{image_id}.png")

    def _read(self, name: str) -> np.ndarray:
        import cv2

        if self.path is None:
            raise ScoreError("The run has no stored masks", ids=[self.run], remedy="score the run again")
        try:
            if self._open is None:
                self._open = zipfile.ZipFile(self.path)
            content = np.frombuffer(self._open.read(name), np.uint8)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ScoreError(
                f"A stored mask is missing: {error}", file=self.path, remedy="score the run again"
            ) from error
        return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) > 0

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None


def scored_mask(root: Path, run: str, dataset: str, image_id: str) -> np.ndarray:
    """One mask that was scored; see `MaskArchive.scored`."""
    archive = MaskArchive(root, run)
    try:
        return archive.scored(dataset, image_id)
    finally:
        archive.close()


def true_mask(root: Path, run: str, dataset: str, image_id: str) -> np.ndarray:
    """One true mask as the scoring of ``run`` stored it; see `MaskArchive.true`."""
    archive = MaskArchive(root, run)
    try:
        return archive.true(dataset, image_id)
    finally:
        archive.close()
