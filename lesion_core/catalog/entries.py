"""What the catalog and the split tables say together, for the stages that read images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from lesion_core.errors import CatalogError, SplitError
from lesion_core.files import read_csv, read_parquet
from lesion_core.paths import Layout

SPLITS = ("train", "val", "test")
COLUMNS = ("image_id", "group_id", "split")


def read_catalog(catalog: Path) -> list[dict[str, Any]]:
    """All rows of images.parquet; CatalogError if it cannot be read."""
    try:
        return read_parquet(catalog, needs=("dataset", "image_id", "path", "mask_path")).to_pylist()
    except (OSError, ValueError) as error:
        raise CatalogError(f"the catalog cannot be read ({error})", file=catalog) from error


def files_of(layout: Layout, dataset: str, column: Literal["path", "mask_path"]) -> dict[str, Path]:
    """Image id -> the image's file, or that of its published mask where there is one."""
    rows = read_parquet(layout.catalog, ["dataset", "image_id", column]).to_pylist()
    return {row["image_id"]: layout.root / row[column] for row in rows if row["dataset"] == dataset and row[column]}


def read_split(path: Path, image_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """The rows of a split table by image id.

    Raises:
        SplitError: it is missing, has other columns or splits, or does not hold exactly these images, each once.
    """
    remedy = "run the splits stage again"
    try:
        table = read_csv(path)
    except OSError as error:
        raise SplitError("there is no split table that can be read", file=path, remedy=remedy) from error
    if any(set(row) != {*COLUMNS} or row["split"] not in SPLITS for row in table):
        raise SplitError("the split table has other columns or splits than it should", file=path, remedy=remedy)
    counts = Counter(row["image_id"] for row in table)
    wrong = sorted(counts.keys() ^ {*image_ids} | {name for name, count in counts.items() if count > 1})
    if wrong:
        raise SplitError("images that are missing, unknown or doubled", file=path, ids=wrong, remedy=remedy)
    return {row["image_id"]: row for row in table}


def dataset_entries(dataset: str, catalog: Path, splits_dir: Path) -> list[dict[str, Any]]:
    """A dataset's catalog rows with ``split`` and the split table's ``group_id``, sorted by image id.

    Raises:
        CatalogError: the dataset is not in the catalog.
        SplitError: see ``read_split``.
    """
    entries = {entry["image_id"]: entry for entry in read_catalog(catalog) if entry["dataset"] == dataset}
    if not entries:
        raise CatalogError(f"the catalog has no image of {dataset}", file=catalog)
    splits = read_split(splits_dir / f"{dataset}.csv", entries)
    return [entry | splits[image_id] for image_id, entry in sorted(entries.items())]
