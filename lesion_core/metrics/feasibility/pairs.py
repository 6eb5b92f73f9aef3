"""Can a published mean Dice and mean IoU be true together, and can the SD beside them?

For one image j = d / (2 - d), which is convex with j(0) = 0 and j(1) = 1. So for means over images (and
means of such means over seeds or classes) D / (2 - D) <= J <= D, and for pooled pixels J = D / (2 - D) exactly. A pair
above the lower bound needs spread between images, whose bounds are in ``spread``. Everything allows for rounding of the
printed numbers (half a unit of the last decimal).
The bounds hold for plain IoU and for one way of averaging in both columns; a thresholded IoU, or Dice and IoU averaged
differently, can break them, and then the table compares unlike things.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.feasibility.spread import Spread, least_sd, spread_of_dice, spread_of_iou
from lesion_core.metrics.printed import TINY, Printed, Unit, between, read_rates, round_down, round_up
from lesion_core.metrics.segmentation import JACCARD_THRESHOLD

Verdict = Literal["impossible", "possible", "possible only with spread", "SD not over images"]
SdOver = Literal["images", "runs"]
ELSE = "it may be one over runs, or a standard error"


@dataclass(frozen=True)
class PairVerdict:
    """Numbers are fractions 0..1, whatever the unit of the input.

    Attributes:
        dice, iou: as printed, with what may have been rounded to them; ``iou`` is None where Dice and its SD alone are
            judged.
        n: images, if known.
        verdict: of means over images, or of pooled pixels if the paper says so; "SD not over images": the means are
            possible, and the printed SD is too small to be one over images.
        why: why it is impossible, or what the images must be like; "" where nothing need be said.
        iou_low, iou_high: bounds of the mean IoU, over the rounding interval of Dice (``iou_high`` uses n if known).
        pooled_high: D / (2 - D) of the greatest Dice: pooled pixels give an IoU from ``iou_low`` to this.
        pooled_possible: whether the printed IoU may have been rounded from such a one.
        dice_sd, iou_sd: bounds of the SD over images.
        least_sd_printed: least SD of Dice for the printed values as they stand; NaN if they are impossible.
        least_share_below: least share of images with IoU under 0.65 (each by itself: the least SD and the least share
            need not be reached by the same images).
        least_images_below: the same as a number of images, if n is known.
        explanation: the verdict and why, bounds rounded outwards.
    """

    dice: Printed
    iou: Printed | None
    n: int | None
    verdict: Verdict
    why: str
    iou_low: float
    iou_high: float
    pooled_high: float
    pooled_possible: bool
    dice_sd: Spread
    iou_sd: Spread
    least_sd_printed: float
    least_share_below: float
    least_images_below: int | None
    explanation: str

    @property
    def percent(self) -> bool:
        """Whether one of the two is printed per cent."""
        return self.dice.percent or (self.iou is not None and self.iou.percent)


def check_pair(
    dice: str,
    iou: str | None = None,
    n: int | None = None,
    *,
    unit: Unit | None = None,
    pooled: bool = False,
    sd_over: SdOver | None = None,
) -> PairVerdict:
    """Judge a published pair of mean Dice and mean IoU, each with its SD or without; or mean Dice with an SD alone.

    Args:
        dice, iou: as printed, e.g. "94.27", "0.9427", "92,1 ± 0,3 %": the decimals say how it was rounded.
        n: number of images, if known.
        unit: of both; None: see ``read_rates``.
        pooled: the paper computes both from pooled pixels, so that no SD over images is left to judge.
        sd_over: what an SD is over. None, not said: then ``n`` counts what it is over, and one that is too small to be
            over images gets a verdict of its own.

    Raises:
        ScoreError: what ``read_rates`` refuses, an impossible n, or Dice alone.
    """
    numbers = read_rates({"Dice": dice, "IoU": iou}, unit, one_unit=True)
    if n is not None and n < 1:
        raise ScoreError(f"A mean needs at least one image, not {n}", remedy="give the number of images")
    if pooled and sd_over == "images":
        raise ScoreError("Pooled pixels have no SD over images", remedy="leave out --pooled or --sd-over images")
    d, j = numbers["Dice"], numbers.get("IoU")
    if j is None and (d.sd is None or pooled):
        raise ScoreError("Dice alone can always be true", remedy="give the IoU too, or an SD: '92.1 ± 0.3'")
    d_interval = (d.low, d.high)
    low, high, pooled_high = iou_of_dice(d.low), _greatest_iou(d.high, n), iou_of_dice(d.high)
    j_interval = (j.low, j.high) if j else (low, high)
    words = _Words(any(number.percent for number in numbers.values()), max(x.decimals for x in numbers.values()) + 1)
    pooled_possible = low <= j_interval[1] + TINY and pooled_high >= j_interval[0] - TINY
    reasons: list[str] = []
    small: list[str] = []
    sd = share = printed_sd = math.nan
    dice_sd = iou_sd = Spread()
    if not low <= j_interval[1] + TINY or not j_interval[0] <= high + TINY:
        bounds = between(low, high, words.decimals, percent=words.percent)
        reasons.append(
            f"with that Dice a mean IoU lies within {bounds}, rounding allowed for, per image as well as pooled"
        )
        if j_interval[1] < low and not pooled:
            reasons[0] += " (a thresholded Jaccard, ISIC 2018's official metric, is another quantity)"
    elif pooled and not pooled_possible:
        bounds = between(low, pooled_high, words.decimals, percent=words.percent)
        reasons.append(f"pooled pixels of that Dice give an IoU of {bounds}")
    else:
        dice_sd, iou_sd = spread_of_dice(d_interval, j_interval, n), spread_of_iou(d_interval, j_interval, n)
        sd, share = dice_sd.least, _least_share_in_box(d_interval, j_interval)
    if pooled:
        dice_sd = iou_sd = Spread()
    elif not reasons:
        limits, over = (dice_sd, iou_sd), f"{n or 'any number of'} images"
        if sd_over == "runs":  # the means over runs obey the same upper bounds; how many runs is not known
            limits = spread_of_dice(d_interval, j_interval), spread_of_iou(d_interval, j_interval)
            over = "any number of runs"
        for (name, number), limit in zip(numbers.items(), limits, strict=False):
            reasons += words.too_large(name, number, limit, over)
            small += words.too_small(name, number, limit) if sd_over != "runs" else ()
    if j and d.exact and j.exact and iou_of_dice(d.value) <= j.value <= d.value:
        printed_sd = least_sd(d.value, j.value)
    if small and sd_over == "images":
        reasons.append(f"the SD is too small to be one over images ({'; '.join(small)})")
    images = None if n is None or math.isnan(share) else math.ceil(share * n - 1e-9)
    pair = " with ".join(f"{name} {number.text}" for name, number in numbers.items())
    why = words.needs(sd, iou_sd.least, printed_sd, share, images, n) if sd > 0.0 else ""
    explanation = f"{pair} is possible only if {why}; pooled pixels cannot give it."
    verdict: Verdict = "possible only with spread"
    if reasons:
        verdict, why = "impossible", "; ".join(reasons)
        explanation = f"{pair} is arithmetically impossible: {why}."
    elif sd == 0.0:
        verdict = "possible"
        explanation = f"{pair} is possible" + (", for pooled pixels too." if j else ".")
    elif small:
        verdict, about = "SD not over images", f"the printed SD is none over images ({'; '.join(small)}): {ELSE}"
        why, explanation = f"{about}; {why}", f"{explanation} T{about[1:]}."
    dropped = [
        f"{name} ({words.sd(number.sd)})" for name, number in numbers.items() if pooled and number.sd is not None
    ]
    if dropped:
        told = f"not judged: the SD of {' and of '.join(dropped)}, for pooled pixels have none over images"
        why, explanation = "; ".join(filter(None, (why, told))), f"{explanation} N{told[1:]}."
    return PairVerdict(
        dice=d,
        iou=j,
        n=n,
        verdict=verdict,
        why=why,
        iou_low=low,
        iou_high=high,
        pooled_high=pooled_high,
        pooled_possible=pooled_possible,
        dice_sd=dice_sd,
        iou_sd=iou_sd,
        least_sd_printed=printed_sd,
        least_share_below=share,
        least_images_below=images,
        explanation=explanation,
    )


def iou_of_dice(dice: float) -> float:
    """j = d / (2 - d): exact for one image and for pooled pixels, the lower bound for means."""
    return dice / (2.0 - dice)


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

    def sd(self, sd: float, round_: Callable[[float, int], str] | None = None, beyond: float | None = None) -> str:
        """An SD given as a fraction; as it is, or a bound rounded, with decimals that show it apart from ``beyond``."""
        factor, unit, places = (100.0, " %", 1) if self.percent else (1.0, "", 3)
        if round_ is None:
            return f"{sd * factor:g}{unit}"
        apart = operator.gt if round_ is round_down else operator.lt
        while beyond is not None and places < 6 and not apart(float(round_(sd * factor, places)), beyond * factor):
            places += 1
        return round_(sd * factor, places) + unit

    def too_large(self, name: str, number: Printed, limit: Spread, over: str) -> Iterator[str]:
        """The reason why a printed SD is impossible, if it is: it exceeds even the sample SD (divisor n - 1)."""
        if number.sd is None or number.sd_low is None or number.sd_low <= limit.greatest_sample + 1e-9:
            return
        by_n = self.sd(limit.greatest, round_up)
        by_less = self.sd(limit.greatest_sample, round_up, number.sd_low)
        yield (
            f"an SD of {name} of {self.sd(number.sd)} is too large: over {over} the means allow "
            f"a sample SD (divisor n - 1) of at most {by_less}, with divisor n {by_n}"
        )

    def too_small(self, name: str, number: Printed, limit: Spread) -> Iterator[str]:
        """What a printed SD would have to be over images, if it is less."""
        if number.sd is not None and number.sd_high is not None and number.sd_high < limit.least - 1e-9:
            least = self.sd(limit.least, round_down, number.sd_high)
            yield f"{name}: {self.sd(number.sd)} means at most {self.sd(number.sd_high)}, images have at least {least}"

    def needs(self, dice: float, iou: float, printed: float, share: float, images: int | None, n: int | None) -> str:
        """What the images must be like."""
        text = f"per-image Dice has an SD of at least {self.sd(dice, round_down)}"
        if not math.isnan(printed) and self.sd(printed, round_down) != self.sd(dice, round_down):
            text += f" ({self.sd(printed, round_down)} for the values as printed)"
        text += f", per-image IoU one of at least {self.sd(iou, round_down)}"
        if share > 0.0:
            text += f", and {round_down(100 * share, 2)} % of images"
            text += "" if images is None else f" ({images} of {n})"
            text += f" an IoU under {JACCARD_THRESHOLD}, ISIC 2018's threshold of failure"
        return text
