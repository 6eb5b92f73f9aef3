"""Leak-free splits: every group gets one split across all datasets, stratified by dataset and class."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lesion_core import settings
from lesion_core.catalog.certificate import SPLITS, write_certificate
from lesion_core.catalog.official import prescribe
from lesion_core.catalog.stratify import split_groups
from lesion_core.catalog.table import read_images
from lesion_core.files import write_csv
from lesion_core.progress import say

COLUMNS = ("image_id", "group_id", "split")


def build_splits(catalog: Path, edges: Path, splits: settings.Splits, out_dir: Path) -> None:
    """Write ``<dataset>.csv`` (image_id, group_id, split) for every dataset, then the leakage certificate.

    Args:
        catalog: images.parquet.
        edges: edges.parquet, for the certificate.
        splits: seed, fractions and official splits.
        out_dir: folder of the split tables, ``certificate.json`` or ``certificate.failed.json``.

    Raises:
        SplitError: a dataset or a class cannot stand in every split, or an official split cannot be had.
        LeakageError: an edge crosses a split after all.
    """
    rows = read_images(Path(catalog))
    fractions = {"train": splits.train, "val": splits.val, "test": splits.test}
    prescribed, moved = prescribe(rows, splits)
    assigned = split_groups(
        [(row["group_id"], row["dataset"], row["label"] or "") for row in rows], fractions, splits.seed, prescribed
    )
    for line in moved:
        say(f"splits: moved against its release, for its group's sake: {line}")
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tables[row["dataset"]].append(
            {"image_id": row["image_id"], "group_id": row["group_id"], "split": assigned[row["group_id"]]}
        )
    out_dir = Path(out_dir)
    for dataset, table in sorted(tables.items()):
        write_csv(out_dir / f"{dataset}.csv", COLUMNS, sorted(table, key=lambda row: row["image_id"]))
        counts = Counter(row["split"] for row in table)
        say(f"splits: {dataset}: " + ", ".join(f"{name} {counts[name]}" for name in SPLITS))
    official = {"asked": dict(splits.official.items()), "moved": moved} if splits.official else None
    write_certificate(Path(catalog), Path(edges), out_dir, official)
