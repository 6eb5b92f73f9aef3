"""What a number of a table measures, as data: enough to compute it again from the stored rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lesion_core.errors import ScoreError
from lesion_core.metrics import classification
from lesion_core.metrics.calibration import brier, ece, log_probabilities, softmax
from lesion_core.metrics.segmentation import Confusion, pooled, scores
from lesion_core.settings import CLASSES

PARAMETERS = ("frozen_parameters", "trainable_parameters")  # from the runs' provenance, not from scores
SPREAD = "dice_sd"  # of per-image Dice
EXPLANATION_METRICS = ("pointing_game", "energy_inside")
LESION_METRICS = ("dice", "iou")  # in a table of both tasks, these come from the segmentation scores
BORDER_METRICS = ("thresholded_iou", "hd95", "surface_distance")  # what no paper here prints
SEGMENTATION_METRICS = ["dice", "iou", "sensitivity", "specificity", "accuracy", *BORDER_METRICS]
# printed as fractions where no paper prints them; everything else in per cent
FRACTIONS = ("auc", "brier", "ece", "brier_calibrated", "ece_calibrated", "temperature")
# the greatest is the best, which is marked for these alone
RANKED = {"dice", "iou", "thresholded_iou", "sensitivity", "specificity", "accuracy", "balanced_accuracy", "precision"}
RANKED |= {"recall", "f1", "auc", *EXPLANATION_METRICS}
SCALE = {"percent": 100.0, "fraction": 1.0, "million": 1e-6}
DECIMALS = {"percent": 2, "fraction": 4, "million": 2}  # the first two are hundredths of a percentage point
MELANOMA = CLASSES.index("mel")


@dataclass(frozen=True)
class Measure:
    """What a number measures; with the runs it is all that is needed to compute it again.

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


def segmentation_metric(rows: pd.DataFrame, measure: Measure) -> float:
    """One segmentation metric of one run: over images, or of the pooled counts."""
    if measure.averaging == "pooled":
        counts = Confusion(*(rows[name].to_numpy() for name in Confusion._fields))
        return float(scores(pooled(counts))[measure.metric])
    if measure.metric == SPREAD:
        return float(np.std(rows["dice"].to_numpy(), ddof=1)) if len(rows) > 1 else float("nan")
    return float(np.mean(rows[measure.metric].to_numpy()))


def lesions_of(rows: pd.DataFrame) -> np.ndarray:
    """The lesion of each score row; the image itself where none is known."""
    return rows["lesion_id"].fillna(rows["image_id"]).to_numpy(dtype=object)


def truth_and_probabilities(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (N,) int64 and probabilities (N, 7) float64 of classification score rows."""
    truth = rows["label"].map(CLASSES.index).to_numpy(dtype=np.int64)
    return truth, np.ascontiguousarray(rows[[f"p_{name}" for name in CLASSES]].to_numpy(dtype=np.float64))


def classification_metrics(rows: pd.DataFrame) -> dict[str, float]:
    """All classification metrics of one run on one dataset, fractions; ``*_calibrated``: at the run's temperature.

    Raises:
        ScoreError: the rows have several temperatures, so they are not of one run.
    """
    truth, probabilities = truth_and_probabilities(rows)
    temperature, *more = rows["temperature"].unique()
    if more:
        run = str(rows["run_id"].iloc[0])
        raise ScoreError("One run's scores have several temperatures", ids=[run], remedy="score it again")
    calibrated = softmax(log_probabilities(probabilities), float(temperature))
    return {
        **classification.scores(truth, probabilities, melanoma=MELANOMA),
        "brier": brier(truth, probabilities),
        "ece": ece(truth, probabilities),
        "brier_calibrated": brier(truth, calibrated),
        "ece_calibrated": ece(truth, calibrated),
        "temperature": float(temperature),
    }
