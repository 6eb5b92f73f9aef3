"""Can accuracy, sensitivity and specificity be true together? Pooled accuracy is their mean, weighted by prevalence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY, Unit, between, read_rates

Interval = tuple[float, float]


@dataclass(frozen=True)
class RatesVerdict:
    """Accuracy, sensitivity and specificity of pooled samples (or pixels).

    Attributes:
        prevalence: shares of positives with which the three agree, (least, greatest) after rounding; NaN if none.
        pooled_verdict: of counts pooled over all samples.
        mean_verdict: of three means over images, which allow far more (only max(0, se + sp - 1) <= accuracy <=
            min(1, se + sp) is certain).
        explanation: one sentence.
    """

    prevalence: tuple[float, float]
    pooled_verdict: Literal["impossible", "possible"]
    mean_verdict: Literal["impossible", "possible"]
    explanation: str


def check_rates(
    accuracy: str,
    sensitivity: str,
    specificity: str | None = None,
    *,
    prevalence: float | None = None,
    unit: Unit | None = None,
) -> RatesVerdict:
    """Judge published accuracy, sensitivity and specificity of a two-class task.

    Args:
        accuracy, sensitivity, specificity: as printed; a specificity that is not printed may be anything, and then
            only ``prevalence`` can make the others impossible.
        prevalence: share of positives 0..1 if known (exactly), e.g. the lesions' share of pixels.
        unit: of the three; None: each has its own, see ``read_rates``.

    Raises:
        ScoreError: no rates, or a prevalence outside 0..1.
    """
    printed = read_rates({"accuracy": accuracy, "sensitivity": sensitivity, "specificity": specificity}, unit)
    rates = {"specificity": (0.0, 1.0)} | {name: (number.low, number.high) for name, number in printed.items()}
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise ScoreError(f"A prevalence lies in 0..1, not {prevalence}")
    (low, high), possible = _agree(rates, prevalence)
    a, se, sp = rates["accuracy"], rates["sensitivity"], rates["specificity"]
    mean_possible = max(0.0, se[0] + sp[0] - 1.0) <= a[1] + TINY and min(1.0, se[1] + sp[1]) >= a[0] - TINY
    shown = printed["accuracy"]
    where, lies = "any share of positives", "between sensitivity and specificity, weighted by that share"
    if prevalence is not None:
        least, most = (prevalence * se[end] + (1 - prevalence) * sp[end] for end in (0, 1))
        where = f"a share of positives of {prevalence:g}"
        lies = f"within {between(least, most, shown.decimals + 1, percent=shown.percent)} there"
    if possible and prevalence is None:
        text = f"Possible: they agree for a share of positives of {between(low, high, 3, percent=False)}."
    elif possible:
        text = f"Possible with {where}: pooled accuracy lies {lies}."
    else:
        text = f"Pooled accuracy {shown.text} is impossible with {where}: it lies {lies}; "
        text += "macro averages" if mean_possible else "means over images cannot give it either, only"
        text += " or another test set could." if mean_possible else " another test set could."
        for name, number in printed.items():
            scaled = {**rates, name: (100.0 * number.low, min(1.0, 100.0 * number.high))}
            if 100.0 * number.value <= 1.0 and _agree(scaled, prevalence)[1]:
                text += f" With {name} {number.text} times 100 they agree."
    return RatesVerdict(
        prevalence=(low, high),
        pooled_verdict="possible" if possible else "impossible",
        mean_verdict="possible" if mean_possible else "impossible",
        explanation=text,
    )


def _agree(rates: Mapping[str, Interval], prevalence: float | None) -> tuple[Interval, bool]:
    """The shares of positives with which three rates agree (NaN if none do), and whether the known one is among them.

    accuracy - (w se + (1 - w) sp) can be 0 in the box iff two inequalities hold, each linear in w.
    """
    a, se, sp = rates["accuracy"], rates["sensitivity"], rates["specificity"]
    low, high = _half_line(sp[0] - a[1], se[0] - sp[0], (0.0, 1.0))
    low, high = _half_line(a[0] - sp[1], sp[1] - se[1], (low, high))
    if low > high + TINY:
        return (math.nan, math.nan), False
    return (low, max(low, high)), prevalence is None or low - 1e-9 <= prevalence <= high + 1e-9


def _half_line(offset: float, slope: float, interval: tuple[float, float]) -> tuple[float, float]:
    """The part of ``interval`` where offset + slope * w <= 0; (1, 0) if there is none."""
    low, high = interval
    if abs(slope) < TINY:
        return interval if offset <= TINY else (1.0, 0.0)
    if slope > 0:
        high = min(high, -offset / slope)
    else:
        low = max(low, -offset / slope)
    return (low, high) if low <= high + TINY else (1.0, 0.0)
