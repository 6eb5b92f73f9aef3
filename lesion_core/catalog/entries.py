"""What the catalog and the split tables say together, for the stages that read images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.errors import CatalogError, SplitError
from lesion_core.files import read_csv, read_parquet


def read_catalog(catalog: Path) -> list[dict[str, Any]]:
    """All rows of images.parquet; CatalogError if it cannot be read."""
    try:
        return read_parquet(catalog, needs=("dataset", "image_id", "path", "mask_path")).to_pylist()
    except (OSError, ValueError) as error:
        raise CatalogError(f"the catalog cannot be read ({error})", file=catalog) from error


def dataset_entries(dataset: str, catalog: Path, splits_dir: Path) -> list[dict[str, Any]]:
    """A dataset's catalog rows with ``split`` and the split table's ``group_id``, sorted by image id.

    Raises:
        CatalogError: the dataset is not in the catalog.
        SplitError: there is no split table, or it names other images than the catalog.
    """
    entries = [entry for entry in read_catalog(catalog) if entry["dataset"] == dataset]
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
