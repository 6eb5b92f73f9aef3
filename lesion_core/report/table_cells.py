"""A table's cell: one number of ours, what it measures, the runs that it came from, and the published one beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

import pyarrow

from lesion_core.errors import ScoreError
from lesion_core.files import read_parquet, write_parquet
from lesion_core.paths import Layout
from lesion_core.report.measures import DECIMALS, LESION_METRICS, RANKED, SCALE, Measure
from lesion_core.report.score_store import Store, Value
from lesion_core.scores import schema_of
from lesion_core.settings import Plan, Table, TableRow

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


@dataclass
class Cells:
    """The cells of one table in the making."""

    table: str
    store: Store
    plan: Plan
    made: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        row: str,
        column: str,
        heading: str | None = None,
        method: str | None = None,
        measure: Measure | None = None,
        unit: str = "percent",
        runs: Sequence[str] | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a cell with our value, its measure and runs (of the method, if not given), and what else is known."""
        value = None
        if measure is not None:
            value = self.store.measure(self.plan.runs.get(method or "", []) if runs is None else runs, measure)
        cell = dict.fromkeys(schema_of(Cell).names) | {"best": False, "best_published": False}
        cell |= {} if measure is None else asdict(measure)
        cell |= {"table": self.table, "row": row, "column": column, "heading": heading, "method": method, "unit": unit}
        self.made.append(cell | value_part(value, unit) | dict(known or {}))

    def with_best(self) -> list[dict[str, Any]]:
        """All cells, the greatest value, ours and published apart, of each column marked; one alone is no contest.

        Like competes with like: the same dataset, and of our values the same training set, or none, and no prompt from
        the truth against one without.
        """

        def learnt(cell: dict[str, Any]) -> list[str]:
            return self.plan.trained_on.get(cell["method"] or "", {}).get(cell["kind"] or "", [])

        def contest(cell: dict[str, Any]) -> tuple[Any, ...]:
            return cell["column"], cell["dataset"], kind == "value" and is_oracle(cell["prompt"])

        for kind, mark in (("value", "best"), ("published", "best_published")):
            groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for cell in self.made:
                if cell[kind] is not None and cell["minus"] is None and (cell["metric"] or cell["column"]) in RANKED:
                    groups.setdefault(contest(cell), []).append(cell)
            for group in groups.values():
                for cell in group:
                    own = learnt(cell)
                    rivals = [
                        rival[kind] for rival in group if kind == "published" or not own or learnt(rival) in ([], own)
                    ]
                    cell[mark] = len(rivals) > 1 and cell[kind] == max(rivals)
        return self.made


def value_part(value: Value | None, unit: str) -> dict[str, Any]:
    """What a cell says of our value: mean and SD in ``unit``, counts, runs and status."""
    if value is None:
        return {"value": None, "sd": None, "n_seeds": 0, "n_images": 0, "run_ids": None, "status": NOT_RUN}
    defined = math.isfinite(value.mean)
    return {
        "value": SCALE[unit] * value.mean if defined else None,
        "sd": SCALE[unit] * value.sd if defined and not math.isnan(value.sd) else None,
        "n_seeds": len(value.run_ids),
        "n_images": value.n_images,
        "run_ids": " ".join(value.run_ids),
        "status": OURS if defined else NOT_DEFINED,
    }


def dataset_of(table: Table, metric: str, row: TableRow | None = None) -> str:
    """Which dataset a cell is scored on: Dice and IoU of a table of both tasks have their own, and a row may."""
    own = table.task == "both" and metric in LESION_METRICS and table.segmentation_dataset
    return own or (row and row.dataset) or table.dataset


def is_oracle(prompt: str | None) -> bool:
    """Whether a prompt is made from the true mask."""
    return prompt is not None and prompt.startswith("oracle")


def measure_of(cell: Mapping[str, Any]) -> Measure:
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
