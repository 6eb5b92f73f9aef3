"""A segmenter's soft masks of a dataset, as classifiers are given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import MaskError
from lesion_core.files import read_array, read_csv


def read_pseudo_masks(
    folder: Path, index: Sequence[Mapping[str, Any]], dataset: str, name: str = "probabilities.npy"
) -> np.ndarray:
    """uint8 (n, S', S'), 0..255, memory-mapped: one for each image of the dataset, in the order of the index.

    ``name``: the array, ``masks.npy`` for the refined masks.

    Raises:
        MaskError: there are none, an image has none, or they are of other images.
        FormatError: a file cannot be read.
    """
    remedy = "run the pseudo_masks rule again"
    try:
        listed = [row["image_id"] for row in read_csv(folder / "masks.csv")]
        maps = read_array(folder / name, mapped=True)
    except FileNotFoundError as error:
        raise MaskError(f"There are no pseudo-masks of {dataset}", file=error.filename, remedy=remedy) from error
    expected = [entry["image_id"] for entry in index if entry["dataset"] == dataset]
    if without := sorted(set(expected) - set(listed)):
        told = f"{len(without)} images of {dataset} have no pseudo-mask"
        raise MaskError(told, file=folder / "masks.csv", ids=without, remedy=remedy)
    if listed != expected or maps.shape[:1] != (len(listed),) or maps.ndim != 3 or maps.dtype != np.uint8:
        raise MaskError(
            f"The pseudo-masks of {dataset} are not row-aligned with its {len(expected)} images: "
            f"{len(listed)} ids, maps {maps.dtype} {maps.shape}",
            file=folder,
            ids=sorted(set(listed) - set(expected)),
            remedy=remedy,
        )
    return maps
