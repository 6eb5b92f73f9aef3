"""The statistics against worked examples that stand in print, and against R's printed output."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lesion_core.stats.bootstrap import bootstrap_totals
from lesion_core.stats.paired import compare, wilcoxon

# Student (1908), additional hours of sleep under two drugs; R: datasets::sleep
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
# Hollander and Wolfe (1973), Hamilton depression factor before and after; R: example of wilcox.test
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
# Darwin's maize, crossed minus self-fertilised, in eighths of an inch; Fisher, The Design of Experiments (1935)
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
# Lakens (Frontiers in Psychology 4:863, 2013), ratings of two films
FILM_1 = np.array([9, 7, 8, 9, 8, 9, 9, 10, 9, 9], dtype=float)
FILM_2 = np.array([9, 6, 7, 8, 7, 9, 8, 8, 8, 7], dtype=float)
# Efron and Tibshirani, An Introduction to the Bootstrap (1993): 15 law schools
LSAT = np.array([576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594], dtype=float)
GPA = np.array([3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96])


def test_students_sleep_data_as_r_prints_it():
    # t.test(extra ~ group, data = sleep, paired = TRUE): t = -4.0621, df = 9, p-value = 0.002833
    result = compare(SLEEP_1, SLEEP_2)
    assert result.t == pytest.approx(-4.0621, abs=5e-5)
    assert (result.df, result.p_t) == (9, pytest.approx(0.002833, abs=5e-7))
    assert (result.ci_low, result.ci_high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert result.mean == pytest.approx(-1.58)


def test_depression_scores_as_r_prints_them():
    # wilcox.test(x, y, paired = TRUE, alternative = "greater"): V = 40, p-value = 0.01953
    statistic, p, n = wilcoxon(BEFORE - AFTER)
    assert (statistic, n) == (45 - 40, 9)
    assert p / 2 == pytest.approx(0.01953, abs=5e-6)


def test_darwins_maize_as_fisher_has_it():
    # t = 2.148 on 14 degrees of freedom, just beyond the 5 per cent point
    result = compare(MAIZE, np.zeros(15))
    assert MAIZE.sum() == 314
    assert result.t == pytest.approx(2.148, abs=5e-4)
    assert 0.049 < result.p_t < 0.05


def test_effect_sizes_as_lakens_has_them():
    # t(9) = 4.74, p = 0.001, d_z = 1.50, d_av = 1.13
    result = compare(FILM_1, FILM_2)
    assert (round(result.t, 2), round(result.p_t, 3)) == (4.74, 0.001)
    assert (round(result.d_z, 2), round(result.d_av, 2)) == (1.50, 1.13)


def correlation(totals: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = totals
    covariance = xy / n - x * y / n**2
    return (covariance / np.sqrt((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)))[None]


def test_the_law_schools_of_efron_and_tibshirani():
    # correlation 0.776, bootstrap standard error 0.132 (3,200 resamples)
    x, y = (LSAT - LSAT.mean()) / 40.0, GPA - GPA.mean()
    parts = np.column_stack([np.ones(15), x, y, x * x, y * y, x * y])
    result = bootstrap_totals(parts, correlation, np.arange(15), seed=1, resamples=20_000)
    assert result.estimate[0] == pytest.approx(0.776, abs=5e-4)
    assert result.standard_error[0] == pytest.approx(0.132, abs=0.006)
    # the BCa interval reaches further down than the normal one: the distribution is skewed
    assert result.low[0] < 0.776 - 1.96 * 0.132
    assert math.isfinite(result.high[0])
