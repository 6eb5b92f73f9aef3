"""The papers' numbers, one by one, from their tables and claims."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lesion_core.metrics.feasibility.pairs import PairVerdict, check_pair
from lesion_core.settings import Plan
from lesion_core.settings.paper import UNITS, Printed, Table


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
        return len(self.printed.partition(".")[2])


@dataclass(frozen=True)
class PublishedPair:
    """Mean Dice and mean IoU of one row, and whether they can be true together."""

    dice: Published
    iou: Published
    verdict: PairVerdict


def published_numbers(plan: Plan) -> list[Published]:
    """All numbers of the plan's papers, table by table, then those of their prose."""
    numbers = [item for name, table in plan.tables.items() for item in of_table(name, table)]
    for paper, claims in plan.claims.items():
        for claim in claims:
            table = plan.tables.get(claim.table)
            numbers += [_number(paper, claim.table, table, claim, metric) for metric in claim.published]
    return numbers


def of_table(name: str, table: Table) -> list[Published]:
    """The numbers of one table's rows, in order."""
    return [_number(table.paper, name, table, row, metric) for row in table.rows for metric in row.published]


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
    first, dash, second = printed.partition("-")
    if dash:
        return None, float(first), float(second)
    return float(first), float(first), float(first)


def pairs(numbers: Iterable[Published]) -> list[PublishedPair]:
    """All rows that publish Dice and IoU of one dataset, with the verdict of ``feasibility.check_pair``."""
    by_row: dict[tuple[str, ...], dict[str, Published]] = {}
    for number in numbers:
        if number.metric in ("dice", "iou") and number.value is not None:
            by_row.setdefault((number.table, number.row, number.dataset), {})[number.metric] = number
    result = []
    for both in by_row.values():
        if len(both) < 2:
            continue
        dice, iou = both["dice"], both["iou"]
        verdict = check_pair(
            dice.printed, iou.printed, dice.n, unit="percent" if dice.unit == "percent" else "fraction"
        )
        result.append(PublishedPair(dice, iou, verdict))
    return result
