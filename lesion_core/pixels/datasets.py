"""Harmonized datasets on disk, memory-mapped: one, or several as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import CatalogError, MaskError, RunError
from lesion_core.files import read_csv
from lesion_core.settings import CLASSES

INDEX_COLUMNS = (
    "row",
    "image_id",
    "lesion_id",
    "group_id",
    "split",
    "label",
    "mask_row",
    "width",
    "height",
    "age",
    "sex",
    "site",
)
SPLITS = ("train", "val", "test")
NO_MASK = -1
NO_LABEL = -1
REMEDY = "run the harmonize stage again"


class Stacked:
    """Arrays of equal item shape as one along the first axis; an item is a view, and nothing else is read or copied."""

    def __init__(self, parts: Sequence[np.ndarray | Stacked]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape: tuple[int, ...] = (int(self.starts[-1]), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: Any) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part][row - self.starts[part]]


@dataclass(frozen=True)
class Harmonized:
    """Images, masks and metadata at one size.

    Attributes:
        names: the datasets, in the order of their rows.
        images: uint8 (N, S, S, 3) RGB, read-only (memory-mapped; ``Stacked`` for a combination).
        masks: uint8 (M, S, S) soft refined masks, binary by ``>= 128``; training and validation only, since the
            masks of test images stay closed.
        index: N dicts in row order: dataset, row, image_id, lesion_id, group_id, split, label (str or None), mask_row
            (-1 if there is no mask), width, height (of the image), age (float or None), sex, site (str or None).
    """

    names: tuple[str, ...]
    images: np.ndarray | Stacked
    masks: np.ndarray | Stacked
    index: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path, name: str | None = None) -> Harmonized:
        """Open ``harmonized/<dataset>/<size>``.

        Args:
            folder: written by ``harmonize_dataset``.
            name: the dataset; by default the name of the folder's parent.

        Raises:
            RunError: a file is missing or unreadable.
            CatalogError: the files do not fit each other, or a test image has a mask.
        """
        folder = Path(folder)
        for file in ("index.csv", "images.npy", "masks.npy"):
            if not (folder / file).is_file():
                raise RunError("a harmonized dataset is incomplete", file=folder / file, remedy=REMEDY)
        name = folder.resolve().parent.name if name is None else name
        images, masks = _map(folder / "images.npy", 4), _map(folder / "masks.npy", 3)
        index = _read_index(folder / "index.csv", name)
        _check(folder, images, masks, index)
        return cls((name,), images, masks, index)

    @property
    def name(self) -> str:
        """The dataset, or the datasets joined by ``+``."""
        return "+".join(self.names)

    @property
    def size(self) -> int:
        """Side S of the images, in pixels."""
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, split: str | None = None, *, with_mask: bool = False, with_label: bool = False) -> np.ndarray:
        """Row numbers, int64, ascending.

        Args:
            split: ``train``, ``val``, ``test``, or None for all.
            with_mask: only rows with a mask here (never test rows).
            with_label: only rows with a label.

        Raises:
            ValueError: the split is unknown.
        """
        if split is not None and split not in SPLITS:
            raise ValueError(f"unknown split {split!r}")
        return np.array(
            [
                entry["row"]
                for entry in self.index
                if (split is None or entry["split"] == split)
                and (not with_mask or entry["mask_row"] != NO_MASK)
                and (not with_label or entry["label"] is not None)
            ],
            dtype=np.int64,
        )

    def labels(self) -> np.ndarray:
        """int64 (N,): the position of each label in ``settings.CLASSES``, -1 without one."""
        number = {name: position for position, name in enumerate(CLASSES)}
        return np.array(
            [NO_LABEL if entry["label"] is None else number[entry["label"]] for entry in self.index],
            dtype=np.int64,
        )

    def image(self, row: int) -> np.ndarray:
        """uint8 (S, S, 3) RGB, a read-only view."""
        return self.images[int(row)]

    def soft_mask(self, row: int) -> np.ndarray:
        """uint8 (S, S), 0..255, a read-only view.

        Raises:
            MaskError: the image has no mask, or it stays closed because the image is a test image.
        """
        entry = self.index[int(row)]
        if entry["mask_row"] == NO_MASK:
            why = "the mask of a test image stays closed" if entry["split"] == "test" else "the image has no mask"
            raise MaskError(why, ids=[f"{entry['dataset']}/{entry['image_id']}"])
        return self.masks[entry["mask_row"]]


def combine(parts: Sequence[Harmonized]) -> Harmonized:
    """Several datasets of one size as one, rows numbered through in the order given; arrays are not copied.

    Raises:
        ValueError: there is none.
        CatalogError: sizes differ, or a dataset occurs twice.
    """
    if not parts:
        raise ValueError("nothing to combine")
    if len(parts) == 1:
        return parts[0]
    names = tuple(name for part in parts for name in part.names)
    if len({part.size for part in parts}) > 1:
        sizes = ", ".join(f"{part.name} {part.size}" for part in parts)
        raise CatalogError(f"harmonized sizes differ: {sizes}", remedy="harmonize them at one size")
    if len(set(names)) < len(names):
        raise CatalogError("a dataset occurs twice", ids=names)
    index: list[dict[str, Any]] = []
    mask_start = 0
    for part in parts:
        row_start = len(index)
        for entry in part.index:
            mask_row = entry["mask_row"]
            shifted = NO_MASK if mask_row == NO_MASK else mask_row + mask_start
            index.append({**entry, "row": entry["row"] + row_start, "mask_row": shifted})
        mask_start += len(part.masks)
    return Harmonized(names, Stacked([part.images for part in parts]), Stacked([part.masks for part in parts]), index)


def _map(path: Path, dimensions: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"an array cannot be read ({error})", file=path, remedy=REMEDY) from error
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise RunError(f"expected uint8 in {dimensions} dimensions, got {array.dtype} {array.shape}", file=path)
    return array


def _read_index(path: Path, name: str) -> list[dict[str, Any]]:
    index = []
    for entry in read_csv(path):
        if tuple(entry) != INDEX_COLUMNS:
            raise CatalogError(f"expected the columns {', '.join(INDEX_COLUMNS)}", file=path, remedy=REMEDY)
        texts = {key: entry[key] or None for key in ("lesion_id", "group_id", "label", "sex", "site")}
        try:
            numbers = {key: int(entry[key]) for key in ("row", "mask_row", "width", "height")}
            age = float(entry["age"]) if entry["age"] else None
        except (TypeError, ValueError) as error:
            raise CatalogError(
                f"a number is unreadable ({error})", file=path, ids=[entry["image_id"]], remedy=REMEDY
            ) from error
        index.append(
            {"dataset": name, "image_id": entry["image_id"], "split": entry["split"], **texts, **numbers, "age": age}
        )
    return index


def _check(folder: Path, images: np.ndarray, masks: np.ndarray, index: list[dict[str, Any]]) -> None:
    def refuse(message: str, entries: Sequence[dict[str, Any]] = ()) -> None:
        ids = [entry["image_id"] for entry in entries]
        raise CatalogError(message, file=folder / "index.csv", ids=ids, remedy=REMEDY)

    if [entry["row"] for entry in index] != list(range(len(images))):
        refuse(f"the index has {len(index)} rows, images.npy {len(images)}, or the row numbers are not 0, 1, ...")
    if images.shape[1:3] != masks.shape[1:]:
        refuse(f"images are {images.shape[1:3]}, masks {masks.shape[1:]}")
    used = [entry["mask_row"] for entry in index if entry["mask_row"] != NO_MASK]
    if sorted(used) != list(range(len(masks))):
        refuse(f"the index points to {len(used)} masks, masks.npy has {len(masks)}, or the numbers do not match")
    if wrong := [entry for entry in index if entry["split"] not in SPLITS]:
        refuse("a split is none of train, val, test", wrong)
    if wrong := [entry for entry in index if entry["label"] is not None and entry["label"] not in CLASSES]:
        refuse(f"a label is none of {', '.join(CLASSES)}", wrong)
    if wrong := [entry for entry in index if entry["split"] == "test" and entry["mask_row"] != NO_MASK]:
        refuse("test images have masks here, though those stay closed", wrong)
