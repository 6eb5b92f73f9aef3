"""What follows from a printed confusion matrix, and which printed metrics do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY, Printed, Unit, as_fractions, in_percent, parse_printed

Follows = Literal["", "follows", "follows if cut off, not rounded", "does not follow"]


@dataclass(frozen=True)
class MetricCheck:
    """One pooled metric of a matrix.

    Attributes:
        name: a key of ``pooled_metrics``.
        value: what follows from the counts; NaN where the denominator is 0.
        printed: the paper's number, None if not given.
        follows: whether ``value`` may have been rounded to it, or was cut off; "" if there is nothing to compare.
        instead: other metrics that would have been rounded to the printed number, where this one does not follow.
    """

    name: str
    value: float
    printed: Printed | None
    follows: Follows
    instead: tuple[str, ...]


@dataclass(frozen=True)
class ConfusionVerdict:
    """Pooled metrics of TN, FP, FN, TP beside the printed ones; "impossible" if one does not follow."""

    tn: int
    fp: int
    fn: int
    tp: int
    percent: bool
    checks: tuple[MetricCheck, ...]
    verdict: Literal["impossible", "possible"]


def pooled_metrics(tn: int, fp: int, fn: int, tp: int) -> dict[str, float]:
    """All pooled metrics of four counts, in 0..1 (mcc: -1..1); NaN where a denominator is 0.

    Dice is also F1, sensitivity also recall. ``mean_iou`` is the mean of the IoU of lesion and background.
    """

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else math.nan

    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    iou = ratio(tp, tp + fp + fn)
    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": iou,
        "accuracy": ratio(tp + tn, tp + tn + fp + fn),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "balanced_accuracy": (sensitivity + specificity) / 2.0,
        "mean_iou": (iou + ratio(tn, tn + fp + fn)) / 2.0,
        "mcc": ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
    }


def check_confusion(
    tn: int, fp: int, fn: int, tp: int, printed: Mapping[str, str] | None = None, *, unit: Unit | None = None
) -> ConfusionVerdict:
    """Compute what follows from a confusion matrix and compare it with printed metrics.

    Args:
        tn, fp, fn, tp: counts of pixels or samples, in scikit-learn's order: [[TN, FP], [FN, TP]].
        printed: rates as printed, by name of ``pooled_metrics``.
        unit: of ``printed``; None: per cent if one is above 1.

    Raises:
        ScoreError: a negative count, all counts 0, an unknown metric, or a printed number that is no rate.
    """
    if min(tn, fp, fn, tp) < 0 or tn + fp + fn + tp == 0:
        raise ScoreError(f"TN {tn}, FP {fp}, FN {fn}, TP {tp} are no confusion matrix", remedy="give counts, not all 0")
    values = pooled_metrics(tn, fp, fn, tp)
    if unknown := sorted({*(printed or {})} - {*values}):
        raise ScoreError("Unknown metrics", ids=unknown, remedy=f"known are {', '.join(values)}")
    numbers = {name: parse_printed(text) for name, text in (printed or {}).items()}
    percent = in_percent(numbers, unit)
    checks = [_check(name, values, numbers.get(name), percent) for name in values]
    wrong = any(check.follows == "does not follow" for check in checks)
    return ConfusionVerdict(tn, fp, fn, tp, percent, tuple(checks), "impossible" if wrong else "possible")


def _check(name: str, values: Mapping[str, float], printed: Printed | None, percent: bool) -> MetricCheck:
    value = values[name]
    if printed is None:
        return MetricCheck(name, value, None, "", ())
    low, high = as_fractions(name, printed, percent)
    if math.isnan(value):
        return MetricCheck(name, value, printed, "", ())
    fitting = tuple(other for other in values if low - TINY <= values[other] <= high + TINY)
    if name in fitting:
        return MetricCheck(name, value, printed, "follows", ())
    first = printed.value / (100.0 if percent else 1.0)
    if printed.exact and first - TINY <= value < first + (high - low):
        return MetricCheck(name, value, printed, "follows if cut off, not rounded", ())
    return MetricCheck(name, value, printed, "does not follow", fitting)
