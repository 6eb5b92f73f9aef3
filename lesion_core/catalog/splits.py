"""Split tables of one rule, and their certificate."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lesion_core.catalog.certificate import write_certificate
from lesion_core.catalog.entries import COLUMNS, SPLITS
from lesion_core.catalog.published import published_splits
from lesion_core.catalog.stratify import split_groups
from lesion_core.catalog.table import read_images
from lesion_core.files import write_csv
from lesion_core.progress import say
from lesion_core.settings import OFFICIAL, SplitRule


def build_splits(catalog: Path, edges: Path, rule: SplitRule, out_dir: Path) -> None:
    """Write ``<dataset>.csv`` (image_id, group_id, split) for every dataset, then the leakage certificate.

    Args:
        catalog: images.parquet.
        edges: edges.parquet, for the certificate.
        rule: ``leak_free``: every group gets one split across all datasets, stratified by dataset and class;
            ``as_published``: see ``published_splits``. Under both an official part is for testing; ``leak_free`` lets
            every image of its groups go with it.
        out_dir: folder of the split tables, ``certificate.json`` or ``certificate.failed.json``.

    Raises:
        SplitError: a dataset or a class cannot stand in every split, or a published split cannot be had.
        LeakageError: an edge crosses a leak-free split after all.
    """
    rows = read_images(Path(catalog))
    if rule.rule == "leak_free":
        fractions = {"train": rule.train, "val": rule.val, "test": rule.test}
        official = {row["group_id"] for row in rows if row["dataset"] in OFFICIAL}
        free = [row for row in rows if row["group_id"] not in official]
        grouped = split_groups(
            [(row["group_id"], row["dataset"], row["label"] or "") for row in free], fractions, rule.seed
        )
        assigned = {(row["dataset"], row["image_id"]): grouped.get(row["group_id"], "test") for row in rows}
    else:
        assigned = published_splits(rows, rule)
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        split = assigned[row["dataset"], row["image_id"]]
        tables[row["dataset"]].append({"image_id": row["image_id"], "group_id": row["group_id"], "split": split})
    out_dir = Path(out_dir)
    for dataset, table in sorted(tables.items()):
        write_csv(out_dir / f"{dataset}.csv", COLUMNS, sorted(table, key=lambda row: row["image_id"]))
        counts = Counter(row["split"] for row in table)
        say(f"splits: {dataset}: " + ", ".join(f"{name} {counts[name]}" for name in SPLITS))
    write_certificate(Path(catalog), Path(edges), out_dir, rule.rule)
