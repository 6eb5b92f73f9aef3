"""The papers' tables: ours (mean and SD over seeds) beside published, each cell with the runs it came from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lesion_core.files import write_parquet
from lesion_core.paths import Layout
from lesion_core.report.formats import Grid, metric_name, write_grid
from lesion_core.report.published import Published, load
from lesion_core.report.values import LESION_METRICS, Store, Value, digits, shown
from lesion_core.settings import Plan, Table

NOT_RUN = "not run here"
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
    "published_row": "string",
    "unit": "string",
    "status": "string",
}


def write_tables(root: Path, plan: Plan) -> None:
    """Write every table of the plan under ``tables/`` and, last, ``tables/cells.parquet``.

    Raises:
        ScoreError: the score store is missing or broken.
    """
    store = Store.read(root)
    layout = Layout(root)
    published = load()
    cells: list[dict[str, Any]] = []
    for name, table in plan.tables.items():
        cells.extend(_write_table(name, table, store, plan, published, layout.table(name, "csv")))
    write_cells(cells, layout.root / "tables" / "cells.parquet")


def write_cells(cells: list[dict[str, Any]], path: Path) -> None:
    """Write the cells' table: which runs a number came from."""
    import pyarrow

    schema = pyarrow.schema([(name, getattr(pyarrow, dtype)()) for name, dtype in CELL_COLUMNS.items()])
    write_parquet(path, pyarrow.Table.from_pylist(cells, schema=schema))


def _write_table(
    name: str, table: Table, store: Store, plan: Plan, published: list[Published], path: Path
) -> list[dict[str, Any]]:
    theirs = [item for item in published if item.table == table.published and item.paper == table.paper]
    by_row: dict[str, dict[str, Published]] = {}
    for item in theirs:
        by_row.setdefault(item.row, {})[item.metric] = item
    metrics = [*table.metrics, *sorted({item.metric for item in theirs} - set(table.metrics))]
    cells: list[dict[str, Any]] = []
    placed: set[str] = set()
    for row in table.rows:
        theirs_here = row.published or row.label
        beside = by_row.get(theirs_here, {})
        placed.add(theirs_here)
        for metric in metrics:
            value = None
            if metric in table.metrics:
                runs = plan.runs.get(row.method, [])
                value = store.value(runs, table.task, dataset_of(table, metric), metric, row.prompt)
            cells.append(_cell(name, table, row.label, row.method, row.prompt, metric, value, beside.get(metric)))
    for label, beside in by_row.items():
        if label not in placed:
            cells.extend(
                _cell(name, table, f"{label} (published)", "", "", metric, None, beside.get(metric))
                for metric in metrics
            )
    _write_files(table, metrics, cells, path)
    return cells


def dataset_of(table: Table, metric: str) -> str:
    """Which dataset a column is scored on: in a table of both tasks, Dice and IoU have their own."""
    own = table.task == "both" and metric in LESION_METRICS and table.segmentation_dataset
    return own or table.dataset


def _cell(
    name: str,
    table: Table,
    label: str,
    method: str,
    prompt: str,
    metric: str,
    value: Value | None,
    published: Published | None,
) -> dict[str, Any]:
    return {
        "table": name,
        "row": label,
        "column": metric,
        "dataset": dataset_of(table, metric),
        "method": method or None,
        "prompt": prompt or None,
        "value": None if value is None else shown(metric, value.mean),
        "sd": None if value is None or math.isnan(value.sd) else shown(metric, value.sd),
        "n_seeds": 0 if value is None else len(value.run_ids),
        "n_images": 0 if value is None else value.n_images,
        "run_ids": None if value is None else " ".join(value.run_ids),
        "published": None if published is None else published.value,
        "published_row": None if published is None else published.row,
        "unit": "fraction" if digits(metric) == 3 else "percent",
        "status": "ours" if value is not None else (NOT_RUN if method else "published only"),
    }


def _write_files(table: Table, metrics: list[str], cells: list[dict[str, Any]], path: Path) -> None:
    columns = ["Row"]
    for metric in metrics:
        columns.extend([f"{metric_name(metric)} ours", f"{metric_name(metric)} published"])
    columns.extend(["Seeds", "Images"])
    labels = list(dict.fromkeys(cell["row"] for cell in cells))
    by_place = {(cell["row"], cell["column"]): cell for cell in cells}
    best = {
        (metric, kind): max((c[kind] for c in cells if c["column"] == metric and c[kind] is not None), default=None)
        for metric in metrics
        for kind in ("value", "published")
    }
    rows, bold, csv_rows = [], set(), []
    for number, label in enumerate(labels):
        row = [label]
        record: dict[str, Any] = {"row": label}
        own = [by_place[label, metric] for metric in metrics]
        for metric, cell in zip(metrics, own, strict=True):
            for kind in ("value", "published"):
                if cell[kind] is not None and cell[kind] == best[metric, kind]:
                    bold.add((number, len(row)))
                row.append(_text(cell, kind))
            record[metric] = _plain(cell["value"], metric)
            record[f"{metric}_sd"] = _plain(cell["sd"], metric)
            record[f"{metric}_published"] = "" if cell["published"] is None else cell["published"]
        seeds, images = max(c["n_seeds"] for c in own), max(c["n_images"] for c in own)
        row.extend([str(seeds) if seeds else "", str(images) if images else ""])
        record |= {"method": own[0]["method"] or "", "prompt": own[0]["prompt"] or "", "n_seeds": seeds}
        record |= {"n_images": images, "status": NOT_RUN if not seeds and own[0]["method"] else own[0]["status"]}
        rows.append(row)
        csv_rows.append(record)
    notes = ["Ours: mean ± SD over seeds of the mean over test images, at native size; best in bold."]
    if table.dataset == "isic2018_task3":
        notes.append("ISIC 2018 Task 3's training set is HAM10000 itself: these images are a part of those of Table 8.")
    if any(row.prompt.startswith("oracle") for row in table.rows):
        notes.append("Oracle prompts are made from the truth.")
    order = ["row", "method", "prompt"]
    order += [f"{metric}{suffix}" for metric in metrics for suffix in ("", "_sd", "_published")]
    write_grid(
        Grid(table.title, columns, rows, notes, frozenset(bold)),
        path,
        [*order, "n_seeds", "n_images", "status"],
        csv_rows,
    )


def _text(cell: dict[str, Any], kind: str) -> str:
    decimals = 3 if cell["unit"] == "fraction" else 2
    if kind == "published":
        return "" if cell["published"] is None else f"{cell['published']:g}"
    if cell["value"] is None:
        return NOT_RUN if cell["status"] == NOT_RUN else ""
    spread = "" if cell["sd"] is None else f" ± {cell['sd']:.{decimals}f}"
    return f"{cell['value']:.{decimals}f}{spread}"


def _plain(value: float | None, metric: str) -> str:
    return "" if value is None else f"{value:.{digits(metric) + 4}f}"
