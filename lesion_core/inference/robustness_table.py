"""The table of robustness: its columns, and the runs' tables joined, which needs no torch."""

from __future__ import annotations

from pathlib import Path

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, write_csv

METRICS = ("accuracy", "balanced_accuracy", "auc", "ece", "brier")
COLUMNS = ("run_id", "method", "seed", "dataset", "corruption", "strength", "amount", "n", *METRICS)


def gather_robustness(paths: list[Path], out: Path) -> None:
    """Join the runs' tables, sorted by run.

    Raises:
        ScoreError: a table has other columns.
    """
    tables = {path: read_csv(path) for path in sorted(paths)}
    if odd := [path for path, rows in tables.items() if any(tuple(row) != COLUMNS for row in rows)]:
        raise ScoreError("Not a robustness table", file=odd[0], ids=map(str, odd), remedy="measure robustness again")
    write_csv(out, COLUMNS, [row for rows in tables.values() for row in rows])
