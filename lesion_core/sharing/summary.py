"""Tables and learning curves in the shapes that ``dvc metrics`` and ``dvc plots`` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.audit.current import run_folders
from lesion_core.files import read_csv, write_csv, write_json
from lesion_core.paths import Layout
from lesion_core.report.table_cells import read_cells
from lesion_core.settings import Plan
from lesion_core.settings.run import task_of

CURVE = ("epoch", "train_loss", "validation")
VALIDATION = {
    "segmentation": "val_dice",
    "classification": "val_balanced_accuracy",
    "joint": "val_balanced_accuracy",
}


def write_summary(root: Path, plan: Plan) -> None:
    """Write ``summary/metrics.json`` and ``summary/curves/<task>/<run_id>.csv`` of every run.

    ``metrics.json`` holds table -> row -> column -> our value, in the table's unit; ``validation`` of a curve is the
    Dice of segmenters and the balanced accuracy of classifiers, as fractions. Curves of runs of earlier settings go,
    since DVC draws whatever lies there.
    """
    metrics: dict[str, Any] = {}
    for cell in read_cells(root):
        if cell["value"] is not None:
            metrics.setdefault(cell["table"], {}).setdefault(cell["row"], {})[cell["column"]] = cell["value"]
    curves, current = Layout(root).curves, set()
    for folder in run_folders(root, plan):
        history = folder / "history.csv"
        if history.is_file():
            task = task_of(folder)
            rows = [_point(row, VALIDATION[task]) for row in read_csv(history) if "epoch" in row]
            # a file in any case: the rule promises one per run
            write_csv(curves / task / f"{folder.name}.csv", CURVE, rows)
            current.add(curves / task / f"{folder.name}.csv")
    for path in set(curves.rglob("*.csv")) - current:
        path.unlink()
    write_json(Layout(root).metrics, metrics)


def _point(row: dict[str, str], validation: str) -> dict[str, str]:
    return {"epoch": row["epoch"], "train_loss": row.get("train_loss", ""), "validation": row[validation]}
