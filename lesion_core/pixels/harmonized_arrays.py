"""The harmonize stage: one appearance and one size for all images of a dataset, in arrays that map into memory."""

from __future__ import annotations

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

SHEET_SAMPLES = 12
CLOSED_SPLIT = "test"
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
    entries = dataset_entries(dataset, catalog, splits_dir)
    wanted = None if settings.histogram == "none" or reference is None else read_reference(reference)
    masks = 0
    for row, entry in enumerate(entries):
        closed = entry["split"] == CLOSED_SPLIT or entry["mask_path"] is None
        entry.update(row=row, mask_row=NO_MASK if closed else masks)
        masks += not closed
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
            original = read_original(root / entry["path"], size, settings)
            image = harmonize_image(original, size, wanted, settings, [dataset])
            image_array[entry["row"]] = image
            soft = None
            if entry["mask_row"] != NO_MASK:
                mask = read_mask(root / entry["mask_path"], (entry["height"], entry["width"]))
                soft = harmonize_mask(mask, size, settings)
                mask_array[entry["mask_row"]] = soft
            sample = None
            if entry["row"] in shown:
                words = (entry["image_id"], entry["label"], entry["split"])
                caption = "  ".join(word for word in words if word)
                sample = Sample(caption, fit(original, CELL), image, soft)
            return _statistics(entry, original, image, soft), sample

        results = list(in_threads(work, entries, f"harmonize {dataset} at {size}", workers))
        image_array.flush()
        mask_array.flush()
    empty = [row["image_id"] for row, _ in results if row["lesion_fraction"] == "0.000000"]
    if empty:
        say(f"{dataset}: {len(empty)} masks hold no lesion, among them {', '.join(empty[:5])}")
    samples = [sample for _, sample in results if sample is not None]
    title = f"{dataset}, {size} px: left as released, right harmonized; outline: refined mask (training, validation)"
    write_image(out / "contact_sheet.png", contact_sheet(samples, title), cv2.IMWRITE_PNG_COMPRESSION, 6)
    write_csv(out / "statistics.csv", STATISTICS, [row for row, _ in results])
    write_csv(out / "index.csv", INDEX_COLUMNS, [{key: entry[key] for key in INDEX_COLUMNS} for entry in entries])


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
