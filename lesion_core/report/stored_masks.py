"""Masks that the scoring stage stored: figures and page draw these and never open a test mask."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from lesion_core.errors import ScoreError

TRUTH = "truth/"


def scored_mask(root: Path, run: str, dataset: str, image_id: str) -> np.ndarray:
    """The mask that was scored, bool (H, W), from the run's ``test_masks.zip``.

    Raises:
        ScoreError: the archive or the mask is missing.
    """
    return _read(root, run, f"{dataset}/{image_id}.png")


def true_mask(root: Path, run: str, dataset: str, image_id: str) -> np.ndarray:
    """The mask that it was scored against, bool (H, W), as the scoring of ``run`` stored it.

    Raises:
        ScoreError: the archive or the mask is missing.
    """
    return _read(root, run, f"{TRUTH}{dataset}/{image_id}.png")


def has_masks(root: Path, run: str) -> bool:
    """Whether the run's scoring left masks."""
    return any((root / "runs").glob(f"*/{run}/test_masks.zip"))


def _read(root: Path, run: str, name: str) -> np.ndarray:
    import cv2

    archive = next(iter(sorted((root / "runs").glob(f"*/{run}/test_masks.zip"))), None)
    if archive is None:
        raise ScoreError("The run has no stored masks", ids=[run], remedy="score the run again")
    try:
        with zipfile.ZipFile(archive) as masks:
            content = np.frombuffer(masks.read(name), np.uint8)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ScoreError(f"A stored mask is missing: {error}", file=archive, remedy="score the run again") from error
    return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) > 0
