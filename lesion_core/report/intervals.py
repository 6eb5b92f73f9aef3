"""A 95 % interval beside each number of the tables: lesions are drawn with replacement, seeds are averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import write_csv
from lesion_core.report.measures import DECIMALS, SCALE, SEGMENTATION_METRICS, SPREAD, Rows, lesion_of
from lesion_core.report.score_store import Store
from lesion_core.report.subgroups import mean_over_runs
from lesion_core.settings import Plan
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.subgroups import subgroup_metrics

COLUMNS = ("table", "row", "column", "method", "dataset", "n_seeds", "n", "lesions", "value", "low", "high", "interval")
BCA, PERCENTILE = "BCa, clustered by lesion", "percentile, clustered by lesion"
CLASS_RESAMPLES = 2000  # at most: each resample recomputes AUC, and two ends of an interval need no more

Interval = tuple[float, float, int, str]
Known = dict[tuple[str, ...], dict[str, Interval]]


def write_intervals(path: Path, cells: list[dict[str, Any]], store: Store, plan: Plan) -> dict[tuple[str, ...], Any]:
    """Write one row per number of ours that a table takes from images; returns (table, row, column) -> (low, high).

    Values are in the cell's unit. Pooled numbers, differences of prompts, spreads and parameters have no row.

    Args:
        path: the .csv to write.
        cells: of the tables, as `cells.write_cells` stores them.
        store: the scores.
        plan: gives level, resamples and seed.
    """
    known: Known = {}
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, ...], Any] = {}
    for cell in cells:
        interval = interval_of(cell, store, plan, known)
        if interval is None:
            continue
        decimals = DECIMALS[cell["unit"]] + 2
        low, high = interval[:2]
        place = (cell["table"], cell["row"], cell["column"])
        found[place] = (low, high)
        rows.append(
            {
                **dict(zip(("table", "row", "column"), place, strict=True)),
                "method": cell["method"],
                "dataset": cell["dataset"],
                "n_seeds": cell["n_seeds"],
                "n": cell["n_images"],
                "lesions": interval[2],
                "value": f"{cell['value']:.{decimals}f}",
                "low": f"{low:.{decimals}f}",
                "high": f"{high:.{decimals}f}",
                "interval": interval[3],
            }
        )
    write_csv(path, COLUMNS, rows)
    return found


def interval_of(cell: Mapping[str, Any], store: Store, plan: Plan, known: Known) -> Interval | None:
    """Low, high, lesions and kind of a cell's interval, in its unit; None where images do not give any.

    Args:
        known: intervals of all metrics of the same runs and images, kept from cell to cell.
    """
    if cell["value"] is None or cell["minus"] is not None or cell["averaging"] != "image":
        return None
    key = (cell["run_ids"], cell["kind"], cell["dataset"], cell["prompt"], cell["resolution"])
    if key not in known:
        known[key] = _intervals(cell, store, plan)
    interval = known[key].get(cell["metric"])
    if interval is None or math.isnan(interval[0]):
        return None
    scale = SCALE[cell["unit"]]
    return scale * interval[0], scale * interval[1], interval[2], interval[3]


def _intervals(cell: Mapping[str, Any], store: Store, plan: Plan) -> dict[str, Interval]:
    """Metric -> interval as fractions, for all metrics of the cell's runs; empty where images do not give any."""
    runs = cell["run_ids"].split(" ")
    scored: list[Rows]
    if cell["kind"] == "classification":
        scored = [store.classification[run, cell["dataset"]] for run in runs]
    elif cell["kind"] == "segmentation" and cell["metric"] != SPREAD:
        scored = [store.segmentation[run, cell["dataset"], cell["prompt"], cell["resolution"]] for run in runs]
    else:
        return {}
    lesions = [lesion_of(row) for row in scored[0]]
    count = len(set(lesions))
    if count < 2:
        return {}
    rule = plan.statistics
    if cell["kind"] == "segmentation":
        values = np.mean([[[row[name] for name in SEGMENTATION_METRICS] for row in part] for part in scored], axis=0)
        drawn = bootstrap_means(values, lesions, seed=rule.seed, resamples=rule.resamples, level=1 - rule.alpha)
        return {
            name: (float(drawn.low[place]), float(drawn.high[place]), count, BCA)
            for place, name in enumerate(SEGMENTATION_METRICS)
        }
    everyone = {"images": ["all"] * len(lesions)}
    resamples = min(rule.resamples, CLASS_RESAMPLES)
    statistic = mean_over_runs(scored)
    measured = subgroup_metrics(everyone, lesions, statistic, seed=rule.seed, resamples=resamples, alpha=rule.alpha)
    return {item.metric: (item.low, item.high, count, PERCENTILE) for item in measured}
