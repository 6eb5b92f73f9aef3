"""Can published numbers be true together? Arithmetic alone decides; no data are needed.

Dice and IoU. For one image j = d / (2 - d), which is convex with j(0) = 0 and j(1) = 1. So for means over images (and
means of such means over seeds or classes) D / (2 - D) <= J <= D, and for pooled pixels J = D / (2 - D) exactly. A pair
above the lower bound needs spread between images: given D and J, the smallest spread is that of images of two kinds,
perfect ones (Dice 1) and equal bad ones (Dice x); hence ``least_sd``. Everything allows for rounding of the printed
numbers (half a unit of the last decimal); truncated numbers are not catered for.
The bounds hold for plain IoU and for one way of averaging in both columns; a thresholded IoU, or Dice and IoU averaged
differently, can break them, and then the table compares unlike things.

Effects. With n pairs t = d_z sqrt(n), and p follows from t with n - 1 degrees of freedom.
Rates. For pooled samples accuracy = prevalence * sensitivity + (1 - prevalence) * specificity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.metrics.segmentation import JACCARD_THRESHOLD

Verdict = Literal["impossible", "possible", "possible only with spread"]
TINY = 1e-12


@dataclass(frozen=True)
class PairVerdict:
    """All numbers are fractions 0..1, whatever the unit of the input.

    Attributes:
        dice, iou: as printed. dice_interval, iou_interval: what may have been rounded to them.
        n: images, if known.
        verdict: of means over images.
        iou_low, iou_high: bounds of the mean IoU, over the rounding interval of Dice (``iou_high`` uses n if known).
        gap: how far the IoU lies outside the bounds; 0.0 if inside.
        pooled_iou: D / (2 - D), what pooled pixels would give.
        pooled_possible: whether the printed IoU is that, up to rounding.
        least_sd: least standard deviation (divisor n) of per-image Dice with which the pair is possible, rounding
            in its favour; NaN if impossible.
        least_sd_printed: the same for the printed values as they stand; NaN if they are impossible.
        least_share_below: least share of images with IoU under 0.65 (each by itself: the least SD and the least share
            need not be reached by the same images).
        least_images_below: the same as a number of images, if n is known.
        explanation: one sentence.
    """

    dice: float
    iou: float
    dice_interval: tuple[float, float]
    iou_interval: tuple[float, float]
    n: int | None
    verdict: Verdict
    iou_low: float
    iou_high: float
    gap: float
    pooled_iou: float
    pooled_possible: bool
    least_sd: float
    least_sd_printed: float
    least_share_below: float
    least_images_below: int | None
    explanation: str


def check_pair(
    dice: float,
    iou: float,
    n: int | None = None,
    decimals: int = 2,
    percent: bool = True,
    iou_decimals: int | None = None,
) -> PairVerdict:
    """Judge a published pair of mean Dice and mean IoU.

    Args:
        dice, iou: as printed.
        n: number of images, if known.
        decimals: printed decimals (of Dice, and of IoU unless ``iou_decimals`` is given).
        percent: True if 94.27 is printed, False if 0.9427.

    Raises:
        ScoreError: a value outside 0..100 (0..1), or an impossible n or number of decimals.
    """
    d, d_interval = _printed(dice, decimals, percent, "Dice")
    j, j_interval = _printed(iou, decimals if iou_decimals is None else iou_decimals, percent, "IoU")
    if n is not None and n < 1:
        raise ScoreError(f"A mean needs at least one image, not {n}")
    low, high = iou_of_dice(d_interval[0]), _greatest_iou(d_interval[1], n)
    gap = max(0.0, low - j_interval[1], j_interval[0] - high)
    pooled_possible = low <= j_interval[1] + TINY and iou_of_dice(d_interval[1]) >= j_interval[0] - TINY
    sd = share = printed_sd = float("nan")
    if gap <= TINY:
        sd = least_sd(d_interval[1], j_interval[0])
        share = _least_share_in_box(d_interval, j_interval)
    if iou_of_dice(d) <= j <= d:
        printed_sd = least_sd(d, j)
    verdict: Verdict = "impossible" if gap > TINY else "possible" if sd == 0.0 else "possible only with spread"
    images = None if n is None or math.isnan(share) else math.ceil(share * n - 1e-9)
    return PairVerdict(
        dice=d,
        iou=j,
        dice_interval=d_interval,
        iou_interval=j_interval,
        n=n,
        verdict=verdict,
        iou_low=low,
        iou_high=high,
        gap=gap if gap > TINY else 0.0,
        pooled_iou=iou_of_dice(d),
        pooled_possible=pooled_possible,
        least_sd=sd,
        least_sd_printed=printed_sd,
        least_share_below=share,
        least_images_below=images,
        explanation=_explain_pair(dice, iou, percent, verdict, low, high, sd, printed_sd, share, images, n),
    )


def iou_of_dice(dice: float) -> float:
    """j = d / (2 - d): exact for one image and for pooled pixels, the lower bound for means."""
    return dice / (2.0 - dice)


def least_sd(dice: float, iou: float) -> float:
    """Least standard deviation (divisor n) of per-image Dice with mean Dice ``dice`` and mean IoU ``iou``, fractions.

    The linear programme over distributions of d has its optimum on images of Dice 1 and of one Dice x: (D, J) lies
    on the chord from (x, j(x)) to (1, 1), whose slope is 2 / (2 - x). 0.0 at or below the bound D / (2 - D).
    """
    e, f = 1.0 - dice, 1.0 - iou
    if e <= 0.0 or f <= 0.0:
        return 0.0
    return math.sqrt(max(0.0, e * (2.0 * e / f - 1.0 - e)))


def least_share_below(dice: float, iou: float, threshold: float = JACCARD_THRESHOLD) -> float:
    """Least share of images with IoU under ``threshold`` among images of mean Dice ``dice`` and mean IoU ``iou``.

    The linear programme's optimum in closed form. Let d0 be the Dice of the threshold. Above the chord from (0, 0) to
    (d0, threshold) the images are of Dice 0, d0 and 1; below it of d0 and of one Dice x.
    NaN outside D / (2 - D) <= J <= D.
    """
    d0, j0 = 2.0 * threshold / (1.0 + threshold), threshold
    if not iou_of_dice(dice) - TINY <= iou <= dice + TINY:
        return float("nan")
    if dice >= d0 and iou <= j0 + (dice - d0) * (1.0 - j0) / (1.0 - d0):
        return 0.0
    if iou * d0 >= j0 * dice:
        at_threshold = (dice - iou) / (d0 - j0)
        return max(0.0, 1.0 - at_threshold - (iou - j0 * at_threshold))
    slope = (j0 - iou) / (d0 - dice)
    x = 2.0 * (d0 - j0 / slope) / d0
    return min(1.0, (d0 - dice) / (d0 - x))


def _greatest_iou(dice: float, n: int | None) -> float:
    """The greatest mean IoU of a mean Dice: images of Dice 1 and 0, and with n images one between them."""
    if n is None:
        return dice
    perfect = math.floor(dice * n + TINY)
    return (perfect + iou_of_dice(max(0.0, dice * n - perfect))) / n


def _least_share_in_box(d_interval: tuple[float, float], j_interval: tuple[float, float]) -> float:
    """Least of ``least_share_below`` over the rounding intervals (it is convex, so ternary search by Dice is exact)."""
    d0, j0 = 2.0 * JACCARD_THRESHOLD / (1.0 + JACCARD_THRESHOLD), JACCARD_THRESHOLD

    def at(dice: float) -> float:
        low, high = max(j_interval[0], iou_of_dice(dice)), min(j_interval[1], dice)
        # For one Dice the share falls up to this chord, then rises; no image is under the threshold along it past d0.
        turn = dice * j0 / d0 if dice < d0 else low
        return least_share_below(dice, min(max(turn, low), high))

    left = max(d_interval[0], j_interval[0])
    right = min(d_interval[1], 2.0 * j_interval[1] / (1.0 + j_interval[1]))
    if left >= right:
        return at((left + right) / 2.0)
    ends = min(at(left), at(right))
    while right - left > 1e-12:
        a, b = left + (right - left) / 3.0, right - (right - left) / 3.0
        left, right = (left, b) if at(a) <= at(b) else (a, right)
    return min(ends, at((left + right) / 2.0))


def _explain_pair(
    dice: float,
    iou: float,
    percent: bool,
    verdict: Verdict,
    low: float,
    high: float,
    sd: float,
    printed_sd: float,
    share: float,
    images: int | None,
    n: int | None,
) -> str:
    factor, unit = (100.0, " %") if percent else (1.0, "")
    pair = f"Dice {dice:g}{unit} with IoU {iou:g}{unit}"
    if verdict == "impossible":
        bounds = f"{low * factor:.4g} to {high * factor:.4g}{unit}"
        return (
            f"{pair} is arithmetically impossible: with that Dice a mean IoU lies within {bounds}, "
            "rounding allowed for, per image as well as pooled."
        )
    if verdict == "possible":
        return f"{pair} is possible, with any spread between images and for pooled pixels too."
    text = f"{pair} is possible only if per-image Dice has an SD of at least {_floor3(sd):.3f}"
    if not math.isnan(printed_sd) and _floor3(printed_sd) > _floor3(sd):
        text += f" ({_floor3(printed_sd):.3f} for the values as printed)"
    if share > 0.0:
        text += f" and {100 * share:.2g} % of images an IoU under {JACCARD_THRESHOLD}"
        text += "" if images is None else f" ({images} of {n})"
    return text + "; pooled pixels cannot give it."


@dataclass(frozen=True)
class EffectVerdict:
    """What n seeds (or images) allow a paired comparison to claim.

    Attributes:
        n, alpha: pairs and level.
        d_z, t, p: implied by what was given, as intervals (least, greatest in size) after rounding; NaN if nothing was
            given that fixes them. p falls as |t| grows: ``p`` is (least, greatest).
        critical_d_z: |d_z| beyond which p < alpha. smallest_p_wilcoxon: 2 / 2^n.
        least_correlation: least correlation between the methods' scores with which a standardised difference of the
            given size *by the SD of the scores* (d_av) has p < alpha; NaN without d or with no need for one.
        verdict: "impossible" if the claims contradict each other or n.
        explanation: one sentence.
    """

    n: int
    alpha: float
    d_z: tuple[float, float]
    t: tuple[float, float]
    p: tuple[float, float]
    critical_d_z: float
    smallest_p_wilcoxon: float
    least_correlation: float
    verdict: Literal["impossible", "possible"]
    explanation: str


def check_effect(
    n: int,
    *,
    d: float | None = None,
    t: float | None = None,
    p_below: float | None = None,
    test: Literal["t", "wilcoxon"] = "t",
    decimals: int = 2,
    alpha: float = 0.05,
) -> EffectVerdict:
    """Judge a published paired test of n pairs: are d_z, t and "p < p_below" possible together?

    Args:
        n: pairs (seeds, images), at least 2.
        d: Cohen's d of the paired differences (d_z), as printed.
        t: t statistic, as printed.
        p_below: the claim p < p_below. test: which test claims it; for "wilcoxon" only n counts.
        decimals: printed decimals of d and t.
    """
    if n < 2 or not 0 < alpha < 1:
        raise ScoreError(f"A paired test needs 2 pairs and 0 < alpha < 1, not n = {n}, alpha = {alpha}")
    if p_below is not None and not 0 < p_below <= 1:
        raise ScoreError(f"p < {p_below} is no claim")
    from scipy.special import stdtr, stdtrit

    half, root = 0.5 * 10.0**-decimals, math.sqrt(n)
    smallest = min(1.0, 2.0 ** (1 - n))
    critical = float(stdtrit(n - 1, 1 - alpha / 2)) / root
    by_d = (max(0.0, abs(d) - half), abs(d) + half) if d is not None else (0.0, math.inf)
    by_t = (max(0.0, abs(t) - half) / root, (abs(t) + half) / root) if t is not None else (0.0, math.inf)
    low, high = max(by_d[0], by_t[0]), min(by_d[1], by_t[1])
    nothing = d is None and t is None
    p_range = (float("nan"),) * 2 if nothing else tuple(float(2 * stdtr(n - 1, -x * root)) for x in (high, low))
    reasons = []
    if low > high:
        reasons.append(f"t = {t:g} gives d_z = {abs(t) / root:.3g} with n = {n}, not {abs(d):g}")
    if p_below is not None and test == "wilcoxon" and smallest >= p_below:
        reasons.append(f"a two-sided Wilcoxon test of {n} pairs cannot go below p = {smallest:g}")
    if p_below is not None and test == "t" and not nothing and low <= high and p_range[0] >= p_below:
        given = f"d_z = {d:g}" if d is not None else f"t = {t:g}"
        reasons.append(f"{given} with {n} pairs gives p = {p_range[0]:.3g} at best")
    correlation = float("nan")
    if d is not None and 0 < abs(d) < critical:
        correlation = 1.0 - (abs(d) / critical) ** 2 / 2.0
    if reasons:
        explanation = "Impossible: " + "; ".join(reasons)
        if test == "t" and not math.isnan(correlation):
            explanation += f" (a d by the scores' own SD would need a correlation of at least {correlation:.3f})"
    else:
        explanation = f"Possible; with {n} pairs p < {alpha:g} needs |d_z| > {critical:.3f} in a paired t test"
        explanation += f" and a Wilcoxon test cannot go below p = {smallest:.3g}"
    return EffectVerdict(
        n=n,
        alpha=alpha,
        d_z=(float("nan"),) * 2 if nothing else (low, high),
        t=(float("nan"),) * 2 if nothing else (low * root, high * root),
        p=p_range,
        critical_d_z=critical,
        smallest_p_wilcoxon=smallest,
        least_correlation=correlation,
        verdict="impossible" if reasons else "possible",
        explanation=explanation + ".",
    )


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
    accuracy: float,
    sensitivity: float,
    specificity: float,
    *,
    prevalence: float | None = None,
    decimals: int = 2,
    percent: bool = True,
) -> RatesVerdict:
    """Judge published accuracy, sensitivity and specificity of a two-class task.

    Args:
        accuracy, sensitivity, specificity: as printed, with ``decimals`` decimals.
        prevalence: share of positives 0..1 if known (exactly), e.g. the lesions' share of pixels.
        percent: True if 94.27 is printed, False if 0.9427.
    """
    a, a_interval = _printed(accuracy, decimals, percent, "accuracy")
    _, se = _printed(sensitivity, decimals, percent, "sensitivity")
    _, sp = _printed(specificity, decimals, percent, "specificity")
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise ScoreError(f"A prevalence lies in 0..1, not {prevalence}")
    # accuracy - (w se + (1 - w) sp) can be 0 in the box iff both inequalities hold; each is linear in w.
    low, high = _half_line(sp[0] - a_interval[1], se[0] - sp[0], (0.0, 1.0))
    low, high = _half_line(a_interval[0] - sp[1], sp[1] - se[1], (low, high))
    possible = low <= high + TINY and (prevalence is None or low - 1e-9 <= prevalence <= high + 1e-9)
    mean_low, mean_high = max(0.0, se[0] + sp[0] - 1.0), min(1.0, se[1] + sp[1])
    mean_possible = mean_low <= a_interval[1] + TINY and mean_high >= a_interval[0] - TINY
    if possible:
        text = f"Possible: they agree for a share of positives of {low:.3g} to {max(low, high):.3g}."
    else:
        at = "any share of positives" if prevalence is None else f"a share of positives of {prevalence:g}"
        text = f"Pooled accuracy {a:.4g} is impossible with {at}: it must lie between sensitivity and specificity"
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


def _printed(value: float, decimals: int, percent: bool, name: str) -> tuple[float, tuple[float, float]]:
    """A printed number as a fraction, and the interval it may have been rounded from."""
    factor = 100.0 if percent else 1.0
    if not (np.isfinite(value) and 0.0 <= value <= factor):
        raise ScoreError(f"{name} {value} lies outside 0..{factor:g}", remedy="say percent=True or False")
    if not 0 <= decimals <= 12:
        raise ScoreError(f"{decimals} printed decimals")
    half = 0.5 * 10.0**-decimals / factor
    fraction = value / factor
    return fraction, (max(0.0, fraction - half), min(1.0, fraction + half))


def _floor3(value: float) -> float:
    """Rounded down to 3 decimals: "at least" stays true."""
    return math.floor(value * 1000.0) / 1000.0
