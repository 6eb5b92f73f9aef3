"""A 95 % interval beside each number of the tables: lesions are drawn with replacement, seeds are averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lesion_core.report.formats import write_rows
from lesion_core.report.measures import DECIMALS, SCALE, SEGMENTATION_METRICS, SPREAD, lesions_of
from lesion_core.report.score_store import Store
from lesion_core.report.subgroups import mean_over_runs
from lesion_core.report.table_cells import measure_of
from lesion_core.settings import Plan
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.subgroups import subgroup_metrics

COLUMNS = ("table", "row", "column", "method", "dataset", "n_seeds", "n", "lesions", "value", "low", "high", "interval")
BCA, PERCENTILE = "BCa, clustered by lesion", "percentile, clustered by lesion"
CLASS_RESAMPLES = 2000  # at most: each resample recomputes AUC, and two ends of an interval need no more


class Interval(NamedTuple):
    """Both ends, of how many lesions, and how they were found."""

    low: float
    high: float
    lesions: int
    kind: str


@dataclass
class Intervals:
    """Intervals of cells; those of the same runs and images are computed together and kept."""

    store: Store
    plan: Plan
    _known: dict[tuple[str, ...], dict[str, Interval]] = field(default_factory=dict)

    def of(self, cell: Mapping[str, Any]) -> Interval | None:
        """A cell's interval, in its unit; None where images do not give any.

        Pooled numbers, differences of prompts, spreads and parameters have none.
        """
        if cell["value"] is None or cell["minus"] is not None or cell["averaging"] != "image":
            return None
        key = (cell["run_ids"], cell["kind"], cell["dataset"], cell["prompt"], cell["resolution"])
        if cell["metric"] != SPREAD and key not in self._known:
            self._known[key] = self._computed(cell)
        interval = self._known.get(key, {}).get(cell["metric"])
        if interval is None or math.isnan(interval.low):
            return None
        scale = SCALE[cell["unit"]]
        return interval._replace(low=scale * interval.low, high=scale * interval.high)

    def _computed(self, cell: Mapping[str, Any]) -> dict[str, Interval]:
        """Metric -> interval as fractions, for all metrics of the cell's runs; empty where images do not give any."""
        if cell["kind"] not in ("segmentation", "classification"):
            return {}
        scored = [self.store.rows(run, measure_of(cell)) for run in cell["run_ids"].split(" ")]
        lesions = list(lesions_of(scored[0]))
        count = len(set(lesions))
        if count < 2:
            return {}
        rule = self.plan.statistics
        if cell["kind"] == "segmentation":
            values = np.mean([rows[SEGMENTATION_METRICS].to_numpy() for rows in scored], axis=0)
            drawn = bootstrap_means(values, lesions, seed=rule.seed, resamples=rule.resamples, level=1 - rule.alpha)
            ends = zip(SEGMENTATION_METRICS, map(float, drawn.low), map(float, drawn.high), strict=True)
            return {name: Interval(low, high, count, BCA) for name, low, high in ends}
        measured = subgroup_metrics(
            {"images": ["all"] * len(lesions)},
            lesions,
            mean_over_runs(scored),
            seed=rule.seed,
            resamples=min(rule.resamples, CLASS_RESAMPLES),
            alpha=rule.alpha,
        )
        return {item.metric: Interval(item.low, item.high, count, PERCENTILE) for item in measured}


def write_intervals(path: Path, cells: list[dict[str, Any]], intervals: Intervals) -> None:
    """Write one row per number of ours that a table takes from images, in the cell's unit."""
    rows = []
    for cell in cells:
        if (found := intervals.of(cell)) is not None:
            numbers = {"value": cell["value"], "low": found.low, "high": found.high}
            decimals = DECIMALS[cell["unit"]] + 2
            row = {name: cell[name] for name in ("table", "row", "column", "method", "dataset", "n_seeds")}
            row |= {"n": cell["n_images"], "lesions": found.lesions, "interval": found.kind}
            rows.append(row | {name: f"{value:.{decimals}f}" for name, value in numbers.items()})
    write_rows(path, COLUMNS, rows, intervals.plan)
