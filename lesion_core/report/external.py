"""External validity: segmenters on datasets that they were not trained on, beside their own test images."""

from __future__ import annotations

from typing import Any

from lesion_core.report.formats import dataset_name
from lesion_core.report.leak_worth import add_difference, values_of
from lesion_core.report.measures import Measure
from lesion_core.report.table_cells import Cells
from lesion_core.settings import OFFICIAL

NONE = "No segmenter is scored on a dataset that it was not trained on"
NOTES = (
    "Mean Dice at native size, under the prompt that a method is meant for. The drop is the external dataset's mean"
    " minus that of the own test images; they are other images, so its interval comes from the bootstrap's standard"
    " errors of both means, drawn by lesion. A dataset can be easier than the own one: then there is a gain.",
)


def external_cells(made: Cells) -> list[dict[str, Any]]:
    """Dice of every trained segmenter on the own and on each external dataset, and the drop with its interval."""
    store, plan = made.store, made.plan
    scored = sorted({key[1] for key in store.segmentation} - OFFICIAL.keys())  # these have a table of their own
    for method, runs in plan.distinct_runs():
        trained = plan.trained_on.get(method, {}).get("segmentation", [])
        prompt = plan.prompt_of(method)
        measures = {dataset: Measure("segmentation", dataset, "dice", prompt) for dataset in scored}
        known = {dataset: measure for dataset, measure in measures.items() if store.measure(runs, measure) is not None}
        for own in (dataset for dataset in known if dataset in trained):
            for other in (dataset for dataset in known if dataset not in trained):
                row = f"{plan.name_of(method)}: {dataset_name(own)} to {dataset_name(other)}"
                made.add(row, "own", "Own test images, Dice (%)", method, known[own])
                made.add(row, "external", "External images, Dice (%)", method, known[other])
                sides = [values_of(store, runs, known[dataset]) for dataset in (own, other)]
                add_difference(made, row, "External \u2212 own, points (interval)", method, other, sides)
    if not made.made:
        made.add(NONE, "external", "External images, Dice (%)")
    return made.made
