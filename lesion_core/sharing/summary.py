"""The main tables in the shape that ``dvc metrics`` reads: one file per method, one value per dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.files import write_json
from lesion_core.paths import Layout
from lesion_core.report.table_cells import read_cells
from lesion_core.settings import Plan

COLUMNS = {"segmentation": "dice", "classification": "balanced_accuracy"}


def write_summary(root: Path, plan: Plan) -> None:
    """Write ``summary/<method>.json`` of every method of `main_methods`: {dataset: {dice or balanced_accuracy: value}}.

    Values are those of the main tables, in percent; where a method has several rows there, that of the first.
    """
    layout, main = Layout(root), {name: COLUMNS[plan.tables[name].task] for name in main_tables(plan)}
    summary: dict[str, dict[str, Any]] = {method: {} for method in main_methods(plan)}
    for cell in read_cells(root):
        if main.get(cell["table"]) == cell["column"] and cell["value"] is not None:
            values = summary[cell["method"]].setdefault(cell["dataset"], {})
            values.setdefault(cell["column"], cell["value"])
    for method, values in summary.items():
        write_json(layout.summary(method), {"rehearsed, no result": values} if plan.rehearsed else values)


def main_methods(plan: Plan) -> list[str]:
    """The methods of this profile that stand in a main table, sorted."""
    named = {row.method for name in main_tables(plan) for row in plan.tables[name].rows}
    return sorted(method for method in named if method in plan.runs)


def main_tables(plan: Plan) -> list[str]:
    """Tables that their papers' files call main."""
    return [name for name, table in plan.tables.items() if table.main]
