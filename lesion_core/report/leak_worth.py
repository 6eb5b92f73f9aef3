"""What the leak is worth: a method under its paper's own split beside itself under the leak-free one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from lesion_core.report.display_names import dataset_name
from lesion_core.report.formats import metric_name
from lesion_core.report.intervals import lesion_of
from lesion_core.report.measures import Measure
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import NOT_RUN, PUBLISHED_ONLY, our_cell
from lesion_core.settings import Plan, Statistics
from lesion_core.stats.bootstrap import bootstrap_means

RULES = ("leak_free", "as_published")
METRICS = {"segmentation": "dice", "classification": "accuracy"}
DIFFERENCE = "difference"
HEADINGS = {
    "leak_free": "Leak-free",
    "as_published": "As published",
    DIFFERENCE: "As published \u2212 leak-free, points (interval)",
}
UNIT = "percent"
NONE = "No method runs under both rules in this profile"
NOTES = (
    "Test images differ between the rules, so nothing is paired: the interval of the difference comes from the"
    " bootstrap's standard errors of both means, drawn by lesion. Training images differ too: the difference is the"
    " split's, not the leak's alone. What leaks, and how many pairs, stands in the certificates.",
)


def leak_worth_cells(name: str, store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Dice of segmenters and accuracy of classifiers on each dataset under both rules, and as published - leak-free."""
    cells = []
    for method, second in plan.as_published.items():
        for kind, metric in METRICS.items():
            scored = store.segmentation if kind == "segmentation" else store.classification
            for dataset in sorted({key[1] for key in scored if key[0] in second}):
                measure = Measure(kind, dataset, metric, plan.prompt_of(method) if kind == "segmentation" else "none")
                sides = dict(zip(RULES, (plan.runs.get(method, []), second), strict=True))
                row = f"{plan.name_of(method)}, {dataset_name(dataset)}, {metric_name(metric, UNIT)}"
                if all(store.measure(runs, measure) is not None for runs in sides.values()):
                    for rule, runs in sides.items():
                        value = store.measure(runs, measure)
                        cells.append(our_cell(name, row, rule, method, measure, UNIT, value, HEADINGS[rule]))
                    told = difference([_values(store, runs, measure) for runs in sides.values()], plan.statistics)
                    text = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * part for part in told))
                    cell = our_cell(name, row, DIFFERENCE, method, None, UNIT, None, HEADINGS[DIFFERENCE])
                    cells.append(cell | {"status": PUBLISHED_ONLY, "published_text": text, "dataset": dataset})
    empty = our_cell(name, NONE, DIFFERENCE, None, None, UNIT, None, HEADINGS[DIFFERENCE])
    return cells or [empty | {"status": NOT_RUN}]


Side = tuple[np.ndarray, list[str]]


def difference(sides: Sequence[Side], rule: Statistics) -> tuple[float, float, float]:
    """Second mean minus first with its interval: (N,) values and the lesion of each, of either side."""
    drawn = [
        bootstrap_means(values, lesions, seed=rule.seed, resamples=rule.resamples, level=1 - rule.alpha)
        for values, lesions in sides
    ]
    apart = float(drawn[1].estimate[0] - drawn[0].estimate[0])
    reach = norm.isf(rule.alpha / 2) * float(np.hypot(*(side.standard_error[0] for side in drawn)))
    return apart, apart - reach, apart + reach


def _values(store: Store, runs: Sequence[str], measure: Measure) -> Side:
    """Each image's value, mean over the runs, and its lesion."""
    scored = [rows for run in runs if (rows := store.rows(run, measure))]
    if measure.kind == "classification":
        each = [[float(row["label"] == row["predicted"]) for row in rows] for rows in scored]
    else:
        each = [[row[measure.metric] for row in rows] for rows in scored]
    return np.mean(each, axis=0), [lesion_of(row) for row in scored[0]]
