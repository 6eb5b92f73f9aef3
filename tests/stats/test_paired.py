from __future__ import annotations

import itertools
import math

import numpy as np
import pingouin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lesion_core.errors import ScoreError
from lesion_core.stats import multiple
from lesion_core.stats.paired import compare, wilcoxon


def sample(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    a = rng.normal(0.9, 0.1, n)
    return a, a - rng.normal(0.02, 0.05, n)


@pytest.mark.parametrize("n", [3, 8, 30, 200])
def test_t_and_effect_sizes_equal_pingouin_and_wilcoxon_scipy(n):
    a, b = sample(n, seed=n)
    ours = compare(a, b)
    table = pingouin.ttest(a, b, paired=True).iloc[0]
    assert (ours.t, ours.p_t, ours.df) == pytest.approx((table["T"], table["p_val"], table["dof"]))
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(table["CI95"]), abs=0.0051)  # it rounds
    assert ours.d_av == pytest.approx(np.sign(ours.t) * table["cohen_d"])
    assert ours.d_z == pytest.approx(ours.t / math.sqrt(n))
    if n > 3:  # pingouin refuses three
        normality = pingouin.normality(a - b).iloc[0]
        assert (ours.shapiro_w, ours.shapiro_p) == pytest.approx((normality["W"], normality["pval"]))
    signed = stats.wilcoxon(a, b, method="exact" if n <= 50 else "asymptotic")
    assert (ours.wilcoxon, ours.p_wilcoxon) == pytest.approx((signed.statistic, signed.pvalue))


def test_hand_worked():
    result = compare(np.array([3.0, 5.0, 7.0, 9.0]), np.array([2.0, 3.0, 4.0, 5.0]))
    # Differences 1, 2, 3, 4: mean 2.5, variance 5/3.
    assert result.mean == 2.5
    assert result.sd == pytest.approx(math.sqrt(5 / 3))
    assert result.t == pytest.approx(2.5 / math.sqrt(5 / 12))
    assert result.d_av == pytest.approx(2.5 / math.sqrt((20 / 3 + 5 / 3) / 2))
    assert (result.wilcoxon, result.p_wilcoxon) == (0.0, 2 / 16)


def test_three_seeds_cannot_show_anything_by_wilcoxon():
    result = compare(np.array([0.95, 0.96, 0.97]), np.array([0.10, 0.20, 0.40]))
    assert result.p_wilcoxon == result.p_wilcoxon_smallest == 0.25
    assert result.n_too_small
    assert any("cannot go below p = 0.25" in note for note in result.notes)
    assert any("|d_z| > 2.48" in note for note in result.notes)
    assert any("Shapiro" in note for note in result.notes)


@pytest.mark.parametrize(("d_z", "significant"), [(2.47, False), (2.50, True)])
def test_three_seeds_reach_five_percent_only_beyond_the_critical_effect(d_z, significant):
    difference = np.array([-1.0, 0.0, 1.0]) + d_z
    result = compare(difference, np.zeros(3))
    assert result.d_z == pytest.approx(d_z)
    assert result.critical_d_z == pytest.approx(2.48414, abs=1e-5)
    assert (result.p_t < 0.05) is significant
    assert (result.ci_low > 0) is significant


def brute_force(difference):
    kept = difference[difference != 0]
    ranks = stats.rankdata(np.abs(kept))
    observed = abs(ranks[kept > 0].sum() - ranks.sum() / 2)
    sums = [np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=len(kept))]
    return np.mean(np.abs(np.array(sums) - ranks.sum() / 2) >= observed - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_wilcoxon_with_ties_and_zeros_equals_brute_force(values):
    difference = np.array(values, float)
    statistic, p, n = wilcoxon(difference)
    assert n == np.count_nonzero(difference)
    assert p == pytest.approx(brute_force(difference) if n else 1.0)
    assert wilcoxon(-difference) == (statistic, p, n)


def test_equal_methods():
    a = np.array([0.9, 0.8, 0.7, 0.6])
    result = compare(a, a)
    assert (result.mean, result.sd, result.p_wilcoxon) == (0.0, 0.0, 1.0)
    assert math.isnan(result.t)
    assert math.isnan(result.d_z)
    assert any("all differences are equal" in note for note in result.notes)


def test_equal_differences_are_not_infinitely_significant():
    a = np.array([0.9, 0.8, 0.7, 0.6])
    result = compare(a, a - 0.1)
    assert result.sd == 0.0
    assert math.isnan(result.p_t)
    assert result.p_wilcoxon == 2 / 16
    assert (result.ci_low, result.ci_high) == pytest.approx((0.1, 0.1))


def test_one_pair():
    result = compare(np.array([0.9]), np.array([0.8]))
    assert result.n_too_small
    assert math.isnan(result.p_t)
    assert math.isnan(result.ci_low)
    assert result.p_wilcoxon == 1.0


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [1.0]), ([], []), ([1.0, math.nan], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_bad_pairs_are_refused(a, b):
    with pytest.raises(ScoreError, match="Paired values"):
        compare(np.array(a), np.array(b))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.03], 0.03),
        ([0.01, 0.04], 0.04),
        ([0.01, 0.02, 0.9], 0.03),
        ([0.9, 1.0, 0.8], 1.0),
        ([0.1, math.nan], math.nan),
    ],
)
def test_dependent_p_values_are_combined_by_their_upper_median(values, expected):
    assert multiple.combine_dependent(np.array(values)) == pytest.approx(expected, nan_ok=True)


def test_the_combination_keeps_its_level_whatever_the_dependence():
    """Independent, equal, and the worst case: at 0.05, two of three are small together, in turn, or none is."""
    rng, n, bound = np.random.default_rng(2), 20000, 0.05 * 2 / 3
    worst = rng.uniform(bound, 1.0, (n, 3))
    small = np.flatnonzero(rng.uniform(size=n) < 0.05)
    for place in range(2):
        worst[small, (small + place) % 3] = rng.uniform(0.0, bound, len(small))
    assert np.mean(worst <= 0.02, axis=0) == pytest.approx([0.02] * 3, abs=0.004)  # each alone is uniform
    for p in (rng.uniform(size=(n, 3)), np.repeat(rng.uniform(size=(n, 1)), 3, axis=1), worst):
        rejected = np.mean([multiple.combine_dependent(row) <= 0.05 for row in p])
        assert rejected <= 0.055
    assert rejected == pytest.approx(0.05, abs=0.005)  # the bound is reached
    for wrong in ([], [1.2], [-0.1]):
        with pytest.raises(ScoreError, match="p values"):
            multiple.combine_dependent(np.array(wrong))


def test_holm_hand_worked():
    assert multiple.holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert multiple.holm(np.array([])).tolist() == []
    adjusted = multiple.holm(np.array([0.01, math.nan, 0.6]))
    assert adjusted[[0, 2]].tolist() == pytest.approx([0.02, 0.6])
    assert math.isnan(adjusted[1])
    with pytest.raises(ScoreError, match="outside"):
        multiple.holm(np.array([1.2]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_holm_equals_statsmodels(values):
    expected = multipletests(values, method="holm")[1]
    np.testing.assert_allclose(multiple.holm(np.array(values)), expected, atol=1e-12)
