"""What follows from a printed confusion matrix, and which printed metrics do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY, Printed, Unit, read_rates

Follows = Literal[
    "", "follows", "follows if cut off, not rounded", "does not follow", "within the bounds", "outside the bounds"
]
WRONG = ("does not follow", "outside the bounds")
COUNTS = ("tn", "fp", "fn", "tp")


@dataclass(frozen=True)
class MetricCheck:
    """One pooled metric of a matrix.

    Attributes:
        name: a key of ``pooled_metrics``, or ``auc``.
        low, high: what follows from the counts, alike but for ``auc``; NaN where the denominator is 0.
        printed: the paper's number, None if not given.
        follows: whether it may have been rounded to it, or was cut off; "" if there is nothing to compare.
        instead: what would have been rounded to the printed number, where this one does not follow: other metrics, or
            this one times or divided by 100.
    """

    name: str
    low: float
    high: float
    printed: Printed | None
    follows: Follows
    instead: tuple[str, ...]


@dataclass(frozen=True)
class ConfusionVerdict:
    """Pooled metrics of TN, FP, FN, TP beside the printed ones; "impossible" if one does not follow.

    Attributes:
        orders: other orders of the four counts ("TP FN FP TN") from which all printed metrics follow, where they do not
            from the given one.
    """

    tn: int
    fp: int
    fn: int
    tp: int
    checks: tuple[MetricCheck, ...]
    orders: tuple[str, ...]
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


def auc_bounds(sensitivity: float, specificity: float) -> tuple[float, float]:
    """Least and greatest area under a ROC curve through one operating point.

    The curve rises from (0, 0) through (1 - specificity, sensitivity) to (1, 1). At least it is 0 before the point and
    ``sensitivity`` after it; at most it is ``sensitivity`` before the point and 1 after it.
    """
    return sensitivity * specificity, 1.0 - (1.0 - sensitivity) * (1.0 - specificity)


def check_confusion(
    tn: int, fp: int, fn: int, tp: int, printed: Mapping[str, str] | None = None, *, unit: Unit | None = None
) -> ConfusionVerdict:
    """Compute what follows from a confusion matrix and compare it with printed metrics.

    Args:
        tn, fp, fn, tp: counts of pixels or samples, in scikit-learn's order: [[TN, FP], [FN, TP]].
        printed: rates as printed, by name of ``pooled_metrics``; ``auc`` of the same scores is bounded by the matrix.
        unit: of ``printed``; None: each has its own, see ``read_rates``.

    Raises:
        ScoreError: a negative count, all counts 0, an unknown metric, or a printed number that is no rate.
    """
    given = (tn, fp, fn, tp)
    if min(given) < 0 or sum(given) == 0:
        raise ScoreError(f"TN {tn}, FP {fp}, FN {fn}, TP {tp} are no confusion matrix", remedy="give counts, not all 0")
    known = {*pooled_metrics(*given), "auc"}
    if unknown := sorted({*(printed or {})} - known):
        raise ScoreError("Unknown metrics", ids=unknown, remedy=f"known are {', '.join(sorted(known))}")
    numbers = read_rates(printed or {}, unit)
    checks, orders = _checks(given, numbers), []
    wrong = any(check.follows in WRONG for check in checks)
    for order in permutations(COUNTS) if wrong else ():
        counts = dict(zip(order, given, strict=True))
        if not any(check.follows in WRONG for check in _checks([counts[name] for name in COUNTS], numbers)):
            orders.append(" ".join(order).upper())
    return ConfusionVerdict(tn, fp, fn, tp, tuple(checks), tuple(orders), "impossible" if wrong else "possible")


def _checks(counts: Sequence[int], numbers: Mapping[str, Printed]) -> list[MetricCheck]:
    values = pooled_metrics(*counts)
    checks = [_check(name, values, numbers.get(name)) for name in values]
    if auc := numbers.get("auc"):
        low, high = auc_bounds(values["sensitivity"], values["specificity"])
        inside = low <= auc.high + TINY and auc.low - TINY <= high
        follows: Follows = "" if math.isnan(low) else "within the bounds" if inside else "outside the bounds"
        checks.append(MetricCheck("auc", low, high, auc, follows, ()))
    return checks


def _check(name: str, values: Mapping[str, float], printed: Printed | None) -> MetricCheck:
    value = values[name]
    if printed is None or math.isnan(value):
        return MetricCheck(name, value, value, printed, "", ())
    low, high = printed.low, printed.high
    fitting = [other for other in values if low - TINY <= values[other] <= high + TINY]
    if name in fitting:
        return MetricCheck(name, value, value, printed, "follows", ())
    if printed.exact and printed.value - TINY <= value < printed.value + (high - low):
        return MetricCheck(name, value, value, printed, "follows if cut off, not rounded", ())
    for words, factor in ((f"{name} / 100", 100.0), (f"{name} * 100", 0.01)):
        if value > 0 and low * factor - TINY <= value <= high * factor + TINY:
            fitting.append(words)
    return MetricCheck(name, value, value, printed, "does not follow", tuple(fitting))
