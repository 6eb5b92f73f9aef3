"""The papers' numbers, one by one, from their tables and claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lesion_core.metrics.feasibility.effects import EffectVerdict, check_effect
from lesion_core.metrics.feasibility.pairs import PairVerdict, check_pair
from lesion_core.metrics.printed import Unit
from lesion_core.settings import Plan
from lesion_core.settings.paper import UNITS, Claim, Printed, Table


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        paper, table, row: where it stands; (table, row, metric) is unique.
        dataset: a name of ``settings.DATASETS``, or ``isic_unspecified``.
        metric: a rate, or a key of ``paper.UNITS``; ``p_below`` is the claim p < value.
        value: in ``unit``: percent (0..100), fraction (0..1), effect_size, p or million; None for a bound or a range.
        low, high: what the printed text allows; equal to ``value`` for a number, infinite where a bound is open.
        averaging: as stated, None if not stated.
        n: images (seeds for effect_size and p), None if not stated.
        proposed: the row is the paper's own method.
        where: the place in the text.
        printed: as printed; ``decimals`` counts its decimals.
    """

    paper: str
    table: str
    row: str
    dataset: str
    metric: str
    value: float | None
    low: float
    high: float
    unit: str
    averaging: str | None
    n: int | None
    proposed: bool
    where: str | None
    printed: str

    @property
    def decimals(self) -> int:
        """Printed decimals: 1 for "85.0"."""
        return len(_mean(self.printed).partition(".")[2])


@dataclass(frozen=True)
class PublishedPair:
    """Mean Dice of one row with its mean IoU or its SD, and whether they can be true together."""

    dice: Published
    iou: Published | None
    verdict: PairVerdict


@dataclass(frozen=True)
class PublishedEffect:
    """A claim p < value and a Cohen's d of the same table and number of pairs; one of both may be missing.

    Attributes:
        t, wilcoxon: whether a paired t test and a Wilcoxon test of so many pairs allow it.
    """

    claim: Published | None
    d: Published | None
    t: EffectVerdict
    wilcoxon: EffectVerdict


def published_numbers(plan: Plan) -> list[Published]:
    """All numbers of the plan's papers, table by table, then those of their prose."""
    numbers = [item for name, table in plan.tables.items() for item in of_table(name, table)]
    for paper, claims in plan.claims.items():
        numbers += [item for claim in claims for item in of_claim(paper, claim, plan.tables)]
    return numbers


def of_table(name: str, table: Table) -> list[Published]:
    """The numbers of one table's rows, in order."""
    return [_number(table.paper, name, table, row, metric) for row in table.rows for metric in row.published]


def of_claim(paper: str, claim: Claim, tables: Mapping[str, Table]) -> list[Published]:
    """The numbers of a claim in the prose."""
    table = tables.get(claim.table)
    return [_number(paper, claim.table, table, claim, metric) for metric in claim.published]


def _number(paper: str, name: str, table: Table | None, row: Printed, metric: str) -> Published:
    printed = row.published[metric]
    unit = UNITS.get(metric) or row.unit or (table and table.units.get(metric, table.unit)) or "percent"
    own = table and metric in ("dice", "iou") and table.segmentation_dataset
    # a row or claim says what it leaves to its table
    on = row.published_on or (table and table.published_on)
    dataset = on or row.dataset or own or (table.dataset if table else "")
    averaging, n, where = (
        getattr(row, key) if getattr(row, key) is not None or table is None else getattr(table, key)
        for key in ("averaging", "n", "where")
    )
    value, low, high = _read(printed)
    return Published(
        paper, name, row.label, dataset, metric, value, low, high, unit, averaging, n, row.proposed, where, printed
    )


def _read(printed: str) -> tuple[float | None, float, float]:
    """(value, low, high) of a printed number, bound or range."""
    if printed[0] in "<>":
        bound = float(printed[1:])
        return (None, bound, float("inf")) if printed[0] == ">" else (None, float("-inf"), bound)
    first, dash, second = _mean(printed).partition("-")
    if dash:
        return None, float(first), float(second)
    return float(first), float(first), float(first)


def _mean(printed: str) -> str:
    """The mean of "94.8 ± 2.1"."""
    return printed.partition("±")[0].strip()


def pairs(numbers: Iterable[Published]) -> list[PublishedPair]:
    """All rows that publish Dice with IoU or with an SD, on one dataset, with the verdict of ``check_pair``."""
    by_row: dict[tuple[str, ...], dict[str, Published]] = {}
    for number in numbers:
        if number.metric in ("dice", "iou", "dice_sd"):
            by_row.setdefault((number.table, number.row, number.dataset), {})[number.metric] = number
    result = []
    for own in by_row.values():
        dice, iou, sd = own.get("dice"), own.get("iou"), own.get("dice_sd")
        if dice is None:
            continue
        text = f"{dice.printed} ± {sd.printed}" if sd and "±" not in dice.printed else dice.printed
        if iou is None and "±" not in text:
            continue
        unit: Unit = "percent" if dice.unit == "percent" else "fraction"
        verdict = check_pair(text, iou.printed if iou else None, dice.n, unit=unit)
        result.append(PublishedPair(dice, iou, verdict))
    return result


def effects(numbers: Iterable[Published]) -> list[PublishedEffect]:
    """Every claim p < value with each d of its table and number of pairs, or alone; then each d without a claim."""
    told = [number for number in numbers if number.metric in ("p_below", "cohens_d") and number.n is not None]
    sizes = [number for number in told if number.metric == "cohens_d"]
    met: list[tuple[Published | None, Published | None]] = []
    for claim in (number for number in told if number.metric == "p_below"):
        key = (claim.paper, claim.table, claim.n)
        own = [d for d in sizes if (d.paper, d.table, d.n) == key]
        met += [(claim, d) for d in own] or [(claim, None)]
    met += [(None, d) for d in sizes if all(d is not other for _, other in met)]
    return [_judged(claim, d) for claim, d in met]


def _judged(claim: Published | None, d: Published | None) -> PublishedEffect:
    n = next(item.n for item in (claim, d) if item is not None and item.n is not None)
    # a claim for all of a range holds for its least value too
    size, below = d.printed.partition("-")[0] if d else None, claim.printed if claim else None
    ranks = check_effect(n, p_below=below, test="wilcoxon")
    return PublishedEffect(claim, d, check_effect(n, d=size, p_below=below), ranks)
