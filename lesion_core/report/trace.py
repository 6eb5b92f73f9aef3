"""``lesion trace``: one printed number, back to the images, and computed anew from the score store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, sha256_text
from lesion_core.paths import Layout
from lesion_core.report.lineage import WITHOUT_WEIGHTS, Lineage, images_sha256, sides_of
from lesion_core.report.measures import SCALE
from lesion_core.report.statistics import COLUMNS, all_tests
from lesion_core.report.table_cells import measure_of, read_cells, value_part, value_text
from lesion_core.settings import Plan


@dataclass(frozen=True)
class Trace:
    """A number, its chain, and whether all of it holds.

    Attributes:
        cell: the row of ``tables/cells.parquet`` or ``statistics/tests.csv``.
        recomputed: ``value`` from the score rows, as the file has it; of a cell ``sd`` and ``per_run`` too.
        told: what was printed and how it was computed, line by line.
        runs: per run: ``run`` (`Lineage.run`) and ``rows`` (`Lineage.rows`).
        split: `Lineage.split`; None for parameter counts.
        images: catalog rows of the scored images.
        faults: why the chain does not hold; empty if it does.
    """

    cell: dict[str, Any]
    recomputed: dict[str, Any]
    told: tuple[str, ...]
    runs: list[dict[str, Any]]
    split: dict[str, Any] | None
    images: list[dict[str, Any]]
    faults: tuple[str, ...]


def find_cell(root: Path, table: str, row: str, column: str) -> dict[str, Any]:
    """One row of ``tables/cells.parquet``.

    Raises:
        ScoreError: the cells are missing, or there is no such table, row or column; the known ones are named.
    """
    path = Layout(Path(root)).cells
    cells = read_cells(root)
    for key, wanted in (("table", table), ("row", row), ("column", column)):
        found = [cell for cell in cells if cell[key] == wanted]
        if not found:
            known = list(dict.fromkeys(cell[key] for cell in cells))
            raise ScoreError(f"No {key} '{wanted}'", file=path, ids=known, remedy=f"take one of these {key}s")
        cells = found
    return cells[0]


def trace_cell(root: Path, table: str, row: str, column: str) -> Trace:
    """Follow a cell down to the images, and compute it again from the score store.

    Raises:
        ScoreError: there is no such cell, or it has no value of ours (the reason is named).
    """
    cell = find_cell(root, table, row, column)
    if cell["value"] is None:
        raise ScoreError(
            f"{table}, {row}, {column} has no value of ours: {value_text(cell) or cell['status']}",
            remedy="trace a cell with a value; lesion runs lists what this profile runs",
        )
    chain, run_ids = Lineage.read(root), cell["run_ids"].split()
    value = chain.store.measure(run_ids, measure_of(cell))
    faults = []
    recomputed: dict[str, Any] = {"value": None, "sd": None, "per_run": ()}
    if value is not None:
        per_run = tuple(SCALE[cell["unit"]] * x for x in value.per_run)
        recomputed = {name: value_part(value, cell["unit"])[name] for name in ("value", "sd")} | {"per_run": per_run}
    for name in ("value", "sd"):
        if recomputed[name] != cell[name]:
            faults.append(f"the table's {name} is {cell[name]!r}, the score rows give {recomputed[name]!r}")
    if value is None or list(value.run_ids) != run_ids:
        faults.append("the store does not hold the rows of every run")
    how = [cell["metric"], cell["dataset"] or "", cell["kind"]]
    if cell["kind"] == "segmentation":
        minus = f" minus {cell['minus']}" if cell["minus"] else ""
        how += [f"prompt {cell['prompt']}{minus}", f"{cell['resolution']} size", f"averaged by {cell['averaging']}"]
    if cell["explainer"]:
        how.append(f"explainer {cell['explainer']}")
    told = (
        f"cell        {table} | {row} | {column}",
        f"printed     {value_text(cell)} ({cell['unit']})",
        f"value       {cell['value']!r}" + ("" if cell["sd"] is None else f", SD {cell['sd']!r}"),
        f"recomputed  {recomputed['value']!r}, by run {list(recomputed['per_run'])!r}",
        f"measures    {', '.join(part for part in how if part)}",
    )
    return _follow(chain, cell, recomputed, told, faults)


def name_of(test: dict[str, Any]) -> str:
    """How a row of a table of tests is named: other method and prompt, table compared, dataset, metric, level."""
    other = test["other"] if test["other_prompt"] == "none" else f"{test['other']}, {test['other_prompt']}"
    return f"{other}, {test['compared']}, {test['dataset']}, {test['metric']}, {test['level']}"


def trace_test(root: Path, plan: Plan, table: str, row: str, column: str) -> Trace:
    """Follow a test's number to the images and compute every test again, since Holm's correction needs all.

    Args:
        table: a table of tests of the plan.
        row: as `name_of` names it.
        column: a column of ``statistics/tests.csv``.

    Raises:
        ScoreError: there is no such row or column; the known ones are named.
    """
    path = Layout(Path(root)).statistics("tests")
    stored = {name_of(test): test for test in read_csv(path) if test["table"] == table} if path.is_file() else {}
    if row not in stored or column not in COLUMNS:
        known = list(COLUMNS) if row in stored else list(stored)
        raise ScoreError(f"No test '{row}', {column} in {table}", file=path, ids=known, remedy="take one of these")
    test = stored[row]
    chain = Lineage.read(root)
    again = {name_of(found): found for found in all_tests(chain.store, plan) if found["table"] == table}
    value = str(again[row][column]) if row in again else "no such test"
    faults = []
    if value != test[column]:
        faults.append(f"the file says {test[column] or 'nothing'}, the score rows give {value or 'nothing'}")
    told = (
        f"cell        {table} | {row} | {column}",
        f"printed     {test[column]}",
        f"recomputed  {value}",
        f"compares    {test['proposed']} with {test['other']}: {test['metric']}, n = {test['n']}",
    )
    return _follow(chain, test, {"value": value}, told, faults)


def _follow(
    chain: Lineage, cell: dict[str, Any], recomputed: dict[str, Any], told: tuple[str, ...], faults: list[str]
) -> Trace:
    """Add runs, split and images, and what is wrong with them."""
    runs = []
    for run_id, measure in sides_of(cell):
        run, rows = chain.run(run_id), chain.rows(run_id, measure)
        if measure.kind != "provenance":
            rows["rows_sha256"] = sha256_text(chain.store.rows(run_id, measure).to_csv(index=False))
        runs.append({"run": run, "rows": rows})
        for name, link in run["inputs"].items():
            if link["state"] == "changed since":
                faults.append(f"{name} has changed since {run_id} read it")
        if not chain.gathered_faithfully(run_id, measure):
            faults.append(f"the store's rows of {run_id} are not those that its scoring wrote")
        if run["weights_sha256"] is None and run["task"] not in WITHOUT_WEIGHTS:
            faults.append(f"{run_id} has no weights")
    split, images = None, []
    run_id, measure = sides_of(cell)[0]
    if measure.kind != "provenance":
        split = chain.split(run_id, measure.dataset)
        if split["state"] != "as certified":
            faults.append(f"{split['file']} is not the file of the certificate")
        images = chain.images(measure.dataset, chain.store.rows(run_id, measure)["image_id"])
    return Trace(cell, recomputed, told, runs, split, images, tuple(faults))


def trace_text(found: Trace, *, images: bool = False) -> str:
    """The chain as a person reads it; ``images`` lists every image with its hash."""
    lines = [*found.told]
    for item in found.runs:
        run, rows, code = item["run"], item["rows"], item["run"]["code"]
        hashes = f"file {rows['file_sha256']}" + (f", rows {rows['rows_sha256']}" if "rows_sha256" in rows else "")
        commit = code.get("commit", "not recorded") + (" with local changes" if code.get("dirty") else "")
        lines += [
            f"run         {run['run_id']} ({run['task']}, seed {run['seed']}, {run['device']})",
            f"  rows      {rows['rows']} of {rows['file']} ({hashes})",
            f"  settings  {run['settings_sha256']}",
            f"  weights   {run['weights_sha256']}",
            f"  code      {code.get('hash', 'not recorded')}, commit {commit}",
            *(f"  input     {name} {link['sha256']} ({link['state']})" for name, link in run["inputs"].items()),
        ]
    if found.split is not None:
        lines.append(f"split       {found.split['file']} {found.split['sha256']} ({found.split['state']})")
        lines.append(f"images      {len(found.images)}, {images_sha256(found.images)}")
    if images:
        lines += [f"  {image['image_id']} {image['sha256']} {image['path']}" for image in found.images]
    lines += [f"BROKEN      {fault}" for fault in found.faults]
    lines.append("verdict     " + ("the chain is broken" if found.faults else "the cell is what its score rows give"))
    return "\n".join(lines)
