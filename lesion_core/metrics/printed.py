"""Numbers as papers print them, and what they may have been rounded from.

Read are 92.1, 92,1, .921, 92.1 %, 92.1 ± 0.3 (a mean and its SD), 92.1 +- 0.3, > 98.9 and 85-86.
Numbers are taken as rounded, not as cut off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lesion_core.errors import ScoreError

TINY = 1e-12
Unit = Literal["percent", "fraction"]
_NUMBER = r"(?:[0-9]+(?:[.,·][0-9]+)?|[.,·][0-9]+)"
_PRINTED = re.compile(
    rf"(?P<bound>[<>≤≥]=?)?\s*(?P<value>[+-]?{_NUMBER})\s*(?P<sign>%)?\s*"
    rf"(?:(?:±|\+/?-)\s*(?P<sd>{_NUMBER})\s*(?P<sd_sign>%)?|-\s*(?P<end>{_NUMBER})\s*(?P<end_sign>%)?)?"
)
_SAME = str.maketrans({"−": "-", "–": "-", "—": "-", "％": "%"})
_BLANK = {"", "-", "/", "n/a", "na", "nan", "none", "null"}
# A thousands separator needs three digits after it; ".0" is what pandas adds to counts beside an empty cell.
_COUNT = re.compile(r"[0-9]+(?:\.0)?|[0-9]{1,3}(?:[,' \u00a0\u2009\u202f][0-9]{3})+")


@dataclass(frozen=True)
class Printed:
    """One printed number, in its own unit.

    Attributes:
        text: as printed.
        value: the number; the bound of ``> 98.9``, the lower end of ``85-86``.
        decimals: of ``value``: 1 for "85.0".
        low, high: what may have been rounded to it; infinite on the open side of a bound.
        exact: False for a bound or a range.
        percent: a % stands beside it.
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
    match = _PRINTED.fullmatch(text.strip().translate(_SAME))
    if match is None:
        remedy = "write 94.27, 0.9427, 92,1 %, 92.1 ± 0.3 (or +-), >98.9 or 85-86"
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
        raise ScoreError(f"'{text.strip()}' is not a count", remedy="write a whole number: 519")
    return int(re.sub(r"\.0$|[^0-9]", "", text.strip()))


def is_blank(text: str | None) -> bool:
    """Whether a table's cell holds no number: empty, a dash, n/a."""
    return (text or "").strip().translate(_SAME).lower() in _BLANK


def in_percent(numbers: Mapping[str, Printed], unit: Unit | None = None) -> bool:
    """Whether numbers of one row are per cent; a number without a % is, if it or its SD is above 1.

    Args:
        numbers: by what they are called in messages.
        unit: where the user says it.

    Raises:
        ScoreError: they mix units, or contradict ``unit``.
    """
    signed = [name for name, number in numbers.items() if number.percent]
    if unit == "fraction" and signed:
        raise ScoreError(f"{_told(signed[0], numbers)} is per cent, not a fraction", remedy="leave out --fraction")
    if unit is not None:
        return unit == "percent"
    percent = [name for name, number in numbers.items() if number.percent or max(number.value, number.sd or 0) > 1]
    fraction = [name for name, number in numbers.items() if not number.percent and 0 < number.value <= 1]
    if percent and fraction:
        raise ScoreError(
            f"Mixed units: {_told(fraction[0], numbers)} looks like a fraction, "
            f"{_told(percent[0], numbers)} like per cent",
            remedy="write them in one unit; if they are in one as they stand, say --percent or --fraction",
        )
    return bool(percent)


def as_fractions(name: str, number: Printed, percent: bool) -> tuple[float, float]:
    """What may have been rounded to a rate, as fractions in 0..1.

    Raises:
        ScoreError: the rate lies outside 0..100 % (0..1).
    """
    factor = 100.0 if percent else 1.0
    if not 0.0 <= number.value <= factor:
        limits = "0 and 100 %" if percent else "0 and 1"
        remedy = "check the number as printed" if percent else "leave out --fraction if it is per cent"
        raise ScoreError(f"{name} {number.text} does not lie between {limits}", remedy=remedy)
    return max(0.0, number.low / factor), min(1.0, number.high / factor)


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


def _told(name: str, numbers: Mapping[str, Printed]) -> str:
    return f"{name} {numbers[name].text}"
