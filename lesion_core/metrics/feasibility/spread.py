"""How little and how far can values in 0..1 with a known mean spread?

Of n values with mean m the variance (divisor n) is at most m (1 - m): all are 0 or 1, where n m is whole; else one lies
between. The sample SD (divisor n - 1) is sqrt(n / (n - 1)) times as large.

With mean Dice D and mean IoU J, the linear programme over distributions of d has its least variance on images of Dice
1 and of one Dice x: (D, J) lies on the chord from (x, j(x)) to (1, 1). The greatest is that of images of Dice 0 and of
one Dice x. What holds for Dice and IoU holds for 1 - IoU and 1 - Dice too, for 1 - d = (1 - j) / (2 - (1 - j)) as
j = d / (2 - d). So one set of formulae serves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Bounds of the SD of per-image values, rounding in its favour; NaN where no values fit.

    Attributes:
        least, greatest: with divisor n. greatest_sample: with divisor n - 1.
    """

    least: float = math.nan
    greatest: float = math.nan
    greatest_sample: float = math.nan


def spread_of_dice(dice: Interval, iou: Interval, n: int | None = None) -> Spread:
    """Bounds of the SD of Dice of ``n`` images (any number: None) with mean Dice and mean IoU in these intervals."""
    # of the means of Dice, those that a mean IoU allows: J <= D <= 2 J / (1 + J)
    low = max(dice[0], iou[0])
    high = max(low, min(dice[1], 2.0 * iou[1] / (1.0 + iou[1])))
    greatest = greatest_sds(low, high, n, greatest_dice_variance((low, high), iou))
    return Spread(least_sd(high, iou[0]), *greatest)


def spread_of_iou(dice: Interval, iou: Interval, n: int | None = None) -> Spread:
    """The same of IoU."""
    bad_dice, bad_iou = ((1.0 - high, 1.0 - low) for low, high in (dice, iou))
    return spread_of_dice(bad_iou, bad_dice, n)


def least_sd(dice: float, iou: float) -> float:
    """Least standard deviation (divisor n) of per-image Dice with mean Dice ``dice`` and mean IoU ``iou``, fractions.

    0.0 at or below the bound D / (2 - D).
    """
    e, f = 1.0 - dice, 1.0 - iou
    if e <= 0.0 or f <= 0.0:
        return 0.0
    return math.sqrt(max(0.0, e * (2.0 * e / f - 1.0 - e)))


def greatest_variance(low: float, high: float, n: int | None = None) -> float:
    """Greatest variance (divisor n) of ``n`` values in 0..1 (any number: None) with a mean in ``low``..``high``."""
    if n is None:
        mean = min(max(0.5, low), high)
        return mean * (1.0 - mean)

    def at(mean: float) -> float:
        ones = math.floor(mean * n + 1e-9)
        return (ones + (mean * n - ones) ** 2) / n - mean**2

    # between two whole n m the variance is convex in m: its greatest is at an end or at a whole number near n / 2
    first, last = math.ceil(low * n - 1e-9), math.floor(high * n + 1e-9)
    means = [low, high] + ([min(max(n // 2, first), last) / n] if first <= last else [])
    return max(0.0, *map(at, means))


def greatest_dice_variance(dice: Interval, iou: Interval) -> float:
    """Greatest variance (divisor n) of per-image Dice with mean Dice and mean IoU in these intervals.

    For means D and J, w x = D and w x / (2 - x) = J give x = 2 - D / J and the variance D (x - D), which grows with J
    and falls with D where D > J.
    """

    def at(mean: float) -> float:
        other = min(iou[1], mean)
        return mean * (2.0 - mean / other - mean) if other > 0 else 0.0

    return max(0.0, *(at(min(max(mean, dice[0]), dice[1])) for mean in (dice[0], iou[1], 0.5)))


def greatest_sds(low: float, high: float, n: int | None = None, variance: float = math.inf) -> tuple[float, float]:
    """Greatest SD with divisor n and with n - 1 of ``n`` values (two or more: None) with a mean in ``low``..``high``.

    Args:
        variance: another limit of the variance (divisor n).
    """
    population = min(greatest_variance(low, high, n), variance)
    if n == 1:
        return 0.0, 0.0
    if n is not None:
        return math.sqrt(population), math.sqrt(population * n / (n - 1))
    # few values gain by the divisor and lose by n m not being whole; beyond 100 the divisor gives at most 1 in 100
    few = [min(greatest_variance(low, high, count), variance) * count / (count - 1) for count in range(2, 101)]
    return math.sqrt(population), math.sqrt(max(*few, population * 101 / 100))
