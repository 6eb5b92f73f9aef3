"""Metrics of subgroups with intervals, and how far each lies from all images, under one set of resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesion_core.seeding import generator

CHUNK = 250  # resamples at a time: memory stays below 250 x images
MOST_UNDEFINED = 0.05
FEW_LESIONS = 20

# weights (R, n) of the images ``members`` -> metric -> (R,)
Statistic = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Subgroup:
    """One metric of one subgroup.

    Attributes:
        attribute, group, metric: which.
        n, lesions: images and lesions of the subgroup.
        value, low, high: with the percentile interval; NaN where it is not defined.
        gap, gap_low, gap_high: value minus that of all images; the interval is at the level corrected for the number
            of subgroups of the attribute (Bonferroni).
        flagged: the gap's interval excludes 0 and there are at least 20 lesions on both sides.
        note: why something is missing.
    """

    attribute: str
    group: str
    metric: str
    n: int
    lesions: int
    value: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    flagged: bool
    note: str


def subgroup_metrics(
    groups: Mapping[str, Sequence[str]],
    lesions: Sequence[str],
    statistic: Statistic,
    *,
    seed: int,
    resamples: int,
    alpha: float,
) -> list[Subgroup]:
    """Every metric of every subgroup; lesions are drawn with replacement, each with all its images.

    Args:
        groups: attribute -> (N,) the group of each image.
        lesions: (N,) lesion ids.
        statistic: metrics of many weightings of some images, e.g. ``weighted_scores`` bound to a run.
        seed, resamples, alpha: of the intervals.
    """
    names, index = np.unique(np.asarray(lesions), return_inverse=True)
    everyone = np.arange(len(index))
    members = {
        (attribute, name): np.flatnonzero(np.asarray(values) == name)
        for attribute, values in groups.items()
        for name in sorted(set(values))
    }
    whole = np.ones((1, len(index)))
    point = {key: _first(statistic(rows, whole[:, rows])) for key, rows in members.items()}
    point_all = _first(statistic(everyone, whole))
    drawn: dict[tuple[str, str], list[Mapping[str, np.ndarray]]] = {key: [] for key in members}
    drawn_all: list[Mapping[str, np.ndarray]] = []
    rng = generator(seed, "subgroups")
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        copies = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
        weights = copies[:, index].astype(np.float64)
        drawn_all.append(statistic(everyone, weights))
        for key, rows in members.items():
            drawn[key].append(statistic(rows, weights[:, rows]))
    results = []
    for key, rows in members.items():
        attribute, name = key
        rivals = sum(other == attribute for other, _ in members)
        inside, outside = len(set(index[rows])), len(set(np.delete(index, rows)))
        for metric, value in point[key].items():
            own = np.concatenate([part[metric] for part in drawn[key]])
            gaps = own - np.concatenate([part[metric] for part in drawn_all])
            low, high = _interval(own, alpha)
            gap_low, gap_high = _interval(gaps, alpha / rivals)
            enough = min(inside, outside) >= FEW_LESIONS
            apart = gap_low > 0 or gap_high < 0
            results.append(
                Subgroup(
                    attribute=attribute,
                    group=name,
                    metric=metric,
                    n=len(rows),
                    lesions=inside,
                    value=value,
                    low=low,
                    high=high,
                    gap=value - point_all[metric],
                    gap_low=gap_low,
                    gap_high=gap_high,
                    flagged=bool(enough and apart),
                    note=_note(value, low, inside),
                )
            )
    return results


def _first(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in values.items()}


def _interval(drawn: np.ndarray, alpha: float) -> tuple[float, float]:
    """Percentile interval of the resamples that define the metric; NaN where more than one in 20 do not."""
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(drawn):
        return math.nan, math.nan
    low, high = np.quantile(defined, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _note(value: float, low: float, lesions: int) -> str:
    if math.isnan(value):
        return "not defined: one class alone"
    if math.isnan(low):
        return "no interval: too many resamples leave one class alone"
    return f"{lesions} lesions are few" if lesions < FEW_LESIONS else ""
