"""The papers' tables: ours (mean and SD over seeds) beside published, each cell with the runs it came from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lesion_core.arrow import table_of
from lesion_core.files import write_parquet
from lesion_core.paths import Layout
from lesion_core.report.formats import Grid, full_title, metric_name, write_grid
from lesion_core.report.published import Published, load
from lesion_core.report.values import DECIMALS, LESION_METRICS, RANKED, SCALE, Store, Value, column_unit
from lesion_core.settings import Plan, Table, TableRow

OURS, NOT_RUN, PUBLISHED_ONLY, NOT_DEFINED = "ours", "not run here", "published only", "not defined"
CELL_COLUMNS = {
    "table": "string",
    "row": "string",
    "column": "string",
    "dataset": "string",
    "method": "string",
    "prompt": "string",
    "value": "float64",
    "sd": "float64",
    "n_seeds": "int64",
    "n_images": "int64",
    "run_ids": "string",
    "published": "float64",
    "published_text": "string",
    "published_row": "string",
    "unit": "string",
    "status": "string",
    "best": "bool_",
    "best_published": "bool_",
}


def write_tables(root: Path, plan: Plan) -> None:
    """Write every table of the plan under ``tables/`` and, last, ``tables/cells.parquet``.

    Raises:
        ScoreError: the score store is missing or broken, or a method's seeds were scored on different images.
    """
    store = Store.read(root)
    layout = Layout(root)
    published = load()
    cells: list[dict[str, Any]] = []
    for name, table in plan.tables.items():
        theirs = [item for item in published if item.table == table.published and item.paper == table.paper]
        own = table_cells(name, table, store, plan, theirs)
        _write_files(name, table, own, layout.table(name, "csv"))
        cells.extend(own)
    write_cells(cells, layout.root / "tables" / "cells.parquet")


def write_cells(cells: list[dict[str, Any]], path: Path) -> None:
    """Write the cells' table: which runs a number came from."""
    write_parquet(path, table_of(cells, CELL_COLUMNS))


def table_cells(name: str, table: Table, store: Store, plan: Plan, theirs: list[Published]) -> list[dict[str, Any]]:
    """The cells of one table, row by row: our rows (published numbers beside them), then rows that are published only.

    ``value``, ``sd`` and ``published`` are in ``unit``, which is the paper's.
    """
    by_row: dict[str, dict[str, Published]] = {}
    for item in theirs:
        by_row.setdefault(item.row, {})[item.metric] = item
    metrics = [*table.metrics, *sorted({item.metric for item in theirs} - set(table.metrics))]
    units = {metric: column_unit(metric, [item.unit for item in theirs if item.metric == metric]) for metric in metrics}
    cells: list[dict[str, Any]] = []
    placed: set[str] = set()
    for row in table.rows:
        theirs_here = row.published or row.label
        placed.add(theirs_here)
        for metric in metrics:
            value = None
            if metric in table.metrics:
                runs = plan.runs.get(row.method, [])
                value = store.value(runs, table.task, dataset_of(table, metric), metric, row.prompt)
            beside = by_row.get(theirs_here, {}).get(metric)
            cells.append(_our_cell(name, table, row, metric, units[metric], value, beside))
    for label, row in by_row.items():
        if label not in placed:
            cells.extend(_their_cell(name, table, label, metric, units[metric], row) for metric in metrics)
    _mark_best(cells)
    return cells


def dataset_of(table: Table, metric: str) -> str:
    """Which dataset a column is scored on: in a table of both tasks, Dice and IoU have their own."""
    own = table.task == "both" and metric in LESION_METRICS and table.segmentation_dataset
    return own or table.dataset


def _our_cell(
    name: str, table: Table, row: TableRow, metric: str, unit: str, value: Value | None, published: Published | None
) -> dict[str, Any]:
    defined = value is not None and math.isfinite(value.mean)
    status = OURS if defined else NOT_DEFINED if value is not None else NOT_RUN
    if metric not in table.metrics:
        status = PUBLISHED_ONLY
    return {
        "table": name,
        "row": row.label,
        "column": metric,
        "dataset": dataset_of(table, metric),
        "method": row.method,
        "prompt": row.prompt,
        "value": SCALE[unit] * value.mean if defined else None,
        "sd": SCALE[unit] * value.sd if defined and math.isfinite(value.sd) else None,
        "n_seeds": 0 if value is None else len(value.run_ids),
        "n_images": 0 if value is None else value.n_images,
        "run_ids": None if value is None else " ".join(value.run_ids),
        **_published(published),
        "unit": unit,
        "status": status,
    }


def _their_cell(
    name: str, table: Table, label: str, metric: str, unit: str, row: dict[str, Published]
) -> dict[str, Any]:
    item = row.get(metric)
    return {
        "table": name,
        "row": f"{label} (published)",
        "column": metric,
        "dataset": next(iter(row.values())).dataset if item is None else item.dataset,
        "method": None,
        "prompt": None,
        "value": None,
        "sd": None,
        "n_seeds": 0,
        "n_images": 0,
        "run_ids": None,
        **_published(item),
        "unit": unit,
        "status": PUBLISHED_ONLY,
    }


def _published(item: Published | None) -> dict[str, Any]:
    if item is None:
        return {"published": None, "published_text": None, "published_row": None}
    return {"published": item.value, "published_text": item.printed, "published_row": item.row}


def _mark_best(cells: list[dict[str, Any]]) -> None:
    """Mark the greatest value, ours and published apart, of each column; one value alone is no contest.

    Like competes with like: the same dataset, and our values with a prompt from the truth apart from those without.
    """
    for kind, mark in (("value", "best"), ("published", "best_published")):
        groups: dict[tuple[Any, ...], list[float]] = {}
        for cell in cells:
            if cell[kind] is not None and cell["column"] in RANKED:
                groups.setdefault(_contest(cell, kind), []).append(cell[kind])
        for cell in cells:
            rivals = groups.get(_contest(cell, kind), [])
            cell[mark] = len(rivals) > 1 and cell[kind] is not None and cell[kind] == max(rivals)


def _contest(cell: dict[str, Any], kind: str) -> tuple[Any, ...]:
    return cell["column"], cell["dataset"], kind == "value" and is_oracle(cell["prompt"])


def is_oracle(prompt: str | None) -> bool:
    """Whether a prompt is made from the true mask."""
    return bool(prompt) and prompt.startswith("oracle")


def value_text(cell: dict[str, Any]) -> str:
    """Our value as it is printed: mean ± SD, ``not run here``, ``not defined``, or nothing."""
    if cell["value"] is None:
        return cell["status"] if cell["status"] in (NOT_RUN, NOT_DEFINED) else ""
    decimals = DECIMALS[cell["unit"]]
    spread = "" if cell["sd"] is None else f" ± {cell['sd']:.{decimals}f}"
    return f"{cell['value']:.{decimals}f}{spread}"


def columns_of(cells: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(metric, ``value`` or ``published``, heading) of a table's columns; a column that no row can fill is left out."""
    columns = []
    for metric in dict.fromkeys(cell["column"] for cell in cells):
        own = [cell for cell in cells if cell["column"] == metric]
        name = metric_name(metric, own[0]["unit"])
        if any(cell["status"] != PUBLISHED_ONLY for cell in own):
            columns.append((metric, "value", f"{name} ours"))
        if any(cell["published"] is not None for cell in own):
            columns.append((metric, "published", f"{name} published"))
    return columns


def notes_of(table: Table, cells: list[dict[str, Any]]) -> list[str]:
    """What a reader must know to read the table."""
    notes = []
    if table.rows:
        run = {
            "segmentation": "of the mean over test images, scored at native size",
            "classification": "of the score over all test images",
            "both": "of the mean Dice over test images at native size, and of the class scores over all test images",
        }
        notes.append(f"Ours: mean ± SD over seeds {run[table.task]}. Best in bold, ours and published apart.")
    else:
        notes.append("Published numbers only: no row of this table is run here.")
    if any(cell["status"] == NOT_RUN for cell in cells):
        notes.append("not run here: this profile has no scored run of the row's method.")
    if table.rows and "isic2018_task3" in (table.dataset, table.segmentation_dataset):
        notes.append(
            "ISIC 2018 Task 3's training set is HAM10000 itself: its labelled images are HAM10000's, so that"
            " Table 7 and Table 8 are scored on overlapping images."
        )
    if any(is_oracle(cell["prompt"]) for cell in cells):
        notes.append("Oracle prompts are made from the true mask.")
    return notes


def _write_files(name: str, table: Table, cells: list[dict[str, Any]], path: Path) -> None:
    columns = columns_of(cells)
    metrics = list(dict.fromkeys(cell["column"] for cell in cells))
    by_place = {(cell["row"], cell["column"]): cell for cell in cells}
    rows, bold, csv_rows = [], set(), []
    for number, label in enumerate(dict.fromkeys(cell["row"] for cell in cells)):
        own = [by_place[label, metric] for metric in metrics]
        row = [label]
        for metric, kind, _ in columns:
            cell = by_place[label, metric]
            if cell["best" if kind == "value" else "best_published"]:
                bold.add((number, len(row)))
            row.append(value_text(cell) if kind == "value" else cell["published_text"] or "")
        counted = (_counts(cell["n_seeds"] for cell in own), _counts(cell["n_images"] for cell in own))
        rows.append([*row, *counted] if table.rows else row)
        csv_rows.append(_record(label, own, *counted))
    order = ["row", "method", "prompt", "dataset"]
    order += [f"{metric}{suffix}" for metric in metrics for suffix in ("", "_sd", "_published")]
    headings = ["Row", *(heading for *_, heading in columns), *(("Seeds", "Images") if table.rows else ())]
    grid = Grid(full_title(name, table.title), headings, rows, notes_of(table, cells), frozenset(bold))
    write_grid(grid, path, [*order, "n_seeds", "n_images", "status"], csv_rows)


def _record(label: str, own: list[dict[str, Any]], seeds: str, images: str) -> dict[str, Any]:
    record: dict[str, Any] = {"row": label, "method": own[0]["method"] or "", "prompt": own[0]["prompt"] or ""}
    record["dataset"] = "/".join(dict.fromkeys(cell["dataset"] for cell in own))
    for cell in own:
        record[cell["column"]] = _plain(cell["value"], cell["unit"])
        record[f"{cell['column']}_sd"] = _plain(cell["sd"], cell["unit"])
        record[f"{cell['column']}_published"] = cell["published_text"] or ""
    states = dict.fromkeys(cell["status"] for cell in own)
    status = next((state for state in (OURS, NOT_DEFINED, NOT_RUN) if state in states), PUBLISHED_ONLY)
    return record | {"n_seeds": seeds, "n_images": images, "status": status}


def _counts(numbers: Iterable[int]) -> str:
    """Different counts of a row's columns side by side: Dice and accuracy may come from different datasets."""
    return "/".join(dict.fromkeys(str(number) for number in numbers if number))


def _plain(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{DECIMALS[unit] + 4}f}"
