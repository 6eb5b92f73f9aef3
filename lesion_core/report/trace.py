"""``lesion trace``: one cell of a table, back to the photographs, and its value computed anew from the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_core.errors import ScoreError
from lesion_core.files import sha256_text
from lesion_core.paths import Layout
from lesion_core.report.cells import measure_of, read_cells, value_text
from lesion_core.report.chain import WITHOUT_WEIGHTS, Chain
from lesion_core.report.values import SCALE


@dataclass(frozen=True)
class Trace:
    """A cell, its chain, and whether all of it holds.

    Attributes:
        cell: the row of ``tables/cells.parquet``.
        recomputed: value, sd and per_run from the score rows, in the cell's unit.
        runs: per run: ``run`` (`Chain.run`) and ``rows`` (`Chain.rows`).
        split: `Chain.split`; None for parameter counts.
        images: catalog rows of the scored photographs.
        faults: why the chain does not hold; empty if it does.
    """

    cell: dict[str, Any]
    recomputed: dict[str, Any]
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


def trace(root: Path, table: str, row: str, column: str) -> Trace:
    """Follow a cell down to the photographs, and compute it again from the score store.

    Raises:
        ScoreError: there is no such cell, or it has no value of ours (the reason is named).
    """
    cell = find_cell(root, table, row, column)
    if cell["value"] is None:
        raise ScoreError(
            f"{table}, {row}, {column} has no value of ours: {value_text(cell) or cell['status']}",
            remedy="trace a cell with a value; lesion runs lists what this profile runs",
        )
    chain, measure, run_ids = Chain.read(root), measure_of(cell), cell["run_ids"].split()
    value = chain.store.measure(run_ids, measure)
    faults = []
    recomputed: dict[str, Any] = {"value": None, "sd": None, "per_run": ()}
    if value is not None:
        scale = SCALE[cell["unit"]]
        sd = None if len(value.per_run) < 2 else scale * value.sd
        recomputed = {"value": scale * value.mean, "sd": sd, "per_run": tuple(scale * x for x in value.per_run)}
    for name in ("value", "sd"):
        if recomputed[name] != cell[name]:
            faults.append(f"the table's {name} is {cell[name]!r}, the score rows give {recomputed[name]!r}")
    if value is None or list(value.run_ids) != run_ids:
        faults.append("the store does not hold the rows of every run")
    runs = [{"run": chain.run(run_id), "rows": chain.rows(run_id, measure)} for run_id in run_ids]
    for item in runs:
        for name, link in item["run"]["inputs"].items():
            if link["state"] == "changed since":
                faults.append(f"{name} has changed since {item['run']['run_id']} read it")
        if not chain.gathered_faithfully(item["run"]["run_id"], measure):
            faults.append(f"the store's rows of {item['run']['run_id']} are not those that its scoring wrote")
        if item["run"]["weights_sha256"] is None and item["run"]["task"] not in WITHOUT_WEIGHTS:
            faults.append(f"{item['run']['run_id']} has no weights")
    split, images = None, []
    if measure.kind != "provenance":
        split = chain.split(measure.dataset)
        if split["state"] != "as certified":
            faults.append(f"{split['file']} is not the file of the certificate")
        images = chain.images(measure.dataset, (r["image_id"] for r in chain.store.rows(run_ids[0], measure)))
    return Trace(cell, recomputed, runs, split, images, tuple(faults))


def images_sha256(images: list[dict[str, Any]]) -> str:
    """One hash of many photographs: over their ids and hashes, in order."""
    return sha256_text("\n".join(f"{image['image_id']} {image['sha256']}" for image in images))


def run_lines(item: dict[str, Any]) -> list[str]:
    """A run's part of the chain, from `Chain.run` and `Chain.rows`."""
    run, rows = item["run"], item["rows"]
    code = run["code"]
    hashes = f"file {rows['file_sha256']}" + (f", rows {rows['rows_sha256']}" if "rows_sha256" in rows else "")
    commit = code.get("commit", "not recorded") + (" with local changes" if code.get("dirty") else "")
    return [
        f"run         {run['run_id']} ({run['task']}, seed {run['seed']}, {run['device']})",
        f"  rows      {rows['rows']} of {rows['file']} ({hashes})",
        f"  settings  {run['settings_sha256']}",
        f"  weights   {run['weights_sha256']}",
        f"  code      {code.get('hash', 'not recorded')}, commit {commit}",
        *(f"  input     {name} {link['sha256']} ({link['state']})" for name, link in run["inputs"].items()),
    ]


def trace_text(found: Trace, *, images: bool = False) -> str:
    """The chain as a person reads it; ``images`` lists every photograph with its hash."""
    cell = found.cell
    how = [cell["metric"], cell["dataset"] or "", cell["kind"]]
    if cell["kind"] == "segmentation":
        minus = f" minus {cell['minus']}" if cell["minus"] else ""
        how += [f"prompt {cell['prompt']}{minus}", f"{cell['resolution']} size", f"averaged by {cell['averaging']}"]
    if cell["explainer"]:
        how.append(f"explainer {cell['explainer']}")
    lines = [
        f"cell        {cell['table']} | {cell['row']} | {cell['column']}",
        f"printed     {value_text(cell)} ({cell['unit']})",
        f"value       {cell['value']!r}" + ("" if cell["sd"] is None else f", SD {cell['sd']!r}"),
        f"recomputed  {found.recomputed['value']!r}, by run {list(found.recomputed['per_run'])!r}",
        f"measures    {', '.join(part for part in how if part)}",
    ]
    for item in found.runs:
        lines += run_lines(item)
    if found.split is not None:
        lines.append(f"split       {found.split['file']} {found.split['sha256']} ({found.split['state']})")
        lines.append(f"images      {len(found.images)} photographs, {images_sha256(found.images)}")
    if images:
        lines += [f"  {image['image_id']} {image['sha256']} {image['path']}" for image in found.images]
    lines += [f"BROKEN      {fault}" for fault in found.faults]
    lines.append("verdict     " + ("the chain is broken" if found.faults else "the cell is what its score rows give"))
    return "\n".join(lines)
