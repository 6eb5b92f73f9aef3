"""Can published effect sizes, t and p be true together? With n pairs t = d_z sqrt(n); p follows with n - 1 df."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr, stdtrit

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import TINY, Printed, parse_printed, round_down

Interval = tuple[float, float]
ANY = (0.0, math.inf)


@dataclass(frozen=True)
class EffectVerdict:
    """What n seeds (or images) allow a paired comparison to claim.

    Attributes:
        n: pairs.
        d_z, t, p: implied by d and t, as intervals (least, greatest in size) after rounding; NaN if neither was
            given. p falls as |t| grows: ``p`` is (least, greatest).
        critical_d_z: |d_z| that the claimed p needs, or p < alpha where none is claimed.
        smallest_p_wilcoxon: 2 / 2^n.
        least_correlation: where d is too small to be d_z: the least correlation between the methods' scores with which
            it can be a difference in SDs *of the scores* (d_av), rounding in its favour; else NaN.
        verdict: "impossible" if the claims contradict each other or n.
        explanation: one sentence.
    """

    n: int
    d_z: Interval
    t: Interval
    p: Interval
    critical_d_z: float
    smallest_p_wilcoxon: float
    least_correlation: float
    verdict: Literal["impossible", "possible"]
    explanation: str


def check_effect(
    n: int,
    *,
    d: str | None = None,
    t: str | None = None,
    p: str | None = None,
    p_below: str | None = None,
    test: Literal["t", "wilcoxon"] = "t",
    alpha: float = 0.05,
) -> EffectVerdict:
    """Judge a published paired test of n pairs: are d_z, t and p possible together?

    Args:
        n: pairs (seeds, images), at least 2.
        d: Cohen's d of the paired differences (d_z), as printed: "0.89", ">0.8".
        t: t statistic, as printed.
        p: two-sided p, as printed: "0.049", "<0.001".
        p_below: the claim p < p_below: "0.001".
        test: which test gives p; for "wilcoxon" only n counts.
        alpha: the level that is explained where no p is claimed.

    Raises:
        ScoreError: a text that is no printed number, no p in 0..1, or an n or alpha that no test has.
    """
    if n < 2 or not 0 < alpha < 1:
        raise ScoreError(f"A paired test needs 2 pairs and 0 < alpha < 1, not n = {n}, alpha = {alpha}")
    root = math.sqrt(n)
    judged = p is not None or p_below is not None
    claimed, claim = _claimed(p, p_below if judged else f"{alpha:g}")
    smallest = min(1.0, 2.0 ** (1 - n))
    by_d = ANY if d is None else _size(d)
    by_t = ANY if t is None else _scaled(_size(t), 1 / root)
    needed = _scaled((_quantile(n, claimed[1]), _quantile(n, claimed[0])), 1 / root)  # |d_z| of the claimed p
    by_p = needed if judged and test == "t" and claimed[0] <= claimed[1] else ANY
    given = d is not None or t is not None
    implied = (max(by_d[0], by_t[0]), min(by_d[1], by_t[1])) if given else (math.nan, math.nan)
    reasons, correlation = [], math.nan
    if claimed[0] > claimed[1]:
        reasons.append(f"{claim} contradict each other")
    if test == "wilcoxon" and judged and smallest >= claimed[1]:
        reasons.append(f"a two-sided Wilcoxon test of {n} pairs cannot go below p = {smallest:g}, and {claim}")
    if not _meet(by_t, by_p):
        reasons.append(f"t = {t} with {n} pairs gives p = {_span(_p_of(n, _scaled(by_t, root)))}, not {claim}")
    settled = not reasons
    if not _meet(by_d, by_t):
        reasons.append(f"t = {t} gives d_z = {_span(by_t)} with n = {n}, not {d}")
    if not _meet(by_d, by_p):
        low, high = _p_of(n, _scaled(by_d, root))
        gives = f"a d up to {by_d[1]:g} gives p = {low:.3g} at best"
        if by_d[0] > by_p[1]:
            gives = f"a d from {by_d[0]:g} gives p = {high:.3g} at most"
        reasons.append(f"with {n} pairs {claim} needs {_sizes(by_p)}, and {gives}")
    if settled and reasons and by_d[1] < (least := max(by_t[0], by_p[0])):
        correlation = 1.0 - (by_d[1] / least) ** 2 / 2.0
    if not reasons:
        explanation = f"Possible; with {n} pairs {claim} needs {_sizes(needed)} in a paired t test"
        explanation += f" and a Wilcoxon test cannot go below p = {smallest:.3g}"
    elif math.isnan(correlation):
        explanation = f"Impossible: {'; '.join(reasons)}"
    else:
        explanation = "Impossible as d_z; as d by the scores' own SD only with a correlation of at least "
        explanation += f"{round_down(correlation, 3)}: {'; '.join(reasons)}"
    return EffectVerdict(
        n=n,
        d_z=implied,
        t=_scaled(implied, root),
        p=_p_of(n, _scaled(implied, root)),
        critical_d_z=needed[0],
        smallest_p_wilcoxon=smallest,
        least_correlation=correlation,
        verdict="impossible" if reasons else "possible",
        explanation=explanation + ".",
    )


def _claimed(p: str | None, p_below: str | None) -> tuple[Interval, str]:
    """The interval of p that is claimed, and the claim in words."""
    low, high, words = 0.0, 1.0, []
    for text, is_below in ((p, False), (p_below, True)):
        if text is None:
            continue
        number = parse_printed(text)
        if not 0 <= number.value <= 1 or (is_below and number.value == 0):
            raise ScoreError(f"p = {text} lies outside 0..1", remedy="give p as printed: 0.049 or <0.001")
        if is_below or number.low == -math.inf:
            high = min(high, number.value)
            words.append(f"p < {number.value:g}")
        elif number.high == math.inf:
            low = max(low, number.value)
            words.append(f"p > {number.value:g}")
        else:
            low, high = max(low, number.low), min(high, number.high)
            words.append(f"p = {number.text}")
    return (low, high), " and ".join(words)


def _size(text: str) -> Interval:
    """What |d| or |t| may have been, of a printed one with its sign."""
    number: Printed = parse_printed(text)
    low, high = (number.low, number.high) if number.value >= 0 else (-number.high, -number.low)
    return max(0.0, low), high


def _scaled(interval: Interval, factor: float) -> Interval:
    return interval[0] * factor, interval[1] * factor


def _meet(first: Interval, second: Interval) -> bool:
    return max(first[0], second[0]) <= min(first[1], second[1]) + TINY


def _quantile(n: int, p: float) -> float:
    """|t| of a two-sided p in 0..1 with n pairs."""
    return max(0.0, -float(stdtrit(n - 1, min(p, 1.0) / 2))) if p > 0 else math.inf


def _p_of(n: int, t: Interval) -> Interval:
    """(least, greatest) two-sided p of an interval of |t|."""
    return float(2 * stdtr(n - 1, -t[1])), float(2 * stdtr(n - 1, -t[0]))


def _sizes(d_z: Interval) -> str:
    low, high = d_z
    return f"|d_z| > {low:.3f}" if high == math.inf else f"|d_z| from {low:.3f} to {high:.3f}"


def _span(interval: Interval) -> str:
    low, high = (f"{value:.3g}" for value in interval)
    return low if low == high else f"{low} to {high}"
