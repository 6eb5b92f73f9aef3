"""The harmonize stage: one appearance and one size for all photographs (paper A, section 3.1)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lesion_core.data import histogram
from lesion_core.data.colour import grey_world, remove_hair, shades_of_grey
from lesion_core.data.contact_sheet import CELL, Sample, contact_sheet, fit, write_png
from lesion_core.data.datasets import INDEX_COLUMNS, NO_MASK
from lesion_core.data.images import read_image, read_mask
from lesion_core.data.masks import harmonize_mask
from lesion_core.data.opencv import single_thread
from lesion_core.data.resize import resize_square
from lesion_core.errors import CatalogError, ImageError, RunError, SplitError
from lesion_core.files import atomic_path, read_csv, read_parquet, write_csv
from lesion_core.progress import say, track
from lesion_core.settings import Harmonization

Item = TypeVar("Item")
Result = TypeVar("Result")
SHEET_SAMPLES = 12
SEALED_SPLIT = "test"
COLOURS = ("red", "green", "blue")
STATISTICS = (
    "image_id",
    "split",
    *(f"{colour}_before" for colour in COLOURS),
    *(f"{colour}_after" for colour in COLOURS),
    "lesion_fraction",
)


def prepare_image(image: np.ndarray, size: int, settings: Harmonization) -> np.ndarray:
    """All steps before the histogram: colour constancy, hair removal, resizing.

    Args:
        image: uint8 (H, W, 3) RGB.
        size: side of the result, in pixels.
        settings: ``colour`` and ``hair_removal``.

    Returns:
        uint8 (size, size, 3).
    """
    if settings.colour == "grey_world":
        image = grey_world(image)
    elif settings.colour == "shades_of_grey":
        image = shades_of_grey(image)
    if settings.hair_removal:
        image = remove_hair(image)
    return resize_square(image, size)


def harmonize_image(image: np.ndarray, size: int, reference: np.ndarray | None, settings: Harmonization) -> np.ndarray:
    """Harmonize one photograph: the stage and ``lesion predict`` both call this.

    Args:
        image: uint8 (H, W, 3) RGB.
        size: side of the result, in pixels.
        reference: (3, 256) as made by ``reference_histogram``; may be None if ``settings.histogram`` is ``none``.
        settings: all keys but those of masks.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ImageError: the image is not uint8 (H, W, 3) or has no pixels.
        RunError: a histogram is to be specified and there is no reference.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    prepared = prepare_image(image, size, settings)
    if settings.histogram == "none":
        return prepared
    if reference is None:
        raise RunError(
            "histogram specification needs a reference histogram",
            remedy="give the reference the model was trained with, or set harmonization.histogram to none",
        )
    return histogram.specify_histogram(prepared, reference)


def reference_histogram(
    catalog: Path,
    splits_dir: Path,
    root: Path,
    out: Path,
    size: int,
    settings: Harmonization,
    *,
    workers: int | None = None,
) -> np.ndarray:
    """Make the reference: per channel, the median of the normalised histograms of all training images.

    Images are prepared at ``size`` as for harmonization. One photograph in several datasets counts once.

    Args:
        catalog: images.parquet.
        splits_dir: holds <dataset>.csv for each dataset of the catalog.
        root: paths in the catalog are relative to it.
        out: reference.npy, float64 (3, 256), rows sum to 1; written atomically.
        size: side, in pixels.
        settings: see ``prepare_image``.
        workers: threads; None takes the processors this process may use.

    Returns:
        What was written.

    Raises:
        SplitError: splits and catalog disagree, or there is no training image.
        ImageError: a photograph cannot be read.
    """
    paths: dict[str, Path] = {}
    for dataset in sorted({entry["dataset"] for entry in _read_catalog(catalog)}):
        for entry in _dataset_entries(dataset, catalog, splits_dir):
            if entry["split"] == "train":
                paths.setdefault(entry["sha256"], root / entry["path"])
    if not paths:
        raise SplitError("no training image, so no reference histogram", file=splits_dir)

    def counts(path: Path) -> np.ndarray:
        return histogram.channel_histograms(prepare_image(read_image(path), size, settings)).astype(np.int32)

    every = np.stack(list(_in_threads(counts, list(paths.values()), "reference histogram", workers)))
    reference = histogram.median_histogram(every)
    with atomic_path(out) as partial:
        np.save(partial, reference)
    return reference


def read_reference(path: Path) -> np.ndarray:
    """Read reference.npy: float64 (3, 256), rows sum to 1.

    Raises:
        RunError: the file is missing or holds something else.
    """
    try:
        reference = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"the reference histogram cannot be read ({error})", file=path) from error
    if reference.shape != (3, histogram.LEVELS) or not np.allclose(reference.sum(axis=1), 1.0):
        raise RunError("expected a (3, 256) histogram whose rows sum to 1", file=path, remedy="make it again")
    return reference


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
    """Write a dataset's photographs and masks at one size as memory-mappable arrays.

    Writes into ``out``: images.npy uint8 (N, size, size, 3) RGB; masks.npy uint8 (M, size, size), soft refined masks
    of training and validation images only (the masks of test images are sealed: they are not even opened);
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
    entries = _dataset_entries(dataset, catalog, splits_dir)
    wanted = None if settings.histogram == "none" or reference is None else read_reference(reference)
    masks = 0
    for row, entry in enumerate(entries):
        sealed = entry["split"] == SEALED_SPLIT or entry["mask_path"] is None
        entry.update(row=row, mask_row=NO_MASK if sealed else masks)
        masks += not sealed
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
            photograph = read_image(root / entry["path"])
            image = harmonize_image(photograph, size, wanted, settings)
            image_array[entry["row"]] = image
            soft = None
            if entry["mask_row"] != NO_MASK:
                mask = read_mask(root / entry["mask_path"], photograph.shape[:2])
                soft = harmonize_mask(mask, size, settings)
                mask_array[entry["mask_row"]] = soft
            sample = None
            if entry["row"] in shown:
                words = (entry["image_id"], entry["label"], entry["split"])
                caption = "  ".join(word for word in words if word)
                sample = Sample(caption, fit(photograph, CELL), image, soft)
            return _statistics(entry, photograph, image, soft), sample

        results = list(_in_threads(work, entries, f"harmonize {dataset} at {size}", workers))
        image_array.flush()
        mask_array.flush()
    empty = [row["image_id"] for row, _ in results if row["lesion_fraction"] == "0.000000"]
    if empty:
        say(f"{dataset}: {len(empty)} masks hold no lesion, among them {', '.join(empty[:5])}")
    samples = [sample for _, sample in results if sample is not None]
    title = f"{dataset}, {size} px: left as released, right harmonized; outline: refined mask (training, validation)"
    write_png(out / "contact_sheet.png", contact_sheet(samples, title))
    write_csv(out / "statistics.csv", STATISTICS, [row for row, _ in results])
    write_csv(out / "index.csv", INDEX_COLUMNS, [{key: entry[key] for key in INDEX_COLUMNS} for entry in entries])


def _read_catalog(catalog: Path) -> list[dict[str, Any]]:
    try:
        return read_parquet(catalog).to_pylist()
    except (OSError, ValueError) as error:
        raise CatalogError(f"the catalog cannot be read ({error})", file=catalog) from error


def _dataset_entries(dataset: str, catalog: Path, splits_dir: Path) -> list[dict[str, Any]]:
    """A dataset's catalog rows with ``split`` and the split table's ``group_id``, sorted by image id."""
    entries = [entry for entry in _read_catalog(catalog) if entry["dataset"] == dataset]
    if not entries:
        raise CatalogError(f"the catalog has no image of {dataset}", file=catalog)
    table = splits_dir / f"{dataset}.csv"
    if not table.is_file():
        raise SplitError(f"{dataset} has no split table", file=table, remedy="run the splits stage")
    splits = {row["image_id"]: row for row in read_csv(table)}
    if differing := sorted(splits.keys() ^ {entry["image_id"] for entry in entries}):
        raise SplitError(
            "images stand in the catalog or in the split table, not in both",
            file=table,
            ids=differing,
            remedy="run the splits stage again",
        )
    for entry in entries:
        row = splits[entry["image_id"]]
        entry.update(split=row["split"], group_id=row["group_id"])
    return sorted(entries, key=lambda entry: entry["image_id"])


def _sheet_rows(entries: list[dict[str, Any]]) -> set[int]:
    """Rows for the contact sheet, evenly spaced; those with a mask if there are any."""
    rows = [entry["row"] for entry in entries if entry["mask_row"] != NO_MASK]
    rows = rows or [entry["row"] for entry in entries]
    chosen = np.linspace(0, len(rows) - 1, min(SHEET_SAMPLES, len(rows)))
    return {rows[round(position)] for position in chosen}


def _statistics(
    entry: dict[str, Any], before: np.ndarray, after: np.ndarray, soft: np.ndarray | None
) -> dict[str, Any]:
    import cv2

    row = {"image_id": entry["image_id"], "split": entry["split"], "lesion_fraction": ""}
    for when, image in (("before", before), ("after", after)):
        for colour, value in zip(COLOURS, cv2.mean(image), strict=False):
            row[f"{colour}_{when}"] = f"{value:.3f}"
    if soft is not None:
        row["lesion_fraction"] = f"{np.count_nonzero(soft >= 128) / soft.size:.6f}"
    return row


def _in_threads(work: Callable[[Item], Result], items: list[Item], label: str, workers: int | None) -> Iterator[Result]:
    """Results in the order of ``items``. Decoding, resizing and look-ups release the interpreter's lock."""
    threads = workers or len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(threads)
    try:
        with single_thread():
            yield from track(pool.map(work, items), label, len(items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
