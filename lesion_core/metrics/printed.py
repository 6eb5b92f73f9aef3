"""Numbers as papers print them, and what they may have been rounded from.

Read are 92.1, 92,1, .921, 92.1 %, 92.1 ± 0.3 (a mean and its SD), 92.1 +- 0.3, 92.1 (0.3), > 98.9 and 85-86.
Numbers are taken as rounded, not as cut off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lesion_core.errors import ScoreError

TINY = 1e-12
Unit = Literal["percent", "fraction"]
_NUMBER = r"(?:[0-9]+(?:[.,·][0-9]+)?|[.,·][0-9]+)"
_PRINTED = re.compile(
    rf"(?P<bound>[<>≤≥]=?)?\s*(?P<value>[+-]?{_NUMBER})\s*(?P<sign>%)?\s*"
    rf"(?:(?:±|\+/?-)\s*(?P<sd>{_NUMBER})\s*(?P<sd_sign>%)?|-\s*(?P<end>{_NUMBER})\s*(?P<end_sign>%)?)?"
)
_BRACKETS = re.compile(r"\(\s*(?:±|\+/?-)?([^()]*)\)")
_SAME = str.maketrans({"−": "-", "–": "-", "—": "-", "％": "%"})
_BLANK = {"", "-", "/", "n/a", "na", "nan", "none", "null"}
# A thousands separator needs three digits after it; ".0" is what pandas adds to counts beside an empty cell.
_COUNT = re.compile(r"[0-9]+(?:\.0)?|[0-9]{1,3}(?:[,' \u00a0\u2009\u202f][0-9]{3})+")


@dataclass(frozen=True)
class Printed:
    """One printed number, in its own unit; of ``read_rates`` as a fraction 0..1.

    Attributes:
        text: as printed.
        value: the number; the bound of ``> 98.9``, the lower end of ``85-86``.
        decimals: of ``value``: 1 for "85.0".
        low, high: what may have been rounded to it; infinite on the open side of a bound.
        exact: False for a bound or a range.
        percent: a % stands beside it; of ``read_rates``: it was printed per cent.
        sd, sd_low, sd_high: the SD after ±, and what may have been rounded to it; None without one.
    """

    text: str
    value: float
    decimals: int
    low: float
    high: float
    exact: bool
    percent: bool
    sd: float | None = None
    sd_low: float | None = None
    sd_high: float | None = None


def parse_printed(text: str) -> Printed:
    """Read one printed number.

    Raises:
        ScoreError: the text is none.
    """
    match = _PRINTED.fullmatch(_BRACKETS.sub(r"±\1", text.strip().translate(_SAME)))
    if match is None:
        remedy = "write 94.27, 0.9427, 92,1 %, 92.1 ± 0.3 (or +-, or 92.1 (0.3)), >98.9 or 85-86"
        raise ScoreError(f"'{text.strip()}' is not a printed number", remedy=remedy)
    value, decimals, low, high = _rounded(match["value"])
    if match["end"]:
        high = _rounded(match["end"])[3]
    if match["bound"]:
        low, high = (low, math.inf) if match["bound"][0] in ">≥" else (-math.inf, high)
    sd, _, sd_low, sd_high = _rounded(match["sd"]) if match["sd"] else (None, 0, None, None)
    return Printed(
        text=text.strip(),
        value=value,
        decimals=decimals,
        low=low,
        high=high,
        exact=not (match["end"] or match["bound"]),
        percent=bool(match["sign"] or match["sd_sign"] or match["end_sign"]),
        sd=sd,
        sd_low=sd_low,
        sd_high=sd_high,
    )


def parse_count(text: str) -> int:
    """Read a count: 519, 2,594, 2 594, or the 519.0 of pandas.

    Raises:
        ScoreError: the text is none.
    """
    if not _COUNT.fullmatch(text.strip()):
        remedy = "write one whole number, 519 or 2,594; two datasets are two calls, or two rows of a table"
        raise ScoreError(f"'{text.strip()}' is not a count", remedy=remedy)
    return int(re.sub(r"\.0$|[^0-9]", "", text.strip()))


def is_blank(text: str | None) -> bool:
    """Whether a table's cell holds no number: empty, a dash, n/a."""
    return (text or "").strip().translate(_SAME).lower() in _BLANK


def read_rates(
    texts: Mapping[str, str | None], unit: Unit | None = None, *, one_unit: bool = False
) -> dict[str, Printed]:
    """Printed rates as fractions 0..1; what is None is left out, and ``text`` says the unit where it is per cent.

    A % settles the unit; without one a number of at most 1 is a fraction, and a 0 is what the others are.

    Args:
        texts: by what they are called in messages.
        unit: of all, where the user says it.
        one_unit: refuse a number above 1 beside one of at most 1, both without a %.

    Raises:
        ScoreError: no printed number, a rate outside 0..100 % (0..1), mixed units, or a % that contradicts ``unit``.
    """
    numbers = {name: parse_printed(text) for name, text in texts.items() if text is not None}
    percent = {name: number.percent or _looks_percent(number) for name, number in numbers.items()}
    bare = [name for name, number in numbers.items() if not number.percent and number.value > 0]
    if unit is None:
        mixed = [name for name in bare if percent[name] and numbers[name].value <= 1]
        if one_unit and len({percent[name] for name in bare}) > 1:
            mixed = sorted(bare, key=lambda name: percent[name])
        if mixed:
            told = [f"{name} {numbers[name].text}" for name in mixed]
            words = " looks like a fraction, ".join(told[:2]) + " like per cent" if told[1:] else told[0]
            remedy = "write a % where it is meant; if all are in one unit as they stand, say --percent or --fraction"
            raise ScoreError(f"Mixed units: {words}", remedy=remedy)
    return {
        name: _as_fraction(name, number, percent[name] or (number.value <= 0 and any(percent.values())), unit)
        for name, number in numbers.items()
    }


def _looks_percent(number: Printed) -> bool:
    return max(number.value, number.sd or 0.0) > 1


def _as_fraction(name: str, number: Printed, percent: bool, unit: Unit | None) -> Printed:
    if unit == "fraction" and number.percent:
        raise ScoreError(f"{name} {number.text} is per cent, not a fraction", remedy="leave out --fraction")
    percent = percent if unit is None else unit == "percent"
    factor = 100.0 if percent else 1.0
    if not 0.0 <= number.value <= factor:
        limits = "0 and 100 %" if percent else "0 and 1"
        remedy = "check the number as printed" if percent else "leave out --fraction if it is per cent"
        raise ScoreError(f"{name} {number.text} does not lie between {limits}", remedy=remedy)
    sd, sd_low, sd_high = (None if x is None else x / factor for x in (number.sd, number.sd_low, number.sd_high))
    return replace(
        number,
        text=number.text if number.percent or not percent else f"{number.text} %",
        value=number.value / factor,
        low=max(0.0, number.low / factor),
        high=min(1.0, number.high / factor),
        percent=percent,
        sd=sd,
        sd_low=sd_low,
        sd_high=sd_high,
    )


def between(low: float, high: float, decimals: int, *, percent: bool) -> str:
    """Text of two bounds, given as fractions, rounded outwards: "86.13 to 92.65 %"."""
    factor, unit = (100.0, " %") if percent else (1.0, "")
    return f"{round_down(low * factor, decimals)} to {round_up(high * factor, decimals)}{unit}"


def round_down(value: float, decimals: int) -> str:
    """Text of a lower bound: rounded down, so that "at least" stays true."""
    return f"{math.floor(value * 10**decimals + 1e-6) / 10**decimals:.{decimals}f}"


def round_up(value: float, decimals: int) -> str:
    """Text of an upper bound: rounded up, so that "at most" stays true."""
    return f"{math.ceil(value * 10**decimals - 1e-6) / 10**decimals:.{decimals}f}"


def _rounded(digits: str) -> tuple[float, int, float, float]:
    """(value, decimals, low, high) of plain digits."""
    digits = digits.replace(",", ".").replace("·", ".")
    value, decimals = float(digits), len(digits.partition(".")[2])
    half = 0.5 * 10.0**-decimals
    return value, decimals, value - half, value + half
