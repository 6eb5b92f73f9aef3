"""The page: everything a reader checks, in one HTML file that opens offline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_json, write_text
from lesion_core.paths import Layout
from lesion_core.report.data_section import data_of
from lesion_core.report.formats import dataset_name, metric_name
from lesion_core.report.gallery import gallery_of
from lesion_core.report.html import environment, number
from lesion_core.report.licences import licences_of
from lesion_core.report.lineage import Lineage
from lesion_core.report.page_chain import ChainData
from lesion_core.report.page_tables import (
    claims_of,
    interval_text,
    robustness_of,
    statistics_of,
    subgroups_of,
    summary_of,
    tables_of,
)
from lesion_core.report.table_cells import read_cells
from lesion_core.settings import Plan

SECTIONS = (  # each is a template of that name
    *("summary", "ledger", "tables", "statistics", "robustness", "subgroups", "checklists", "figures", "gallery"),
    *("data", "certificates", "papers", "licences", "runs", "environment"),
)


def write_page(root: Path, plan: Plan) -> None:
    """Write ``report.html`` from tables, statistics, ledger, figures, catalog report, certificate and provenance.

    Raises:
        RunError: a part that it is made of is missing.
    """
    layout = Layout(root)
    _check_parts(layout, plan)
    chains = ChainData(Lineage.read(root), plan)
    for path in layout.run_files("provenance.json"):
        if path.parent.name in plan.run_ids:
            chains.add_run(path.parent.name)
    runs = chains.content["runs"]
    study = {name: read_csv(layout.checklist(name, "csv")) for name in ("flow", "demographics", "failures")}
    ledger = [_shown(row, plan) for row in read_csv(layout.ledger)]
    claims = claims_of(ledger)
    content = {
        "plan": plan,
        "layout": layout,
        "found": summary_of(plan, ledger, claims),
        "sections": ("rehearsal", *SECTIONS) if plan.rehearsed else SECTIONS,
        "rehearsal": read_csv(layout.rehearsal("csv")) if plan.rehearsed else [],
        "data": data_of(root, plan),
        "certificates": {home: _certificate(layout, home) for home in sorted(set(plan.protocols.values()))},
        "tables": tables_of(plan, read_cells(root), chains),
        "statistics": statistics_of(root, plan, chains),
        "ledger": ledger,
        "claims": claims,
        "study": study | {"failures": [row | {"method": plan.name_of(row["method"])} for row in study["failures"]]},
        "robustness": robustness_of(layout, plan),
        "subgroups": subgroups_of(layout, plan),
        "figures": [
            item | {"path": layout.figures / f"{item['name']}.png"} for item in read_json(layout.figure_list, list)
        ],
        "gallery": gallery_of(root, plan, chains.chain.store),
        "licences": licences_of(root, runs),
        "runs": runs,
        "environment": [
            {"name": name, "value": value, "runs": count}
            for (name, value), count in sorted(Counter(f for run in runs.values() for f in _environment(run)).items())
        ],
        "chain": chains.content,
    }
    write_text(layout.report, environment().get_template("page.html").render(content))


def _check_parts(layout: Layout, plan: Plan) -> None:
    parts = (
        layout.cells,
        layout.statistics("tests"),
        layout.ledger,
        layout.checklist("claim", "md"),
        layout.figure_list,
        layout.data_report,
        *(layout.certificate(home) for home in plan.protocols.values()),
        *([layout.rehearsal("csv")] if plan.rehearsed else []),
    )
    for path in parts:
        if not path.is_file():
            raise RunError("A part of the page is missing", file=path, remedy="run the pipeline up to its report")


def _shown(row: dict[str, str], plan: Plan) -> dict[str, str]:
    """A row of the ledger in the words of print."""
    return row | {
        "paper": plan.papers[row["paper"]].short,
        "table_name": (plan.tests | plan.tables)[row["table"]].title,
        "dataset": dataset_name(row["dataset"]),
        "metric": metric_name(row["metric"]),
        "ours": number(row["ours"]),
        "interval": interval_text(row["ours_low"], row["ours_high"]),
        "difference": number(row["difference"]),
        "leak_free": number(row["ours_leak_free"]),
        "people": f"{row['people_share']} % of {row['people_n']}" if row["people_share"] else "",
    }


def _certificate(layout: Layout, home: str) -> dict[str, Any]:
    content = read_json(layout.certificate(home))
    rows = [
        {"name": name, "train": 0, "val": 0, "test": 0, **part["counts"], "digest": part["sha256"][:16]}
        for name, part in sorted(content["splits"].items())
    ]
    ways = [
        {"dataset": dataset_name(dataset), "split": split, "association": _association(told["cramers_v"]), "way": way}
        | {"images": sum(classes.values()), "classes": _shares(classes)}
        for dataset, splits in content.get("confirmed_by", {}).items()  # older certificates lack it
        for split, told in splits.items()
        for way, classes in told["classes"].items()
    ]
    return content | {"rows": rows, "ways": ways}


def _association(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"


def _shares(classes: dict[str, int]) -> str:
    """``nv 96.0 %, mel 4.0 %``, the most frequent class first."""
    ordered = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label} {100 * count / sum(classes.values()):.1f} %" for label, count in ordered)


def _environment(run: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, version) of a run's packages, device and commit."""
    facts = {**run["packages"], "device": run["device"], "commit": run["code"].get("commit", "not recorded")}
    return [(name, str(value)) for name, value in facts.items()]
