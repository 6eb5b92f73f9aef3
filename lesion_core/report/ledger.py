"""The claim ledger: each published number, ours beside it, and a verdict."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lesion_core.catalog.human_reference import Reference
from lesion_core.metrics.feasibility.effects import check_effect
from lesion_core.papers.published import Published, PublishedEffect, effects, pairs, published_numbers
from lesion_core.paths import Layout
from lesion_core.report.formats import write_rows
from lesion_core.report.human_reference import share_as_good
from lesion_core.report.intervals import Intervals, write_intervals
from lesion_core.report.measures import DECIMALS, PARAMETERS, SCALE
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import measure_of, read_cells, value_part
from lesion_core.settings import Ledger, Plan

COLUMNS = (
    *("paper", "table", "row", "dataset", "metric", "published", "unit", "averaging", "n", "where", "split"),
    *("ours", "ours_sd", "n_seeds", "n_images", "ours_low", "ours_high", "difference", "ours_leak_free"),
    *("people_share", "people_n", "verdict", "reason"),
)
IMPOSSIBLE, ONLY_IF, REPRODUCED, NOT_REPRODUCED, NOT_COMPARED, NOT_RUN, UNTESTABLE = VERDICTS = (
    "arithmetically impossible",
    "possible only if",
    "reproduced",
    "not reproduced",
    "not compared in this profile",
    "not run here",
    "untestable",
)
OWN_SPLIT, LEAK_FREE = "as published", "leak-free"
COMPARING = "paper"  # the profile whose data and models are the papers'


def write_ledger(root: Path, plan: Plan) -> None:
    """Write ``ledger/ledger.csv``: one row per published number, with one of ``VERDICTS`` and its reason.

    Beside it ``ledger/intervals.csv``.

    A claim is answered by the runs under the paper's own split, where its method has such, and the leak-free value
    stands beside it.

    Arithmetic comes first: what cannot be true is not compared. Then, in the paper profile, our value beside the
    published one decides. What has no value of ours but is possible only under a condition says so.
    Beside a Dice stands the share (%) of IMA++'s images on which people agree that well, and of how many images.

    Raises:
        ScoreError: the cells' table is missing.
    """
    layout = Layout(root)
    cells = read_cells(layout.root)
    store = Store.read(root)
    intervals = Intervals(store, plan)
    ours: dict[tuple[str, str, str], dict[str, Any]] = {}
    write_intervals(layout.intervals, cells, intervals)
    for cell in cells:
        if cell["published_text"] is None:
            continue
        cell |= {"split": LEAK_FREE, "leak_free": None} | _under_own_split(cell, store, plan)
        cell["interval"] = intervals.of(cell)
        key = (cell["table"], cell["row"], cell["column"])
        if key not in ours or ours[key]["value"] is None:
            ours[key] = cell
    published = published_numbers(plan)
    arithmetic = _arithmetic(published)
    rows = [
        _entry(item, ours.get((item.table, item.row, item.metric)), arithmetic, plan) | _people(item, store.people)
        for paper in plan.papers
        for item in published
        if item.paper == paper
    ]
    write_rows(layout.ledger, COLUMNS, rows, plan)


def _under_own_split(cell: dict[str, Any], store: Store, plan: Plan) -> dict[str, Any]:
    """What changes of a cell when the runs under the paper's own split answer it; nothing where there are none."""
    runs = plan.as_published.get(cell["method"])
    value = store.measure(runs, measure_of(cell)) if runs else None
    if value is None or not math.isfinite(value.mean):
        return {}
    return value_part(value, cell["unit"]) | {"split": OWN_SPLIT, "leak_free": cell["value"]}


def _arithmetic(published: list[Published]) -> dict[tuple[str, ...], tuple[str, str]]:
    """claim -> (verdict, reason), where arithmetic alone says something: Dice with IoU, and p with d and n."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for pair in pairs(published):
        if pair.verdict.verdict != "possible":
            verdict = IMPOSSIBLE if pair.verdict.verdict == "impossible" else ONLY_IF
            for item in filter(None, (pair.dice, pair.iou)):
                found[_key(item)] = (verdict, pair.verdict.explanation)
    # p < value in every comparison, so in that of the smallest published effect too: it comes last
    for effect in sorted(effects(published), key=lambda effect: -effect.d.low if effect.d else 0.0):
        if effect.claim:
            found[_key(effect.claim)] = _significance(effect)
    for claim in published:
        if claim.metric == "cohens_d":
            found[_key(claim)] = (UNTESTABLE, _effect(claim))
    return found


def _key(item: Published) -> tuple[str, ...]:
    return item.paper, item.table, item.row, item.metric


def _significance(effect: PublishedEffect) -> tuple[str, str]:
    text = f" Wilcoxon: {effect.wilcoxon.explanation}" if effect.wilcoxon.verdict == "impossible" else ""
    if effect.d is None:
        return UNTESTABLE, f"the test statistics are not published.{text}"
    if effect.t.verdict == "possible":
        return UNTESTABLE, f"{effect.t.explanation}{text}"
    verdict = IMPOSSIBLE if math.isnan(effect.t.least_correlation) else ONLY_IF
    return verdict, f"Paired t: {effect.t.explanation}{text}"


def _effect(claim: Published) -> str:
    text = "the values of the single seeds are not published"
    if claim.n is None:
        return text
    verdict = check_effect(claim.n, d=claim.printed)
    return f"{text}; {verdict.explanation.removeprefix('Possible; ')}"


def _entry(
    item: Published, cell: dict[str, Any] | None, arithmetic: dict[tuple[str, ...], tuple[str, str]], plan: Plan
) -> dict[str, Any]:
    quoted = cell is not None and cell["method"] is None
    ours = cell if cell is not None and cell["value"] is not None else None
    verdict, reason = _verdict(item, ours, arithmetic.get(_key(item)), plan, quoted=quoted)
    entry = dict.fromkeys(COLUMNS, "") | {
        **{name: getattr(item, name) for name in ("paper", "table", "row", "dataset", "metric", "unit", "where")},
        "published": item.printed,
        "averaging": item.averaging or "not stated",
        "n": "not stated" if item.n is None else item.n,
        "verdict": verdict,
        "reason": reason,
    }
    if ours is None:
        return entry
    interval = ours["interval"]
    numbers = {
        "ours": ours["value"],
        "ours_sd": ours["sd"],
        "ours_low": interval and interval.low,
        "ours_high": interval and interval.high,
        "difference": None if item.value is None else ours["value"] - item.value,
        "ours_leak_free": ours["leak_free"],
    }
    decimals = DECIMALS[ours["unit"]] + 2
    entry |= {name: f"{value:.{decimals}f}" for name, value in numbers.items() if value is not None}
    return entry | {name: ours[name] for name in ("split", "n_seeds", "n_images")}


def _people(item: Published, people: list[Reference]) -> dict[str, Any]:
    if item.metric != "dice" or item.value is None or not people:
        return {"people_share": "", "people_n": ""}
    share = share_as_good(people, item.value / SCALE[item.unit])
    return {"people_share": f"{100 * share:.1f}", "people_n": len(people)}


def _verdict(
    item: Published, cell: dict[str, Any] | None, arithmetic: tuple[str, str] | None, plan: Plan, *, quoted: bool
) -> tuple[str, str]:
    """``cell`` holds our value, in the published number's unit, or None; ``quoted``: the row has no method."""
    if arithmetic is not None and arithmetic[0] in (IMPOSSIBLE, UNTESTABLE):
        return arithmetic
    if item.metric == "p_below" and arithmetic is None:
        return UNTESTABLE, "neither the number of pairs nor the values of single images are published"
    condition = "" if arithmetic is None else arithmetic[1]
    if cell is not None and plan.profile == COMPARING and not plan.rehearsed:
        if item.metric not in PARAMETERS and item.dataset != cell["dataset"]:
            return UNTESTABLE, f"published for {item.dataset}, ours is for {cell['dataset']}. {condition}".strip()
        return _compared(item, cell, condition, plan.ledger)
    if cell is not None:
        why = "a rehearsal takes a few steps" if plan.rehearsed else "it uses other data and smaller models"
        found, here = NOT_COMPARED, f"profile {plan.profile}: {why}; its value is shown"
    elif quoted:
        found, here = NOT_RUN, "the row is quoted: its method is none of ours"
    else:
        found, here = NOT_RUN, f"profile {plan.profile} has no run for this row"
    return (found, here) if arithmetic is None else (ONLY_IF, f"{condition} Not tested: {here}.")


def _compared(item: Published, cell: dict[str, Any], condition: str, rule: Ledger) -> tuple[str, str]:
    """Reproduced: the published number lies in our interval, widened by the tolerance and the number's rounding."""
    if item.metric in PARAMETERS:
        low = high = cell["value"]
        tolerance = 0.0
    else:
        interval = cell["interval"]
        low, high = (interval.low, interval.high) if interval else (cell["value"], cell["value"])
        tolerance = rule.tolerance_points * SCALE[item.unit] / SCALE["percent"]
    margin = tolerance + 0.5 * 10.0**-item.decimals
    measure = f"our interval is {low:.4g} to {high:.4g}, widened by {margin:.4g}"
    verdict = REPRODUCED if item.low <= high + margin and item.high >= low - margin else NOT_REPRODUCED
    return verdict, f"{measure}. {condition}".strip()
