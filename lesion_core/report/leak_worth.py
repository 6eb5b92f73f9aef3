"""What the leak is worth: a method under its paper's own split beside itself under the leak-free one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from lesion_core.report.formats import dataset_name, metric_name
from lesion_core.report.measures import Measure, lesions_of
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import PUBLISHED_ONLY, Cells
from lesion_core.settings import Statistics
from lesion_core.stats.bootstrap import bootstrap_means

RULES = ("leak_free", "as_published")
METRICS = {"segmentation": "dice", "classification": "accuracy"}
DIFFERENCE = "difference"
HEADINGS = {
    "leak_free": "Leak-free",
    "as_published": "As published",
    DIFFERENCE: "As published \u2212 leak-free, points (interval)",
}
NONE = "No method runs under both rules in this profile"
NOTES = (
    "Test images differ between the rules, so nothing is paired: the interval of the difference comes from the"
    " bootstrap's standard errors of both means, drawn by lesion. Training images differ too: the difference is the"
    " split's, not the leak's alone. What leaks, and how many pairs, stands in the certificates.",
)


def leak_worth_cells(made: Cells) -> list[dict[str, Any]]:
    """Dice of segmenters and accuracy of classifiers on each dataset under both rules, and as published - leak-free."""
    store, plan = made.store, made.plan
    for method, second in plan.as_published.items():
        for kind, metric in METRICS.items():
            scored = store.segmentation if kind == "segmentation" else store.classification
            for dataset in sorted({key[1] for key in scored if key[0] in second}):
                measure = Measure(kind, dataset, metric, plan.prompt_of(method) if kind == "segmentation" else "none")
                sides = dict(zip(RULES, (plan.runs.get(method, []), second), strict=True))
                row = f"{plan.name_of(method)}, {dataset_name(dataset)}, {metric_name(metric, 'percent')}"
                if any(store.measure(runs, measure) is None for runs in sides.values()):
                    continue
                for rule, runs in sides.items():
                    made.add(row, rule, HEADINGS[rule], method, measure, runs=runs)
                values = [values_of(store, runs, measure) for runs in sides.values()]
                add_difference(made, row, HEADINGS[DIFFERENCE], method, dataset, values)
    if not made.made:
        made.add(NONE, DIFFERENCE, HEADINGS[DIFFERENCE])
    return made.made


Side = tuple[np.ndarray, list[str]]


def add_difference(made: Cells, row: str, heading: str, method: str, dataset: str, sides: Sequence[Side]) -> None:
    """A cell in the column ``difference``: second side minus first in points, with its interval; see ``difference``."""
    if min(len(set(lesions)) for _, lesions in sides) > 1:
        told = difference(sides, made.plan.statistics)
        text = "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * part for part in told))
    else:
        text = f"{100 * (sides[1][0].mean() - sides[0][0].mean()):+.2f} (one lesion: no interval)"
    known = {"status": PUBLISHED_ONLY, "published_text": text, "dataset": dataset}
    made.add(row, DIFFERENCE, heading, method, known=known)


def difference(sides: Sequence[Side], rule: Statistics) -> tuple[float, float, float]:
    """Second mean minus first with its interval: (N,) values and the lesion of each, of either side."""
    drawn = [
        bootstrap_means(values, lesions, seed=rule.seed, resamples=rule.resamples, level=1 - rule.alpha)
        for values, lesions in sides
    ]
    apart = float(drawn[1].estimate[0] - drawn[0].estimate[0])
    reach = norm.isf(rule.alpha / 2) * float(np.hypot(*(side.standard_error[0] for side in drawn)))
    return apart, apart - reach, apart + reach


def values_of(store: Store, runs: Sequence[str], measure: Measure) -> Side:
    """Each image's value, mean over the runs, and its lesion."""
    scored = [rows for run in runs if len(rows := store.rows(run, measure))]
    if measure.kind == "classification":
        each = [(rows["label"] == rows["predicted"]).to_numpy(dtype=np.float64) for rows in scored]
    else:
        each = [rows[measure.metric].to_numpy() for rows in scored]
    return np.mean(each, axis=0), list(lesions_of(scored[0]))
