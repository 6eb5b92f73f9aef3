"""``lesion trace`` of Tables 15 and 16: a test's number, computed anew from the score rows of both methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.report.chain import Chain
from lesion_core.report.measures import Measure
from lesion_core.report.statistics import COLUMNS, all_tests
from lesion_core.report.trace import images_sha256, run_lines
from lesion_core.settings import Plan

TABLES = ("table_15", "table_16")
KINDS = {"table_15": "segmentation", "table_16": "classification"}


@dataclass(frozen=True)
class TestTrace:
    """One number of a test. ``printed`` and ``recomputed`` are texts as ``statistics/tests.csv`` holds them."""

    test: dict[str, str]
    column: str
    recomputed: str
    runs: list[dict[str, Any]]
    split: dict[str, Any]
    images: list[dict[str, Any]]
    faults: tuple[str, ...]

    @property
    def printed(self) -> str:
        """The number in the file."""
        return self.test[self.column]


def label(test: dict[str, Any]) -> str:
    """How a row is named: the other method, dataset and level."""
    return f"{test['other']}, {test['dataset']}, {test['level']}"


def trace_test(root: Path, plan: Plan, table: str, row: str, column: str) -> TestTrace:
    """Follow a test's number to the photographs and compute every test again, since Holm's correction needs all.

    Args:
        row: ``<other method>, <dataset>, <seed or image>``.
        column: a column of ``statistics/tests.csv``.

    Raises:
        ScoreError: there is no such row or column; the known ones are named.
    """
    path = Layout(Path(root)).statistics("tests")
    stored = {label(test): test for test in read_csv(path) if test["table"] == table} if path.is_file() else {}
    if row not in stored or column not in COLUMNS:
        known = list(COLUMNS) if row in stored else list(stored)
        raise ScoreError(f"No test '{row}', {column} in {table}", file=path, ids=known, remedy="take one of these")
    test = stored[row]
    chain = Chain.read(root)
    again = {label(found): found for found in all_tests(chain.store, plan) if found["table"] == table}
    recomputed = str(again[row][column]) if row in again else "no such test"
    faults = []
    if recomputed != test[column]:
        faults.append(f"the file says {test[column] or 'nothing'}, the score rows give {recomputed or 'nothing'}")
    metric = "dice" if table == "table_15" else "accuracy"
    measure = Measure(KINDS[table], test["dataset"], metric)
    run_ids = [*test["runs"].split(), *test["other_runs"].split()]
    for run_id in run_ids:
        if not chain.gathered_faithfully(run_id, measure):
            faults.append(f"the store's rows of {run_id} are not those that its scoring wrote")
    runs = [{"run": chain.run(run_id), "rows": chain.rows(run_id, measure)} for run_id in run_ids]
    split = chain.split(test["dataset"])
    images = chain.images(test["dataset"], (r["image_id"] for r in chain.store.rows(run_ids[0], measure)))
    return TestTrace(test, column, recomputed, runs, split, images, tuple(faults))


def trace_test_text(found: TestTrace, *, images: bool = False) -> str:
    """The chain as a person reads it; ``images`` lists every photograph with its hash."""
    test = found.test
    lines = [
        f"cell        {test['table']} | {label(test)} | {found.column}",
        f"printed     {found.printed}",
        f"recomputed  {found.recomputed}",
        f"compares    {test['proposed']} with {test['other']}: {test['metric']}, n = {test['n']}",
    ]
    for item in found.runs:
        lines += run_lines(item)
    lines.append(f"split       {found.split['file']} {found.split['sha256']} ({found.split['state']})")
    lines.append(f"images      {len(found.images)} photographs, {images_sha256(found.images)}")
    if images:
        lines += [f"  {image['image_id']} {image['sha256']} {image['path']}" for image in found.images]
    lines += [f"BROKEN      {fault}" for fault in found.faults]
    lines.append("verdict     " + ("the chain is broken" if found.faults else "the cell is what its score rows give"))
    return "\n".join(lines)
