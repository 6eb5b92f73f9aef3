"""Tables and learning curves in the shapes that ``dvc metrics`` and ``dvc plots`` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.files import read_csv, read_parquet, write_csv, write_json
from lesion_core.runs import task_of
from lesion_core.settings import Plan

CURVE = ("epoch", "train_loss", "validation")
VALIDATION = {
    "segmentation": "val_dice",
    "classification": "val_balanced_accuracy",
    "joint": "val_balanced_accuracy",
}


def write_summary(root: Path, plan: Plan) -> None:
    """Write ``summary/metrics.json`` and ``summary/curves/<task>/<run_id>.csv`` of every run.

    ``metrics.json`` holds table -> row -> column -> our value, in the table's unit; ``validation`` of a curve is the
    Dice of segmenters and the balanced accuracy of classifiers, as fractions.
    """
    metrics: dict[str, Any] = {}
    for cell in read_parquet(root / "tables" / "cells.parquet").to_pylist():
        if cell["value"] is not None:
            metrics.setdefault(cell["table"], {}).setdefault(cell["row"], {})[cell["column"]] = cell["value"]
    for run_id in sorted(plan.run_ids):
        for history in sorted((root / "runs").glob(f"*/{run_id}/history.csv")):
            task = task_of(history.parent)
            rows = [_point(row, VALIDATION[task]) for row in read_csv(history) if "epoch" in row]
            # a file in any case: the rule promises one per run
            write_csv(root / "summary" / "curves" / task / f"{run_id}.csv", CURVE, rows)
    write_json(root / "summary" / "metrics.json", metrics)


def _point(row: dict[str, str], validation: str) -> dict[str, str]:
    return {"epoch": row["epoch"], "train_loss": row.get("train_loss", ""), "validation": row[validation]}
