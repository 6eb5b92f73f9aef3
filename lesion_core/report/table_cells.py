"""A table's cell: one number of ours, what it measures, the runs that it came from, and the published one beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypedDict

import pyarrow

from lesion_core.errors import ScoreError
from lesion_core.files import read_parquet, write_parquet
from lesion_core.papers.published import Published
from lesion_core.paths import Layout
from lesion_core.report.measures import DECIMALS, LESION_METRICS, RANKED, SCALE, Measure
from lesion_core.report.score_store import Value
from lesion_core.scores import schema_of
from lesion_core.settings import Table, TableRow

OURS, NOT_RUN, PUBLISHED_ONLY, NOT_DEFINED = "ours", "not run in this profile", "published only", "not defined"


class Cell(TypedDict):
    """One number of ours and the published one beside it; values in ``unit``, None where there is none.

    ``kind`` to ``explainer`` are a `Measure`; ``run_ids`` are separated by spaces.
    """

    table: str
    row: str
    column: str
    heading: str | None
    kind: str | None
    metric: str | None
    dataset: str | None
    method: str | None
    prompt: str | None
    resolution: str | None
    averaging: str | None
    minus: str | None
    explainer: str | None
    value: float | None
    sd: float | None
    n_seeds: int
    n_images: int
    run_ids: str | None
    published: float | None
    published_text: str | None
    unit: str
    status: str
    best: bool
    best_published: bool


MEASURE_COLUMNS = tuple(field.name for field in fields(Measure))


def write_cells(cells: list[dict[str, Any]], path: Path) -> None:
    """Write the cells' table: which runs a number came from."""
    write_parquet(path, pyarrow.Table.from_pylist(cells, schema=schema_of(Cell)))


def read_cells(root: Path) -> list[dict[str, Any]]:
    """All cells of all tables of a results folder.

    Raises:
        ScoreError: the cells' table is missing.
        FormatError: it cannot be read, or lacks a column.
    """
    path = Layout(Path(root)).cells
    if not path.is_file():
        raise ScoreError("The cells' table is missing", file=path, remedy="make the tables first: lesion tables")
    return read_parquet(path, schema_of(Cell).names).to_pylist()


def our_cell(
    table: str,
    row: str,
    column: str,
    method: str | None,
    measure: Measure | None,
    unit: str,
    value: Value | None,
    heading: str | None = None,
) -> dict[str, Any]:
    """One cell with our value, its measure and its runs, and nothing published beside it."""
    defined = value if value is not None and math.isfinite(value.mean) else None
    described = asdict(measure) if measure is not None else dict.fromkeys(MEASURE_COLUMNS)
    return {
        "table": table,
        "row": row,
        "column": column,
        "heading": heading,
        "method": method,
        **described,
        "value": None if defined is None else SCALE[unit] * defined.mean,
        "sd": None if defined is None or math.isnan(defined.sd) else SCALE[unit] * defined.sd,
        "n_seeds": 0 if value is None else len(value.run_ids),
        "n_images": 0 if value is None else value.n_images,
        "run_ids": None if value is None else " ".join(value.run_ids),
        **published_part(None),
        "unit": unit,
        "status": OURS if defined is not None else NOT_DEFINED if value is not None else NOT_RUN,
        "best": False,
        "best_published": False,
    }


def published_part(item: Published | None) -> dict[str, Any]:
    if item is None:
        return {"published": None, "published_text": None}
    return {"published": item.value, "published_text": item.printed}


def mark_best(cells: list[dict[str, Any]], trained_on: Mapping[str, Mapping[str, list[str]]]) -> None:
    """Mark the greatest value, ours and published apart, of each column; one value alone is no contest.

    Like competes with like: the same dataset, and of our values the same training set, or none, and no prompt from the
    truth against one without.

    Args:
        cells: of one table.
        trained_on: method -> task -> the datasets that it is learnt from (``Plan.trained_on``).
    """

    def learnt(cell: dict[str, Any]) -> list[str]:
        return trained_on.get(cell["method"] or "", {}).get(cell["kind"] or "", [])

    for kind, mark in (("value", "best"), ("published", "best_published")):
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for cell in cells:
            if cell[kind] is not None and _is_ranked(cell):
                groups.setdefault(_contest(cell, kind), []).append(cell)
        for cell in cells:
            rivals = [
                rival[kind]
                for rival in groups.get(_contest(cell, kind), [])
                if kind == "published" or learnt(rival) == learnt(cell) or not (learnt(rival) and learnt(cell))
            ]
            cell[mark] = len(rivals) > 1 and cell[kind] is not None and cell[kind] == max(rivals)


def _is_ranked(cell: dict[str, Any]) -> bool:
    return cell["minus"] is None and (cell["metric"] or cell["column"]) in RANKED


def _contest(cell: dict[str, Any], kind: str) -> tuple[Any, ...]:
    return cell["column"], cell["dataset"], kind == "value" and is_oracle(cell["prompt"])


def dataset_of(table: Table, metric: str, row: TableRow | None = None) -> str:
    """Which dataset a cell is scored on: Dice and IoU of a table of both tasks have their own, and a row may."""
    own = table.task == "both" and metric in LESION_METRICS and table.segmentation_dataset
    return own or (row and row.dataset) or table.dataset


def is_oracle(prompt: str | None) -> bool:
    """Whether a prompt is made from the true mask."""
    return prompt is not None and prompt.startswith("oracle")


def measure_of(cell: dict[str, Any]) -> Measure:
    """What the cell measures; with ``run_ids`` it can be computed again."""
    return Measure(**{name: cell[name] for name in MEASURE_COLUMNS})


def value_text(cell: dict[str, Any]) -> str:
    """Our value as it is printed: mean ± SD, ``not run in this profile``, ``not defined``, or nothing."""
    if cell["value"] is None:
        return cell["status"] if cell["status"] in (NOT_RUN, NOT_DEFINED) else ""
    decimals = DECIMALS[cell["unit"]]
    spread = "" if cell["sd"] is None else f" ± {cell['sd']:.{decimals}f}"
    text = f"{cell['value']:.{decimals}f}"
    # a small negative difference is printed as 0, not as minus 0
    return (text.removeprefix("-") if float(text) == 0 else text) + spread
