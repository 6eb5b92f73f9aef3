"""The harmonize stage: one appearance and one size for all images of a dataset, in arrays that map into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lesion_core.acquire.images import read_mask, write_image
from lesion_core.acquire.parallel import in_threads
from lesion_core.catalog.entries import dataset_entries
from lesion_core.files import atomic_path, write_csv
from lesion_core.pixels.contact_sheet import CELL, Sample, contact_sheet, fit
from lesion_core.pixels.datasets import INDEX_COLUMNS, NO_MASK
from lesion_core.pixels.harmonize import harmonize_image, read_original
from lesion_core.pixels.masks import harmonize_mask
from lesion_core.pixels.reference import read_reference
from lesion_core.progress import say
from lesion_core.settings import Harmonization

SHEET, SHEET_SAMPLES = "contact_sheet.png", 12
CLOSED_SPLIT = "test"
Made = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # the image as released, harmonized, and its soft mask
COLOURS = ("red", "green", "blue")
STATISTICS = (
    "image_id",
    "split",
    *(f"{colour}_before" for colour in COLOURS),
    *(f"{colour}_after" for colour in COLOURS),
    "lesion_fraction",
)


def harmonize_dataset(
    dataset: str,
    size: int,
    catalog: Path,
    splits_dir: Path,
    reference: Path | None,
    root: Path,
    out: Path,
    settings: Harmonization,
    *,
    workers: int | None = None,
) -> None:
    """Write a dataset's images and masks at one size as memory-mappable arrays.

    Writes into ``out``: images.npy uint8 (N, size, size, 3) RGB; masks.npy uint8 (M, size, size), soft refined masks
    of training and validation images only (the masks of test images stay closed: they are not even opened);
    contact_sheet.png; statistics.csv (mean colours 0..255 before and after, share of the lesion); and last index.csv,
    so that a folder with an index is complete. N follows the image ids, sorted.

    Args:
        dataset: its name in the catalog.
        size: side, in pixels.
        catalog: images.parquet.
        splits_dir: holds <dataset>.csv.
        reference: reference.npy; may be None if ``settings.histogram`` is ``none``.
        root: paths in the catalog are relative to it.
        out: the folder.
        settings: see ``harmonize_image``, ``masks.refine`` and ``masks.soften``.
        workers: threads; None takes the processors this process may use. The result does not depend on it.

    Raises:
        CatalogError: the dataset is not in the catalog.
        SplitError: splits and catalog disagree.
        ImageError, MaskError: a file cannot be read.
        RunError: the reference is missing or wrong.
    """
    entries, masks = _numbered(dataset, catalog, splits_dir)
    make = _maker(dataset, size, root, reference, settings)
    shown = _sheet_rows(entries)
    out.mkdir(parents=True, exist_ok=True)
    # An index left from an earlier run must not vouch for the arrays that replace its own.
    (out / "index.csv").unlink(missing_ok=True)
    with (
        atomic_path(out / "images.npy") as image_file,
        atomic_path(out / "masks.npy") as mask_file,
    ):
        shape = (size, size)
        image_array = np.lib.format.open_memmap(image_file, "w+", np.uint8, (len(entries), *shape, 3))
        mask_array = np.lib.format.open_memmap(mask_file, "w+", np.uint8, (masks, *shape))

        def work(entry: dict[str, Any]) -> tuple[dict[str, Any], Sample | None]:
            original, image, soft = make(entry)
            image_array[entry["row"]] = image
            if soft is not None:
                mask_array[entry["mask_row"]] = soft
            sample = _sample(entry, original, image, soft) if entry["row"] in shown else None
            return _statistics(entry, original, image, soft), sample

        results = list(in_threads(work, entries, f"harmonize {dataset} at {size}", workers))
        image_array.flush()
        mask_array.flush()
    empty = [row["image_id"] for row, _ in results if row["lesion_fraction"] == "0.000000"]
    if empty:
        say(f"{dataset}: {len(empty)} masks hold no lesion, among them {', '.join(empty[:5])}")
    _write_sheet([sample for _, sample in results if sample is not None], dataset, size, out / SHEET)
    write_csv(out / "statistics.csv", STATISTICS, [row for row, _ in results])
    write_csv(out / "index.csv", INDEX_COLUMNS, [{key: entry[key] for key in INDEX_COLUMNS} for entry in entries])


def write_sheet(
    dataset: str,
    size: int,
    catalog: Path,
    splits_dir: Path,
    reference: Path | None,
    root: Path,
    out: Path,
    settings: Harmonization,
) -> None:
    """Write the contact sheet alone, to the file ``out``; arguments and errors as in ``harmonize_dataset``."""
    entries, _ = _numbered(dataset, catalog, splits_dir)
    make = _maker(dataset, size, root, reference, settings)
    shown = _sheet_rows(entries)
    _write_sheet([_sample(entry, *make(entry)) for entry in entries if entry["row"] in shown], dataset, size, out)


def _numbered(dataset: str, catalog: Path, splits_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """A dataset's entries with the rows of their image and mask, -1 for a mask that stays closed; how many masks."""
    entries = dataset_entries(dataset, catalog, splits_dir)
    masks = 0
    for row, entry in enumerate(entries):
        closed = entry["split"] == CLOSED_SPLIT or entry["mask_path"] is None
        entry.update(row=row, mask_row=NO_MASK if closed else masks)
        masks += not closed
    return entries, masks


def _maker(
    dataset: str, size: int, root: Path, reference: Path | None, settings: Harmonization
) -> Callable[[dict[str, Any]], Made]:
    wanted = None if settings.histogram == "none" or reference is None else read_reference(reference)

    def make(entry: dict[str, Any]) -> Made:
        original = read_original(root / entry["path"], size, settings)
        image = harmonize_image(original, size, wanted, settings, [dataset])
        soft = None
        if entry["mask_row"] != NO_MASK:
            mask = read_mask(root / entry["mask_path"], (entry["height"], entry["width"]))
            soft = harmonize_mask(mask, size, settings)
        return original, image, soft

    return make


def _sample(entry: dict[str, Any], original: np.ndarray, image: np.ndarray, soft: np.ndarray | None) -> Sample:
    words = (entry["image_id"], entry["label"], entry["split"])
    return Sample("  ".join(word for word in words if word), fit(original, CELL), image, soft)


def _write_sheet(samples: list[Sample], dataset: str, size: int, out: Path) -> None:
    title = f"{dataset}, {size} px: left as released, right harmonized; outline: refined mask (training, validation)"
    write_image(out, contact_sheet(samples, title), cv2.IMWRITE_PNG_COMPRESSION, 6)


def _sheet_rows(entries: list[dict[str, Any]]) -> set[int]:
    """Rows for the contact sheet, evenly spaced; those with a mask if there are any."""
    rows = [entry["row"] for entry in entries if entry["mask_row"] != NO_MASK]
    rows = rows or [entry["row"] for entry in entries]
    chosen = np.linspace(0, len(rows) - 1, min(SHEET_SAMPLES, len(rows)))
    return {rows[round(position)] for position in chosen}


def _statistics(
    entry: dict[str, Any], before: np.ndarray, after: np.ndarray, soft: np.ndarray | None
) -> dict[str, Any]:
    row = {"image_id": entry["image_id"], "split": entry["split"], "lesion_fraction": ""}
    for when, image in (("before", before), ("after", after)):
        for colour, value in zip(COLOURS, cv2.mean(image), strict=False):
            row[f"{colour}_{when}"] = f"{value:.3f}"
    if soft is not None:
        row["lesion_fraction"] = f"{np.count_nonzero(soft >= 128) / soft.size:.6f}"
    return row
