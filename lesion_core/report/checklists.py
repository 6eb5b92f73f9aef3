"""Reviewers' sheets (CLAIM, CLEAR Derm) and cards of runs and datasets, filled from results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.files import read_csv, read_json, write_csv, write_text
from lesion_core.paths import Layout
from lesion_core.report.html import environment
from lesion_core.report.licences import licences_of
from lesion_core.report.lineage import Lineage
from lesion_core.report.study import DEMOGRAPHICS, FAILURES, FLOW, demographics_of, failures_of, flow_of
from lesion_core.settings import Plan

# Name and format of what is written; the sheets (md) link the tables (csv).
SHEETS = (("claim", "md"), ("clear_derm", "md"), ("flow", "csv"), ("demographics", "csv"), ("failures", "csv"))


def write_checklists(root: Path, plan: Plan) -> None:
    """Write ``checklists/``: both sheets and the tables that they link; ``cards/``: one per run and per dataset.

    Raises:
        RunError: a run's folder is missing. ScoreError: the score store is missing or broken.
    """
    layout, lineage = Layout(root), Lineage.read(root)
    flow, people = flow_of(layout, lineage.store, plan.main_splits), demographics_of(layout, plan.main_splits)
    failures = failures_of(lineage.store, plan)
    tables = {"flow": (FLOW, flow), "demographics": (DEMOGRAPHICS, people), "failures": (FAILURES, failures)}
    runs = {run_id: lineage.run(run_id) for run_id in sorted(plan.run_ids)}
    licences = licences_of(root, runs)
    content: dict[str, Any] = {
        "plan": plan,
        "flow": flow,
        "failures": failures,
        "sizes": _sizes(layout),
        "runs": runs,
        "certificate": read_json(layout.certificate(plan.main_splits)),
        "splits": layout.certificate(plan.main_splits).parent.relative_to(root).as_posix(),
        "figures": {item["name"] for item in read_json(layout.figure_list, list)},
        "licences": licences["images"],
        "devices": sorted({str(run["device"]) for run in runs.values()}),
        "packages": sorted({(name, text) for run in runs.values() for name, text in run["packages"].items()}),
    }
    templates = environment()
    for name, suffix in SHEETS:
        if suffix == "csv":
            write_csv(layout.checklist(name, suffix), *tables[name])
        else:
            write_text(layout.checklist(name, suffix), templates.get_template(f"{name}.md").render(content))
    saw = {item["run"]: item for item in licences["checkpoints"]}
    for run_id, run in runs.items():
        text = templates.get_template("run_card.md").render(run=run, saw=saw[run_id], failures=failures, plan=plan)
        write_text(layout.run_card(run_id), text)
    for part in flow:
        own = [row for row in people if row["dataset"] == part["dataset"]]
        text = templates.get_template("dataset_card.md").render(content | {"part": part, "people": own})
        write_text(layout.dataset_card(part["dataset"]), text)


def _sizes(layout: Layout) -> list[dict[str, str]]:
    """Of each compared table and level: pairs, and the smallest effect d_z that so many detect."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for test in read_csv(layout.statistics("tests")):
        key = (test["compared"], test["dataset"], test["level"], test["n"])
        found.setdefault(key, test)
    return list(found.values())
