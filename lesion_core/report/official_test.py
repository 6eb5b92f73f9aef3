"""A challenge's own test set beside the own split: the same weights, under the challenge's rules."""

from __future__ import annotations

from typing import Any

from lesion_core.report.formats import dataset_name, metric_name
from lesion_core.report.measures import Measure
from lesion_core.report.table_cells import Cells
from lesion_core.settings import OFFICIAL

METRICS = {"segmentation": ("thresholded_iou", "dice"), "classification": ("balanced_accuracy", "accuracy")}
HEADINGS = {"own": "Test images of our own split", "official": "The challenge's own part"}
NONE = "No official test set is scored in this profile (data.datasets, scoring)"
NOTES = (
    "The challenge's rules: thresholded Jaccard is 0 for an image below 0.65 (ISIC 2018, Task 1); balanced accuracy is"
    " the mean recall over classes (Task 3), ISIC_0035068 without weight. Equal to isic-challenge-scoring's answers.",
    "The same weights on both; nothing was trained on an official part or on any image of its groups (leak-free)."
    " Under a paper's own split the certificate counts what it shares with training images."
    " The challenge's best on Task 3, external data allowed: balanced accuracy 88.5, 88.2, 87.1.",
)


def official_test_cells(made: Cells) -> list[dict[str, Any]]:
    """The goal metric and a plain one of every method scored on an official part, beside its release's own split."""
    for kind, metrics in METRICS.items():
        scored = made.store.segmentation if kind == "segmentation" else made.store.classification
        for dataset in sorted({key[1] for key in scored} & OFFICIAL.keys()):
            for method, runs in made.plan.distinct_runs():
                prompt = made.plan.prompt_of(method) if kind == "segmentation" else "none"
                for metric in metrics:
                    row = f"{made.plan.name_of(method)}, {dataset_name(dataset)}, {metric_name(metric, 'percent')}"
                    sides = {"own": OFFICIAL[dataset][0], "official": dataset}
                    measures = {side: Measure(kind, place, metric, prompt) for side, place in sides.items()}
                    if made.store.measure(runs, measures["official"]) is not None:
                        for side, measure in measures.items():
                            made.add(row, side, HEADINGS[side], method, measure)
    if not made.made:
        made.add(NONE, "official", HEADINGS["official"])
    return made.made
