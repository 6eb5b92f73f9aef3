"""Numbers as papers print them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_core.errors import ScoreError
from lesion_core.metrics.printed import is_blank, parse_count, parse_printed, read_rates, round_down, round_up


@pytest.mark.parametrize(
    ("text", "value", "decimals", "low", "high"),
    [
        ("92.1", 92.1, 1, 92.05, 92.15),
        (" 92,10 ", 92.1, 2, 92.095, 92.105),
        ("92·1", 92.1, 1, 92.05, 92.15),
        (".921", 0.921, 3, 0.9205, 0.9215),
        ("85", 85, 0, 84.5, 85.5),
        ("92.1%", 92.1, 1, 92.05, 92.15),
        ("92.1\u00a0%", 92.1, 1, 92.05, 92.15),
        (">98.9", 98.9, 1, 98.85, math.inf),
        ("≤ 5 %", 5, 0, -math.inf, 5.5),
        ("85-86", 85, 0, 84.5, 86.5),
        ("85.0 – 86.25 %", 85, 1, 84.95, 86.255),
        ("−0.89", -0.89, 2, -0.895, -0.885),
    ],
)
def test_a_printed_number(text, value, decimals, low, high):
    found = parse_printed(text)
    assert (found.text, found.value, found.decimals, found.sd) == (text.strip(), value, decimals, None)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.percent == ("%" in text)
    assert found.exact == ((text[0] not in ">≤" and not text.startswith("85")) or text == "85")


@pytest.mark.parametrize(
    "text",
    [
        *("92.1 ± 0.3", "92.1±0.3", "92.1 +- 0.3", "92,1 +/- 0,3", "92.1 % ± 0.3 %", "92.1 ± 0.3%", "92.1 −0.3"),
        *("92.1 (0.3)", "92,1 (± 0,3)", "92.1 % (+/- 0.3 %)", "92.1(0.3) %"),
    ],
)
def test_a_mean_with_its_sd(text):
    found = parse_printed(text)
    if "−" in text:
        assert (found.sd, found.high) == (None, 0.35)
    else:
        assert (found.value, found.sd, found.sd_low, found.sd_high) == pytest.approx((92.1, 0.3, 0.25, 0.35))


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "1e-3", "92.1.2", "(0.3)", "92.1 (91.0-93.2)", "± 0.3", "92.1 ±", "92²", "1,234.5"]
)
def test_what_is_no_printed_number(text):
    with pytest.raises(ScoreError, match="not a printed number"):
        parse_printed(text)


def test_counts_and_blanks():
    texts = ("519", "519.0", "2,594", "2 594", "26,255,387", " 7 ")
    assert [parse_count(text) for text in texts] == [519, 519, 2594, 2594, 26255387, 7]
    for text in ("", "2.594", "-1", "1,00", "many"):
        with pytest.raises(ScoreError, match="not a count"):
            parse_count(text)
    assert all(map(is_blank, ("", " ", "-", "–", "N/A", "nan", None)))
    assert not is_blank("0")


def test_each_rate_has_its_own_unit():
    found = read_rates({"a": "93.4 %", "b": "0.910", "c": "0", "d": None, "e": "93.0"})
    assert [(name, number.percent, number.text) for name, number in found.items()] == [
        ("a", True, "93.4 %"),
        ("b", False, "0.910"),
        ("c", True, "0 %"),
        ("e", True, "93.0 %"),
    ]
    assert (found["a"].low, found["b"].high, found["c"].high) == pytest.approx((0.9335, 0.9105, 0.005))
    assert read_rates({"a": "0.910"}, "percent")["a"].value == pytest.approx(0.0091)
    assert read_rates({"a": "92.0 (55.0)"})["a"].sd == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("texts", "more", "says"),
    [
        (("93.4", "0.910"), {"one_unit": True}, "b 0.910 looks like a fraction, a 93.4 like per cent"),
        (("0.9 ± 3", "0.8"), {}, "Mixed units: a 0.9 ± 3"),
        (("93.4 %", "0.910"), {"unit": "fraction"}, "per cent, not a fraction"),
        (("101", "80"), {}, "a 101 does not lie between 0 and 100 %"),
    ],
)
def test_rates_without_a_unit_are_refused(texts, more, says):
    with pytest.raises(ScoreError, match=says):
        read_rates(dict(zip("ab", texts, strict=True)), **more)


@given(st.floats(0, 100), st.integers(0, 6))
def test_rounded_bounds_enclose(value, decimals):
    low, high = float(round_down(value, decimals)), float(round_up(value, decimals))
    assert low - 1e-6 * 10.0**-decimals <= value + 1e-9
    assert value - 2e-6 <= high + 1e-9
    assert 0 <= high - low <= 10.0**-decimals + 1e-9


def test_bounds_do_not_round_to_the_nearest():
    assert (round_down(0.1295, 3), round_up(0.1295, 3)) == ("0.129", "0.130")
    assert (round_down(0.176, 3), round_up(0.176, 3)) == ("0.176", "0.176")
