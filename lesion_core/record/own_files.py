"""Images and masks of a user's own dataset: they lie where the user has them, outside the results."""

from __future__ import annotations

from pathlib import Path

from lesion_core.files import read_parquet

DATASET = "custom"


def own_files(catalog: Path) -> dict[str, str]:
    """The own dataset's files, as the catalog names them (relative to the results) -> SHA-256 when it was made.

    Raises:
        FormatError: the catalog cannot be read.
    """
    columns = ["dataset", "path", "sha256", "mask_path", "mask_sha256"]
    rows = [row for row in read_parquet(catalog, columns).to_pylist() if row["dataset"] == DATASET]
    images = {row["path"]: row["sha256"] for row in rows}
    return images | {row["mask_path"]: row["mask_sha256"] for row in rows if row["mask_path"] is not None}
