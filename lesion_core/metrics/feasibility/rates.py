"""Can accuracy, sensitivity and specificity be true together? Pooled accuracy is their mean, weighted by prevalence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY, Unit, as_fractions, in_percent, parse_printed, round_down, round_up


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
        unit: of the three; None: per cent if one is above 1.

    Raises:
        ScoreError: no rates, mixed units, or a prevalence outside 0..1.
    """
    texts = {"accuracy": accuracy, "sensitivity": sensitivity, "specificity": specificity}
    numbers = {name: parse_printed(text) for name, text in texts.items() if text is not None}
    percent = in_percent(numbers, unit)
    rates = {name: as_fractions(name, number, percent) for name, number in numbers.items()}
    a_interval, se, sp = rates["accuracy"], rates["sensitivity"], rates.get("specificity", (0.0, 1.0))
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise ScoreError(f"A prevalence lies in 0..1, not {prevalence}")
    # accuracy - (w se + (1 - w) sp) can be 0 in the box iff both inequalities hold; each is linear in w.
    low, high = _half_line(sp[0] - a_interval[1], se[0] - sp[0], (0.0, 1.0))
    low, high = _half_line(a_interval[0] - sp[1], sp[1] - se[1], (low, high))
    possible = low <= high + TINY and (prevalence is None or low - 1e-9 <= prevalence <= high + 1e-9)
    mean_low, mean_high = max(0.0, se[0] + sp[0] - 1.0), min(1.0, se[1] + sp[1])
    mean_possible = mean_low <= a_interval[1] + TINY and mean_high >= a_interval[0] - TINY
    if possible:
        text = (
            f"Possible: they agree for a share of positives of {round_down(low, 3)} to {round_up(max(low, high), 3)}."
        )
    else:
        at = "any share of positives" if prevalence is None else f"a share of positives of {prevalence:g}"
        text = f"Pooled accuracy {accuracy} is impossible with {at}: it must lie between sensitivity and specificity"
        text += ", weighted by that share; " + (
            "means over images could still give it." if mean_possible else "means over images cannot give it either."
        )
    return RatesVerdict(
        prevalence=(low, max(low, high)) if low <= high + TINY else (float("nan"),) * 2,
        pooled_verdict="possible" if possible else "impossible",
        mean_verdict="possible" if mean_possible else "impossible",
        explanation=text,
    )


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
