"""What a number of a table measures, as data: enough to compute it again from the stored rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion_core.metrics.segmentation import Confusion, pooled, scores
from lesion_core.stats.bootstrap import bootstrap_means

PARAMETERS = ("frozen_parameters", "trainable_parameters")  # from the runs' provenance, not from scores
DERIVED = ("dice_sd", "dice_ci_low", "dice_ci_high")  # of per-image Dice: its spread, and the interval of its mean
INTERVAL_SEED = 2026  # of the 95 % interval, as paper E has it
EXPLANATION_METRICS = ("pointing_game", "energy_inside")
LESION_METRICS = ("dice", "iou")  # in a table of both tasks, these come from the segmentation scores


@dataclass(frozen=True)
class Measure:
    """What a number measures, and how: with the runs it is all that is needed to compute it again.

    Attributes:
        kind: ``segmentation``, ``classification``, ``explanation`` (each a store of rows) or ``provenance``.
        dataset, metric: as in the store; a dataset does not matter to parameter counts.
        prompt, resolution: of segmentation scores.
        averaging: ``image``: mean over images; ``pooled``: of tp, fp, fn, tn summed over all images.
        minus: a second prompt whose value is subtracted, run by run.
        explainer: of explanations.
    """

    kind: str
    dataset: str
    metric: str
    prompt: str = "none"
    resolution: str = "native"
    averaging: str = "image"
    minus: str | None = None
    explainer: str | None = None


def kind_of(task: str, metric: str) -> str:
    """Which store a table's column comes from; in a table of both tasks, Dice and IoU come from segmentation."""
    if metric in PARAMETERS:
        return "provenance"
    if metric in EXPLANATION_METRICS:
        return "explanation"
    if task != "both":
        return task
    return "segmentation" if metric in LESION_METRICS else "classification"


def segmentation_metric(rows: list[dict[str, Any]], measure: Measure) -> float:
    """One segmentation metric of one run: over images, or of the pooled counts."""
    if measure.averaging == "pooled":
        counts = Confusion(*(np.array([row[name] for row in rows]) for name in Confusion._fields))
        return float(scores(pooled(counts))[measure.metric])
    if measure.metric == "dice_sd":
        return float(np.std([row["dice"] for row in rows], ddof=1)) if len(rows) > 1 else float("nan")
    if measure.metric in DERIVED:
        return _interval(rows)[measure.metric]
    return float(np.mean([row[measure.metric] for row in rows]))


def _interval(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Both ends of the mean Dice's bootstrap interval over lesions; NaN for a single lesion."""
    lesions = [row["lesion_id"] or row["image_id"] for row in rows]
    if len(set(lesions)) < 2:
        return dict.fromkeys(("dice_ci_low", "dice_ci_high"), float("nan"))
    found = bootstrap_means(np.array([row["dice"] for row in rows]), lesions, seed=INTERVAL_SEED)
    return {"dice_ci_low": float(found.low[0]), "dice_ci_high": float(found.high[0])}
