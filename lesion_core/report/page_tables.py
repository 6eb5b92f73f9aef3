"""What the page's tables and statistics show; every number of ours points to its chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lesion_core.files import read_csv
from lesion_core.inference.robustness_table import METRICS
from lesion_core.paths import Layout
from lesion_core.report.extra_tables import EXTRA_TABLES
from lesion_core.report.formats import dataset_name, metric_name
from lesion_core.report.html import number
from lesion_core.report.ledger import IMPOSSIBLE, VERDICTS
from lesion_core.report.measures import LESION_METRICS
from lesion_core.report.page_chain import ChainData
from lesion_core.report.statistics_tables import judgement, named
from lesion_core.report.table_cells import NOT_RUN, value_text
from lesion_core.report.tables import columns_of, notes_of
from lesion_core.settings import Plan

ATTRIBUTES = {"dx_type": "diagnosis confirmed by"}
MAIN = tuple(map(metric_name, ("dice", "iou", "accuracy", "balanced_accuracy", "auc")))
PAIR = tuple(map(metric_name, LESION_METRICS))
NOT_RUN_SHORT = "not run"  # the note below a table says what it means; in full it would push columns off the screen


class Shown(NamedTuple):
    """A table's cell: its text, what it is sorted by, whether it is the best, and the number of its chain."""

    text: str
    sort: str
    best: bool
    chain: int | None


def tables_of(plan: Plan, cells: list[dict[str, Any]], chains: ChainData) -> list[dict[str, Any]]:
    """Every table: the papers' as their files list them, then what no paper prints.

    Returns:
        [{name, title, notes, headings, rows: [(label, [`Shown`])], literature: it has no method of ours}]
    """
    listed = []
    for name, spec in plan.tables.items():
        own = [cell for cell in cells if cell["table"] == name]
        listed.append(_table(name, plan.titled(spec.title), own, notes_of(spec, own), chains))
    for name, extra in EXTRA_TABLES.items():
        own = [cell for cell in cells if cell["table"] == name]
        notes = extra.notes if own else ("Nothing of this was run in this profile.",)
        listed.append(_table(name, plan.titled(extra.title), own, notes, chains))
    return listed


def _table(name: str, title: str, own: list[dict[str, Any]], notes: Sequence[str], chains: ChainData) -> dict[str, Any]:
    by_place = {(cell["row"], cell["column"]): cell for cell in own}
    columns = columns_of(own)
    return {
        "name": name,
        "title": title,
        "notes": notes,
        "headings": [heading for *_, heading in columns],
        "rows": [
            (label, [_shown(by_place[label, column], kind, chains) for column, kind, _ in columns])
            for label in dict.fromkeys(cell["row"] for cell in own)
        ],
        "literature": bool(own) and all(cell["method"] is None for cell in own),
    }


def _shown(cell: dict[str, Any], kind: str, chains: ChainData) -> Shown:
    if kind == "published":
        text = cell["published_text"] or ""
        return Shown(text, text, cell["best_published"], None)
    text = value_text(cell)
    if cell["value"] is None:
        return Shown(NOT_RUN_SHORT if text == NOT_RUN else text, "", False, None)
    return Shown(text, repr(cell["value"]), cell["best"], chains.add_cell(cell))


def claims_of(ledger: list[dict[str, Any]]) -> dict[str, list[list[dict[str, Any]]]]:
    """The ledger's rows by paper; Dice and IoU of one row and dataset together, since arithmetic judges the pair."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in ledger:
        metric = PAIR if row["metric"] in PAIR else (row["metric"],)
        lines.setdefault((row["paper"], row["table"], row["row"], row["dataset"], *metric), []).append(row)
    claims: dict[str, list[list[dict[str, Any]]]] = {}
    for (paper, *_), line in lines.items():
        claims.setdefault(paper, []).append(line)
    return claims


def summary_of(plan: Plan, ledger: list[dict[str, Any]], claims: dict[str, list[Any]]) -> dict[str, Any]:
    """What was found, of the ledger's rows as the page shows these.

    Returns:
        {verdicts: [(verdict, count)] without zeros, impossible: claims (rows of one pair), main: rows of the papers'
        own methods that have a value of ours}
    """
    counts = Counter(row["verdict"] for row in ledger)
    proposed = {(name, row.label) for name, table in plan.tables.items() for row in table.rows if row.proposed}
    main = [row for row in ledger if (row["table"], row["row"]) in proposed and row["ours"] and row["metric"] in MAIN]
    return {
        "verdicts": [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]],
        "impossible": [own for part in claims.values() for own in part if own[0]["verdict"] == IMPOSSIBLE],
        "main": main,
    }


def statistics_of(root: Path, plan: Plan, chains: ChainData) -> list[dict[str, Any]]:
    """The tables of tests: [{name, title, tests: [row of statistics/tests.csv in words, with judgement and chain]}]."""
    tests = read_csv(Layout(root).statistics("tests"))

    def shown(test: dict[str, str]) -> dict[str, Any]:
        return test | {
            "proposed": named(plan, test["proposed"], test["prompt"]),
            "other": named(plan, test["other"], test["other_prompt"]),
            "dataset": dataset_name(test["dataset"]),
            "metric": metric_name(test["metric"]),
            "compared": plan.tables[test["compared"]].title,
            "judgement": judgement(test, plan.statistics.alpha),
            "chain": chains.add_test(test),
        }

    return [
        {
            "name": name,
            "title": plan.titled(spec.title),
            "tests": [shown(test) for test in tests if test["table"] == name],
        }
        for name, spec in plan.tests.items()
    ]


def robustness_of(layout: Layout, plan: Plan) -> list[dict[str, Any]]:
    """Metrics per corruption, strength, method and dataset, mean over seeds; empty where nothing was measured."""
    path = layout.statistics("robustness")
    measured = read_csv(path) if path.is_file() else []
    if not measured:
        return []
    keys = ["corruption", "strength", "method", "dataset", "n"]
    rows = pd.DataFrame(measured)
    rows[list(METRICS)] = rows[list(METRICS)].apply(pd.to_numeric)
    means = rows.groupby(keys, sort=False)[list(METRICS)].mean().reset_index()
    means["method"], means["dataset"] = means["method"].map(plan.name_of), means["dataset"].map(dataset_name)
    means["corruption"] = means["corruption"].str.replace("_", " ")
    for name in METRICS:
        means[name] = means[name].map("{:.3f}".format, na_action="ignore").astype(object).fillna("")
    return means.to_dict("records")


def subgroups_of(layout: Layout, plan: Plan) -> list[dict[str, str]]:
    """Rows of ``statistics/subgroups.csv`` in the words of print; empty where there is none."""
    path = layout.statistics("subgroups")
    return [
        row
        | {"method": plan.name_of(row["method"]), "dataset": dataset_name(row["dataset"])}
        | {"group": f"{ATTRIBUTES.get(row['attribute'], row['attribute'])}: {row['group']}"}
        | {"metric": metric_name(row["metric"]), "interval": interval_text(row["low"], row["high"])}
        | {"interval_by": row["low"], "gap_by": row["gap"], "gap_class": "best" if row["flagged"] else ""}
        | {name: number(row[name]) for name in ("value", "gap")}
        for row in (read_csv(path) if path.is_file() else [])
    ]


def interval_text(low: str, high: str) -> str:
    """An interval of a CSV as it is shown; empty where there is none."""
    return f"{number(low)} to {number(high)}" if low else ""
