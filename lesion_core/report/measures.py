"""What a number of a table measures, as data: enough to compute it again from the stored rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesion_core.errors import ScoreError, SettingsError
from lesion_core.metrics import classification
from lesion_core.metrics.calibration import brier, ece, log_probabilities, softmax
from lesion_core.metrics.segmentation import Confusion, pooled, scores
from lesion_core.settings import CLASSES

PARAMETERS = ("frozen_parameters", "trainable_parameters")  # from the runs' provenance, not from scores
SPREAD = "dice_sd"  # of per-image Dice
EXPLANATION_METRICS = ("pointing_game", "energy_inside")
LESION_METRICS = ("dice", "iou")  # in a table of both tasks, these come from the segmentation scores
Rows = Sequence[Mapping[str, Any]]  # score rows, where what is read is named by a setting
BORDER_METRICS = ("thresholded_iou", "hd95", "surface_distance")  # what no paper here prints
SEGMENTATION_METRICS = ("dice", "iou", "sensitivity", "specificity", "accuracy", *BORDER_METRICS)
FRACTIONS = (
    "auc",
    "brier",
    "ece",
    "brier_calibrated",
    "ece_calibrated",
    "temperature",
)  # printed as fractions where no paper prints them; everything else in per cent
RANKED = (  # metrics of which the greatest is the best; a best value is marked for these alone
    "dice",
    "iou",
    "thresholded_iou",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "pointing_game",
    "energy_inside",
)
SCALE = {"percent": 100.0, "fraction": 1.0, "million": 1e-6}
DECIMALS = {"percent": 2, "fraction": 4, "million": 2}  # the first two are hundredths of a percentage point


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


def segmentation_metric(rows: Rows, measure: Measure) -> float:
    """One segmentation metric of one run: over images, or of the pooled counts."""
    if measure.averaging == "pooled":
        counts = Confusion(*(np.array([row[name] for row in rows]) for name in Confusion._fields))
        return float(scores(pooled(counts))[measure.metric])
    if measure.metric == SPREAD:
        return float(np.std([row["dice"] for row in rows], ddof=1)) if len(rows) > 1 else float("nan")
    return float(np.mean([row[measure.metric] for row in rows]))


def lesion_of(row: Mapping[str, Any]) -> str:
    """A score row's lesion; the image itself where none is known."""
    return row["lesion_id"] or row["image_id"]


def truth_and_probabilities(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (N,) int64 and probabilities (N, 7) float64 of classification score rows."""
    truth = np.array([CLASSES.index(row["label"]) for row in rows], dtype=np.int64)
    probabilities = np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows], dtype=np.float64)
    return truth, probabilities


def classification_metrics(rows: Rows) -> dict[str, float]:
    """All classification metrics of one run on one dataset, fractions; ``*_calibrated``: at the run's temperature.

    Raises:
        ScoreError: the rows have several temperatures, so they are not of one run.
    """
    truth, probabilities = truth_and_probabilities(rows)
    temperatures = {row["temperature"] for row in rows}
    if len(temperatures) > 1:
        raise ScoreError("One run's scores have several temperatures", ids=[rows[0]["run_id"]], remedy="score it again")
    calibrated = softmax(log_probabilities(probabilities), temperatures.pop())
    return {
        **classification.scores(truth, probabilities, melanoma=CLASSES.index("mel")),
        "brier": brier(truth, probabilities),
        "ece": ece(truth, probabilities),
        "brier_calibrated": brier(truth, calibrated),
        "ece_calibrated": ece(truth, calibrated),
        "temperature": float(rows[0]["temperature"]),
    }


def column_unit(metric: str, printed: Iterable[str]) -> str:
    """The unit of a table's column: the paper's where it prints the metric, so that its numbers stand as printed.

    Args:
        metric: the column.
        printed: units of the published numbers of that column.

    Raises:
        SettingsError: the paper prints the column in two units.
    """
    units = sorted(set(printed))
    if len(units) > 1:
        raise SettingsError(f"{metric} is published in two units in one table: {', '.join(units)}")
    if units:
        return units[0]
    return "million" if metric in PARAMETERS else "fraction" if metric in FRACTIONS else "percent"
