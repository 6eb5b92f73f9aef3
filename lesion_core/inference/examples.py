"""What a classifier is shown of a dataset's split: images, the masks its run names, and their flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.acquire.images import read_mask
from lesion_core.catalog.entries import files_of
from lesion_core.errors import MaskError
from lesion_core.inference.predict import probabilities
from lesion_core.models.trained import LoadedClassifier, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.masks import harmonize_mask
from lesion_core.pixels.pseudo_masks import read_pseudo_masks
from lesion_core.pixels.shuffle import foreign_rows
from lesion_core.settings import ClassificationMethod
from lesion_core.settings.run import Run

TRUE_MASKS = "true"


@dataclass(frozen=True)
class Examples:
    """Labelled images of one dataset and split.

    Attributes:
        records: (n) index entries: image_id, lesion_id, label, split, ...
        images: uint8 (n, S, S, 3) RGB, harmonized.
        masks: uint8 (n, S', S') soft masks, None where the model looks at none.
    """

    records: list[dict[str, Any]]
    images: np.ndarray
    masks: np.ndarray | None

    def flags(self) -> list[str]:
        """Per image: ``empty`` or ``full`` where the mask cuts nothing out, so that the whole image was
        shown; ``""`` otherwise."""
        return [""] * len(self.records) if self.masks is None else [mask_flag(mask) for mask in self.masks]


def mask_flag(mask: np.ndarray) -> str:
    """``empty`` or ``full`` for a soft mask uint8 (S, S) without, or with nothing but, lesion (>= 128); else ``""``."""
    lesion = mask >= 128
    return "empty" if not lesion.any() else "full" if lesion.all() else ""


def labelled_examples(
    loaded: LoadedClassifier,
    run_dir: Path,
    run: Run,
    root: Path,
    dataset: str,
    split: str,
    *,
    batch_size: int = 8,
    device: str = "cpu",
) -> Examples | None:
    """Labelled images of a split as a classifier is to see them.

    Args:
        loaded: the classifier.
        run_dir, run: the classification or joint run it belongs to.
        split: ``val`` or ``test``; true masks of test images are opened here, in the scoring stage, and nowhere else.
        batch_size, device: of a joint run's segmenter.

    Returns:
        None where the run is given true masks and the dataset publishes none at all.

    Raises:
        MaskError: an image has no mask.
    """
    layout = Layout(Path(root))
    data = Harmonized.open(layout.pixels(loaded.run.pixels, dataset, loaded.size))
    rows = data.rows(split, with_label=True)
    masks = masks_of(loaded, run_dir, run, layout, data, rows, batch_size=batch_size, device=device)
    if masks is None and loaded.needs_masks:
        return None
    return Examples([data.index[row] for row in rows], data.images[rows], masks)


def masks_of(
    loaded: LoadedClassifier,
    run_dir: Path,
    run: Run,
    layout: Layout,
    data: Harmonized,
    rows: np.ndarray,
    *,
    batch_size: int = 8,
    device: str = "cpu",
) -> np.ndarray | None:
    """Soft masks uint8 (n, S', S') of rows of one split: pseudo-masks, a joint run's own, true or another lesion's.

    None where the model looks at no mask, or is given true ones and the dataset publishes none; arguments and errors
    as ``labelled_examples``.
    """
    if not loaded.needs_masks:
        return None
    dataset = data.name
    shuffled = isinstance(run.spec, ClassificationMethod) and run.spec.mask_order == "shuffled"
    donors = foreign_rows(data.index, rows, run.seed) if shuffled else rows
    if run.task == "joint":
        return _own_masks(run_dir, layout, dataset, donors, batch_size, device)
    if run.segmenter_run is not None:
        folder = layout.pseudo_masks(run.segmenter_run, dataset)
        return read_pseudo_masks(folder, data.index, dataset)[donors]
    return _true_masks(layout, run, dataset, data, donors)


def _own_masks(
    run_dir: Path, layout: Layout, dataset: str, rows: np.ndarray, batch_size: int, device: str
) -> np.ndarray:
    """A joint run's own soft masks."""
    segmenter = load_segmenter(run_dir, device=device)
    data = Harmonized.open(layout.pixels(segmenter.run.pixels, dataset, segmenter.size))
    sizes = [(data.index[row]["height"], data.index[row]["width"]) for row in rows]
    maps = probabilities(segmenter, data.images[rows], sizes, batch_size=batch_size)
    return np.concatenate([np.round(batch * 255).astype(np.uint8) for batch in maps])


def _true_masks(layout: Layout, run: Run, dataset: str, data: Harmonized, rows: np.ndarray) -> np.ndarray | None:
    """The published masks, refined and softened as in training; None where the dataset publishes none."""
    paths = files_of(layout, dataset, "mask_path")
    if not paths:
        return None
    missing = [data.index[row]["image_id"] for row in rows if data.index[row]["image_id"] not in paths]
    if missing:
        raise MaskError(
            f"Images of {dataset} have no true mask",
            file=layout.catalog,
            ids=missing,
            remedy="use pseudo-masks (masks: a segmentation method)",
        )
    masks = []
    for row in rows:
        record = data.index[row]
        mask = read_mask(paths[record["image_id"]], (record["height"], record["width"]))
        masks.append(harmonize_mask(mask, data.size, run.harmonization))
    return np.stack(masks) if masks else np.zeros((0, data.size, data.size), np.uint8)
