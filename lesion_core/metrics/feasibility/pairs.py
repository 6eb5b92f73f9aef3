"""Can a published mean Dice and mean IoU be true together, and can the SD beside them?

For one image j = d / (2 - d), which is convex with j(0) = 0 and j(1) = 1. So for means over images (and
means of such means over seeds or classes) D / (2 - D) <= J <= D, and for pooled pixels J = D / (2 - D) exactly. A pair
above the lower bound needs spread between images: given D and J, the smallest spread is that of images of two kinds,
perfect ones (Dice 1) and equal bad ones (Dice x); hence ``least_sd``. The greatest is in ``spread``. Everything allows
for rounding of the printed numbers (half a unit of the last decimal).
The bounds hold for plain IoU and for one way of averaging in both columns; a thresholded IoU, or Dice and IoU averaged
differently, can break them, and then the table compares unlike things.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.feasibility.spread import greatest_dice_variance, greatest_sds
from lesion_core.metrics.printed import (
    TINY,
    Printed,
    Unit,
    as_fractions,
    in_percent,
    parse_printed,
    round_down,
    round_up,
)
from lesion_core.metrics.segmentation import JACCARD_THRESHOLD

Verdict = Literal["impossible", "possible", "possible only with spread"]


@dataclass(frozen=True)
class PairVerdict:
    """All numbers but the printed ones are fractions 0..1, whatever the unit of the input.

    Attributes:
        dice, iou: as printed; ``iou`` is None where Dice and its SD alone are judged.
        percent: the printed numbers are per cent.
        dice_interval, iou_interval: what may have been rounded to them.
        n: images, if known.
        verdict: of means over images, or of pooled pixels if the paper says so.
        reasons: why it is impossible; empty if it is not.
        iou_low, iou_high: bounds of the mean IoU, over the rounding interval of Dice (``iou_high`` uses n if known).
        pooled_high: D / (2 - D) of the greatest Dice: pooled pixels give an IoU from ``iou_low`` to this.
        pooled_possible: whether the printed IoU may have been rounded from such a one.
        least_sd: least standard deviation (divisor n) of per-image Dice with which the pair is possible, rounding
            in its favour; NaN if impossible.
        least_sd_printed: the same for the printed values as they stand; NaN if they are impossible.
        greatest_sd, greatest_sample_sd: the greatest, with divisor n and n - 1, rounding in its favour; NaN if
            impossible for any spread.
        least_share_below: least share of images with IoU under 0.65 (each by itself: the least SD and the least share
            need not be reached by the same images).
        least_images_below: the same as a number of images, if n is known.
        needs: what the images must be like, if the pair is possible only with spread.
        explanation: the verdict and why, bounds rounded outwards.
    """

    dice: Printed
    iou: Printed | None
    percent: bool
    dice_interval: tuple[float, float]
    iou_interval: tuple[float, float]
    n: int | None
    verdict: Verdict
    reasons: tuple[str, ...]
    iou_low: float
    iou_high: float
    pooled_high: float
    pooled_possible: bool
    least_sd: float
    least_sd_printed: float
    greatest_sd: float
    greatest_sample_sd: float
    least_share_below: float
    least_images_below: int | None
    needs: str
    explanation: str


def check_pair(
    dice: str, iou: str | None = None, n: int | None = None, *, unit: Unit | None = None, pooled: bool = False
) -> PairVerdict:
    """Judge a published pair of mean Dice and mean IoU, each with its SD or without; or mean Dice with an SD alone.

    Args:
        dice, iou: as printed, e.g. "94.27", "0.9427", "92,1 ± 0,3 %": the decimals say how it was rounded.
        n: number of images (of the values that an SD is over), if known.
        unit: of both; None: per cent if one is above 1.
        pooled: the paper computes both from pooled pixels.

    Raises:
        ScoreError: no printed number, a value outside 0..100 % (0..1), mixed units, an impossible n, or Dice alone.
    """
    numbers = {name: parse_printed(text) for name, text in (("Dice", dice), ("IoU", iou)) if text is not None}
    percent = in_percent(numbers, unit)
    intervals = {name: as_fractions(name, number, percent) for name, number in numbers.items()}
    if n is not None and n < 1:
        raise ScoreError(f"A mean needs at least one image, not {n}", remedy="give the number of images")
    d_printed, j_printed, d_interval = numbers["Dice"], numbers.get("IoU"), intervals["Dice"]
    if j_printed is None and d_printed.sd is None:
        raise ScoreError("Dice alone can always be true", remedy="give the IoU too, or an SD: '92.1 ± 0.3'")
    low, high = iou_of_dice(d_interval[0]), _greatest_iou(d_interval[1], n)
    pooled_high = iou_of_dice(d_interval[1])
    j_interval = intervals.get("IoU", (low, high))
    words = _Words(percent, max(number.decimals for number in numbers.values()) + 1)
    reasons = []
    if not low <= j_interval[1] + TINY or not j_interval[0] <= high + TINY:
        bounds = words.between(low, high)
        reasons.append(
            f"with that Dice a mean IoU lies within {bounds}, rounding allowed for, per image as well as pooled"
        )
    pooled_possible = low <= j_interval[1] + TINY and pooled_high >= j_interval[0] - TINY
    if pooled and not pooled_possible and not reasons:
        reasons.append(f"pooled pixels of that Dice give an IoU of {words.between(low, pooled_high)}")
    sd = share = printed_sd = greatest = greatest_sample = math.nan
    if not reasons:
        sd = least_sd(d_interval[1], j_interval[0])
        share = _least_share_in_box(d_interval, j_interval)
        greatest, greatest_sample = greatest_sds(*d_interval, n, greatest_dice_variance(d_interval, j_interval))
        reasons += words.too_large("Dice", d_printed, greatest, greatest_sample, n)
    if j_printed is not None:
        reasons += words.too_large("IoU", j_printed, *greatest_sds(*j_interval, n), n)
    if j_printed is not None and d_printed.exact and j_printed.exact:
        d, j = d_printed.value / words.factor, j_printed.value / words.factor
        printed_sd = least_sd(d, j) if iou_of_dice(d) <= j <= d else math.nan
    verdict: Verdict = "impossible" if reasons else "possible" if sd == 0.0 else "possible only with spread"
    images = None if n is None or math.isnan(share) else math.ceil(share * n - 1e-9)
    pair = " with ".join(f"{name} {words.printed(number)}" for name, number in numbers.items())
    needs = ""
    if verdict == "impossible":
        explanation = f"{pair} is arithmetically impossible: {'; '.join(reasons)}."
    elif verdict == "possible":
        explanation = f"{pair} is possible" + (", for pooled pixels too." if j_printed else ".")
    else:
        needs = words.needs(sd, printed_sd, share, images, n)
        explanation = f"{pair} is possible only if {needs}; pooled pixels cannot give it."
        if d_printed.sd_high is not None and d_printed.sd_high / words.factor < sd:
            explanation += " The printed SD is less: it may be one over runs, it is none over images."
    return PairVerdict(
        dice=d_printed,
        iou=j_printed,
        percent=percent,
        dice_interval=d_interval,
        iou_interval=j_interval,
        n=n,
        verdict=verdict,
        reasons=tuple(reasons),
        iou_low=low,
        iou_high=high,
        pooled_high=pooled_high,
        pooled_possible=pooled_possible,
        least_sd=sd,
        least_sd_printed=printed_sd,
        greatest_sd=greatest,
        greatest_sample_sd=greatest_sample,
        least_share_below=share,
        least_images_below=images,
        needs=needs,
        explanation=explanation,
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


@dataclass(frozen=True)
class _Words:
    """Numbers of a verdict in the paper's unit."""

    percent: bool
    decimals: int

    @property
    def factor(self) -> float:
        return 100.0 if self.percent else 1.0

    @property
    def unit(self) -> str:
        return " %" if self.percent else ""

    def printed(self, number: Printed) -> str:
        return number.text if number.percent else number.text + self.unit

    def between(self, low: float, high: float) -> str:
        low_text, high_text = (
            round_(value * self.factor, self.decimals) for round_, value in ((round_down, low), (round_up, high))
        )
        return f"{low_text} to {high_text}{self.unit}"

    def spread(self, sd: float, round_: Callable[[float, int], str] = round_down) -> str:
        return round_(sd * self.factor, 1 if self.percent else 3) + self.unit

    def too_large(self, name: str, number: Printed, greatest: float, sample: float, n: int | None) -> list[str]:
        """The reason why a printed SD is impossible, if it is: it exceeds even the sample SD (divisor n - 1)."""
        if number.sd is None or number.sd_low is None or number.sd_low / self.factor <= sample + 1e-9:
            return []
        images = "any number of" if n is None else n
        by_n, by_less = self.spread(greatest, round_up), self.spread(sample, round_up)
        return [
            f"an SD of {name} of {number.sd:g}{self.unit} is too large: over {images} images the means allow "
            f"a sample SD (divisor n - 1) of at most {by_less}, with divisor n {by_n}"
        ]

    def needs(self, sd: float, printed_sd: float, share: float, images: int | None, n: int | None) -> str:
        """What the images must be like."""
        text = f"per-image Dice has an SD of at least {self.spread(sd)}"
        if not math.isnan(printed_sd) and self.spread(printed_sd) != self.spread(sd):
            text += f" ({self.spread(printed_sd)} for the values as printed)"
        if share > 0.0:
            text += f" and {round_down(100 * share, 2)} % of images an IoU under {JACCARD_THRESHOLD}"
            text += "" if images is None else f" ({images} of {n})"
        return text
