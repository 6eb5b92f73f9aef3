"""Photographs and masks of a user's own dataset: they lie where the user has them, outside the results."""

from __future__ import annotations

from pathlib import Path

from lesion_core.files import read_parquet

DATASET = "custom"


def own_files(catalog: Path) -> dict[str, str | None]:
    """The own dataset's files, as the catalog names them (relative to the results) -> SHA-256 when it was made.

    None instead of a hash: an earlier catalog, which held none of masks.

    Raises:
        FormatError: the catalog cannot be read.
    """
    files: dict[str, str | None] = {}
    for row in read_parquet(catalog, needs=("dataset",)).to_pylist():
        if row["dataset"] == DATASET:
            pairs = ((row.get("path"), row.get("sha256")), (row.get("mask_path"), row.get("mask_sha256")))
            files |= {name: digest for name, digest in pairs if name is not None}
    return files
