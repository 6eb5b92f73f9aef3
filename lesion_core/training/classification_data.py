"""Labelled training and validation images with the masks a classifier is given: true ones, a segmenter's, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.errors import CatalogError, MaskError, SplitError
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized, combine
from lesion_core.pixels.pseudo_masks import read_pseudo_masks
from lesion_core.pixels.resize import resize_masks
from lesion_core.pixels.shuffle import foreign_rows
from lesion_core.settings import CLASSES

TRUE_MASKS = "true"


@dataclass(frozen=True)
class LabelledImages:
    """Images, labels and soft masks at one size.

    Attributes:
        data: harmonized pixels of all datasets of the run.
        labels: int64 (N,), position in ``CLASSES``; -1 without one.
        train, val: row numbers of the images that teach and validate, int64, ascending.
        pseudo: None, or one uint8 (n, S', S') array per dataset, aligned with its rows.
        masked: whether ``mask`` may be called.
        inputs: files that say which images and masks were read (not the pixels, gigabytes at full scale), for the
            provenance.
        donors: None, or int64 (N,): the row whose mask each row is given (shuffled masks, a control).
    """

    data: Harmonized
    labels: np.ndarray
    train: np.ndarray
    val: np.ndarray
    pseudo: tuple[np.ndarray, ...] | None
    masked: bool
    inputs: tuple[Path, ...]
    donors: np.ndarray | None = None

    def vocabulary(self) -> MetadataVocabulary:
        """What the training images' metadata teach: categories, mean age; validation and test images add nothing."""
        return MetadataVocabulary.fit(self.data.index[row] for row in self.train)

    def counts(self) -> np.ndarray:
        """Training images per class, int64 (7,)."""
        return np.bincount(self.labels[self.train], minlength=len(CLASSES))

    def image(self, row: int) -> np.ndarray:
        """uint8 (S, S, 3) RGB, read-only."""
        return self.data.image(row)

    def mask(self, row: int) -> np.ndarray:
        """Soft mask uint8 (S, S), 0..255, of a training or validation image; 0 if the run uses no masks."""
        if not self.masked:
            return np.zeros((self.data.size, self.data.size), np.uint8)
        row = int(row if self.donors is None else self.donors[row])
        if self.pseudo is None:
            return self.data.soft_mask(row)
        for part in self.pseudo:
            if row < len(part):
                return resize_masks(np.asarray(part[row : row + 1]), self.data.size)[0]
            row -= len(part)
        raise IndexError(row)


def load_labelled_images(
    root: Path,
    home: str,
    datasets: Sequence[str],
    size: int,
    *,
    masks: str | None,
    segmenter_run: str | None,
    shuffle_seed: int | None = None,
) -> LabelledImages:
    """Open what a classifier trains on.

    Args:
        home: of the pixels.
        datasets: names, in any order.
        size: pixels per side, the size of the images and of the masks that ``mask`` returns.
        masks: None: the model needs none; ``true``: the datasets' own; otherwise the pseudo-masks of
            ``segmenter_run``.
        segmenter_run: id of a segmentation run.
        shuffle_seed: every image is given the mask of another lesion of its dataset and split; None: its own.

    Raises:
        SplitError: a class has no training image.
        CatalogError: no validation image has a label.
        MaskError: a training or validation image has no mask, or a pseudo-mask belongs to another image.
    """
    layout = Layout(Path(root))
    folders = [layout.pixels(home, name, size) for name in sorted(datasets)]
    data = combine([Harmonized.open(folder) for folder in folders])
    inputs = [folder / "index.csv" for folder in folders]
    labels = data.labels()
    train, val = data.rows("train", with_label=True), data.rows("val", with_label=True)
    _check_classes(data, labels, train, val)
    pseudo = None
    if masks == TRUE_MASKS:
        _check_true_masks(data, np.concatenate([train, val]))
    elif masks is not None:
        assert segmenter_run is not None
        homes = [layout.pseudo_masks(segmenter_run, name) for name in data.names]
        pseudo = tuple(read_pseudo_masks(home, data.index, name) for home, name in zip(homes, data.names, strict=True))
        inputs += [home / "masks.csv" for home in homes]
    donors = None if shuffle_seed is None else _donors(data, (train, val), shuffle_seed)
    return LabelledImages(data, labels, train, val, pseudo, masks is not None, tuple(inputs), donors)


def load_masked_images(root: Path, home: str, datasets: Sequence[str], size: int) -> LabelledImages:
    """Open the images with a true mask, labelled or not, that joint training learns segmentation from.

    Args:
        home: of the pixels.
        datasets: names, in any order.
        size: pixels per side.

    Raises:
        MaskError: no training or no validation image has a mask.
    """
    layout = Layout(Path(root))
    folders = [layout.pixels(home, name, size) for name in sorted(datasets)]
    data = combine([Harmonized.open(folder) for folder in folders])
    train, val = data.rows("train", with_mask=True), data.rows("val", with_mask=True)
    for split, rows in (("training", train), ("validation", val)):
        if not len(rows):
            raise MaskError(
                f"No {split} image of {data.name} has a mask",
                remedy="check the splits, and train_on of the segmenter that joint training starts from",
            )
    return LabelledImages(data, data.labels(), train, val, None, True, tuple(path / "index.csv" for path in folders))


def _donors(data: Harmonized, splits: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """int64 (N,): whose mask each labelled image gets; within one dataset and split, never of the same group."""
    donors = np.arange(len(data))
    for rows in splits:
        for name in data.names:
            own = np.array([row for row in rows if data.index[row]["dataset"] == name], np.int64)
            donors[own] = foreign_rows(data.index, own, seed)
    return donors


def _check_classes(data: Harmonized, labels: np.ndarray, train: np.ndarray, val: np.ndarray) -> None:
    missing = [name for number, name in enumerate(CLASSES) if number not in labels[train]]
    if missing:
        others = (row for split in ("val", "test") for row in data.rows(split, with_label=True))
        waiting = [row for row in others if CLASSES[labels[row]] in missing]
        told = f"; {len(waiting)} validation and test images have it" if waiting else ""
        raise SplitError(
            f"No training image of {data.name} has the class {', '.join(missing)}{told}",
            ids=[data.index[row]["image_id"] for row in waiting],
            remedy="train on more datasets, or make the splits again with a larger training share",
        )
    if not len(val):
        raise CatalogError(
            f"No validation image of {data.name} has a label", remedy="give the validation split a larger share"
        )


def _check_true_masks(data: Harmonized, rows: np.ndarray) -> None:
    missing = [row for row in rows if data.index[row]["mask_row"] < 0]
    if missing:
        raise MaskError(
            f"{len(missing)} training or validation images of {data.name} have no true mask",
            ids=[data.index[row]["image_id"] for row in missing],
            remedy="use pseudo-masks: set masks to a segmentation method instead of true",
        )
