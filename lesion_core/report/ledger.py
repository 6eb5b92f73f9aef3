"""The claim ledger: each published number, ours beside it, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.files import read_parquet, write_csv
from lesion_core.paths import Layout
from lesion_core.report.published import Published, load, pairs
from lesion_core.settings import Plan

COLUMNS = (
    "paper",
    "table",
    "row",
    "dataset",
    "metric",
    "published",
    "unit",
    "averaging",
    "ours",
    "ours_sd",
    "n_seeds",
    "n_images",
    "difference",
    "verdict",
    "reason",
)
TOLERANCE = 1.0  # percentage points within which a mean counts as reproduced when no spread over seeds is known


def write_ledger(root: Path, plan: Plan) -> None:
    """Write ``ledger/ledger.csv``: one row per published number.

    Verdicts: ``arithmetically impossible``, ``possible only if``, ``reproduced``, ``not reproduced``,
    ``not run here``, ``untestable``.

    Raises:
        ScoreError: the cells' table is missing.
    """
    layout = Layout(root)
    cells = read_parquet(layout.root / "tables" / "cells.parquet").to_pylist()
    ours = {(cell["table"], cell["published_row"], cell["column"]): cell for cell in cells if cell["published_row"]}
    published = load()
    verdicts = {
        (pair.dice.paper, pair.dice.table, pair.dice.row, pair.dice.dataset): pair.verdict for pair in pairs(published)
    }
    names = {(table.paper, table.published): name for name, table in plan.tables.items()}
    rows = []
    for item in published:
        cell = ours.get((names.get((item.paper, item.table), ""), item.row, item.metric))
        rows.append(_entry(item, cell, verdicts.get((item.paper, item.table, item.row, item.dataset)), plan))
    write_csv(layout.root / "ledger" / "ledger.csv", COLUMNS, rows)


def _entry(item: Published, cell: dict[str, Any] | None, pair: Any, plan: Plan) -> dict[str, Any]:
    has_ours = cell is not None and cell["value"] is not None
    scale = 100.0 if item.unit == "fraction" and cell is not None and cell["unit"] == "percent" else 1.0
    difference = cell["value"] - scale * item.value if has_ours else None
    verdict, reason = _verdict(item, cell, difference, pair, plan)
    return {
        "paper": item.paper,
        "table": item.table,
        "row": item.row,
        "dataset": item.dataset,
        "metric": item.metric,
        "published": item.value,
        "unit": item.unit,
        "averaging": item.averaging or "not stated",
        "ours": f"{cell['value']:.4f}" if has_ours else "",
        "ours_sd": "" if not has_ours or cell["sd"] is None else f"{cell['sd']:.4f}",
        "n_seeds": cell["n_seeds"] if has_ours else "",
        "n_images": cell["n_images"] if has_ours else "",
        "difference": "" if difference is None else f"{difference:.4f}",
        "verdict": verdict,
        "reason": reason,
    }


def _verdict(
    item: Published, cell: dict[str, Any] | None, difference: float | None, pair: Any, plan: Plan
) -> tuple[str, str]:
    if pair is not None and item.metric in ("dice", "iou") and pair.verdict == "impossible":
        return "arithmetically impossible", pair.explanation
    if item.unit in ("effect_size", "p"):
        return "untestable", "the paper's per-seed values are not published"
    if item.unit == "million":
        return "not run here", "a parameter count of a model that this profile does not build"
    if difference is None:
        condition = "" if pair is None or item.metric not in ("dice", "iou") else f" {pair.explanation}"
        return "not run here", f"profile {plan.profile} has no run for this row.{condition}"
    if plan.profile != "paper":
        return (
            "not run here",
            f"profile {plan.profile} uses other data and smaller models; its value is shown, not compared",
        )
    spread = TOLERANCE if cell is None or cell["sd"] is None else max(TOLERANCE, 2.0 * cell["sd"])
    limit = spread if cell is None or cell["unit"] == "percent" else spread / 100.0
    if abs(difference) <= limit:
        return "reproduced", f"within {limit:g} of the published value"
    return "not reproduced", f"differs by more than {limit:g}"
