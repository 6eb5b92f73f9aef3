"""Printed numbers and what they may have been rounded from; truncated numbers are not catered for."""

from __future__ import annotations

import math

from lesion_core.errors import ScoreError

TINY = 1e-12


def printed_interval(value: float, decimals: int, percent: bool, name: str) -> tuple[float, tuple[float, float]]:
    """A printed number as a fraction, and the interval it may have been rounded from."""
    factor = 100.0 if percent else 1.0
    if not (math.isfinite(value) and 0.0 <= value <= factor):
        raise ScoreError(f"{name} {value} lies outside 0..{factor:g}", remedy="say percent=True or False")
    if not 0 <= decimals <= 12:
        raise ScoreError(f"{decimals} printed decimals")
    half = 0.5 * 10.0**-decimals / factor
    fraction = value / factor
    return fraction, (max(0.0, fraction - half), min(1.0, fraction + half))


def decimals_of(text: str) -> int:
    """Decimals of a number as it is printed: 1 for "85.0".

    Raises:
        ScoreError: the text is no plain number.
    """
    digits = text.strip().lstrip("+-")
    if not digits.replace(".", "", 1).isdecimal():
        raise ScoreError(f"'{text}' is not a printed number", remedy="write 94.27 or 0.9427")
    return len(digits.partition(".")[2])
