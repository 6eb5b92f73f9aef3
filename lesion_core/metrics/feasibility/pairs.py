"""Can a published mean Dice and mean IoU be true together?

For one image j = d / (2 - d), which is convex with j(0) = 0 and j(1) = 1. So for means over images (and
means of such means over seeds or classes) D / (2 - D) <= J <= D, and for pooled pixels J = D / (2 - D) exactly. A pair
above the lower bound needs spread between images: given D and J, the smallest spread is that of images of two kinds,
perfect ones (Dice 1) and equal bad ones (Dice x); hence ``least_sd``. Everything allows for rounding of the printed
numbers (half a unit of the last decimal).
The bounds hold for plain IoU and for one way of averaging in both columns; a thresholded IoU, or Dice and IoU averaged
differently, can break them, and then the table compares unlike things.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError
from lesion_core.metrics.feasibility.printed import TINY, printed_interval
from lesion_core.metrics.segmentation import JACCARD_THRESHOLD

Verdict = Literal["impossible", "possible", "possible only with spread"]


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
    d, d_interval = printed_interval(dice, decimals, percent, "Dice")
    j, j_interval = printed_interval(iou, decimals if iou_decimals is None else iou_decimals, percent, "IoU")
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


def _floor3(value: float) -> float:
    """Rounded down to 3 decimals: "at least" stays true."""
    return math.floor(value * 1000.0) / 1000.0
