"""The papers' tables: ours (mean and SD over seeds) beside published, each cell with the runs it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lesion_core.errors import SettingsError
from lesion_core.files import remove_others
from lesion_core.papers.published import Published, published_numbers
from lesion_core.paths import Layout
from lesion_core.report.extra_tables import EXTRA_TABLES
from lesion_core.report.formats import Grid, metric_name, write_grid
from lesion_core.report.measures import DECIMALS, FRACTIONS, PARAMETERS, SPREAD, Measure, kind_of
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import (
    NOT_DEFINED,
    NOT_RUN,
    OURS,
    PUBLISHED_ONLY,
    Cells,
    dataset_of,
    is_oracle,
    value_text,
    write_cells,
)
from lesion_core.settings import Plan, Table

SHOWN_EXPLAINERS = {"pointing_game": "grad_cam"}  # paper E plays the pointing game with Grad-CAM
OF_TASK = {
    "segmentation": "of the mean over test images, scored at native size",
    "classification": "of the score over all test images",
    "both": "of the mean Dice over test images at native size, and of the class scores over all test images",
}


def write_tables(root: Path, plan: Plan) -> None:
    """Write every table of the plan under ``tables/`` and, last, ``tables/cells.parquet``; tables of no plan go.

    Raises:
        ScoreError: the score store is missing or broken, or a method's seeds were scored on different images.
    """
    store = Store.read(root)
    layout = Layout(root)
    published = published_numbers(plan)
    cells: list[dict[str, Any]] = []
    for name, table in plan.tables.items():
        own = table_cells(name, table, store, plan, [item for item in published if item.table == name])
        counted = any(row.method for row in table.rows)
        write_files(name, table.title, own, notes_of(table, own), layout.table(name, "csv"), plan, counted=counted)
        cells += own
    for name, extra in EXTRA_TABLES.items():
        own = extra.cells(Cells(name, store, plan))
        write_files(name, extra.title, own, extra.notes, layout.table(name, "csv"), plan)
        cells += own
    remove_others(layout.root / "tables", (".csv", ".md", ".tex"), {*plan.tables, *EXTRA_TABLES, *plan.tests})
    write_cells(cells, layout.cells)


def table_cells(name: str, table: Table, store: Store, plan: Plan, theirs: list[Published]) -> list[dict[str, Any]]:
    """The cells of one table, row by row: ours with the published numbers beside them, or published only.

    ``value``, ``sd`` and ``published`` are in ``unit``, which is the paper's.

    Raises:
        SettingsError: the paper prints a column in two units.
    """
    by_place = {(item.row, item.metric): item for item in theirs}
    metrics = [*table.metrics, *sorted({item.metric for item in theirs} - set(table.metrics))]
    units = {metric: _unit(metric, {item.unit for item in theirs if item.metric == metric}) for metric in metrics}
    measured = {*table.metrics, *PARAMETERS, SPREAD, *SHOWN_EXPLAINERS}
    made = Cells(name, store, plan)
    for row in table.rows:
        for metric in metrics:
            item = by_place.get((row.label, metric))
            known: dict[str, Any] = {"published": item and item.value, "published_text": item and item.printed}
            dataset, unit = dataset_of(table, metric, row), units[metric]
            if row.method is None or metric not in measured:
                known |= {"dataset": dataset, "status": PUBLISHED_ONLY}
                made.add(row.label, metric, method=row.method, unit=unit, known=known)
                continue
            kind = kind_of(table.task, metric)
            measure = Measure(kind, dataset, metric, row.prompt, explainer=SHOWN_EXPLAINERS.get(metric))
            made.add(row.label, metric, method=row.scored_by(kind), measure=measure, unit=unit, known=known)
    return made.with_best()


def _unit(metric: str, printed: set[str]) -> str:
    """The unit of a column: the paper's where it prints the metric, so that its numbers stand as printed."""
    if len(printed) > 1:
        raise SettingsError(f"{metric} is published in two units in one table: {', '.join(sorted(printed))}")
    ours = "million" if metric in PARAMETERS else "fraction" if metric in FRACTIONS else "percent"
    return next(iter(printed), ours)


def columns_of(cells: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(metric, ``value`` or ``published``, heading) of a table's columns; a column that no row can fill is left out."""
    columns = []
    for metric in dict.fromkeys(cell["column"] for cell in cells):
        own = [cell for cell in cells if cell["column"] == metric]
        name = metric_name(metric, own[0]["unit"])
        if any(cell["status"] != PUBLISHED_ONLY for cell in own):
            columns.append((metric, "value", own[0]["heading"] or f"{name} ours"))
        if any(cell["published_text"] for cell in own):
            columns.append((metric, "published", own[0]["heading"] or f"{name} published"))
    return columns


def notes_of(table: Table, cells: list[dict[str, Any]]) -> list[str]:
    """What a reader must know to read the table."""
    notes = ["Published numbers only: no row of this table is run here."]
    if any(row.method for row in table.rows):
        notes = [f"Ours: mean ± SD over seeds {OF_TASK[table.task]}. Best in bold, ours and published apart."]
    if any(cell["status"] == NOT_RUN for cell in cells):
        notes.append("not run in this profile: it has no scored run of the row's method under the row's prompt.")
    if table.rows and "isic2018_task3" in (table.dataset, table.segmentation_dataset):
        notes.append(
            "ISIC 2018 Task 3's training set is HAM10000 itself: its labelled images are HAM10000's, and tables of the"
            " two are scored on overlapping images."
        )
    if any(is_oracle(cell["prompt"]) for cell in cells):
        notes.append("Oracle prompts are made from the true mask.")
    return notes


def write_files(
    name: str,
    title: str,
    cells: list[dict[str, Any]],
    notes: Sequence[str],
    path: Path,
    plan: Plan,
    *,
    counted: bool = True,
) -> None:
    """Write one table's cells as .csv, .md and .tex; ``counted`` adds how many seeds and images each row has."""
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
        record = _record(label, own)
        rows.append([*row, record["n_seeds"], record["n_images"]] if counted else row)
        csv_rows.append(record)
    order = ["row", "method", "prompt", "dataset"]
    order += [f"{metric}{suffix}" for metric in metrics for suffix in ("", "_sd", "_published")]
    headings = ["Row", *(heading for *_, heading in columns), *(("Seeds", "Images") if counted else ())]
    grid = Grid(title, headings, rows, notes, frozenset(bold))
    write_grid(grid, path, [*order, "n_seeds", "n_images", "status"], csv_rows, plan)


def _record(label: str, own: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the .csv; what differs between its columns stands side by side (Dice and accuracy of two datasets)."""

    def several(values: Iterable[Any]) -> str:
        return "/".join(dict.fromkeys(str(value) for value in values))

    record: dict[str, Any] = {"row": label, "prompt": own[0]["prompt"] or ""}
    record |= {name: several(cell[name] or "" for cell in own) for name in ("method", "dataset")}
    record |= {name: several(cell[name] for cell in own if cell[name]) for name in ("n_seeds", "n_images")}
    for cell in own:
        for suffix, value in (("", cell["value"]), ("_sd", cell["sd"])):
            text = "" if value is None else f"{value:.{DECIMALS[cell['unit']] + 4}f}"
            record[f"{cell['column']}{suffix}"] = text
        record[f"{cell['column']}_published"] = cell["published_text"] or ""
    states = {cell["status"] for cell in own}
    return record | {"status": next(state for state in (OURS, NOT_DEFINED, NOT_RUN, PUBLISHED_ONLY) if state in states)}
