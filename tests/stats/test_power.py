from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nct, t
from statsmodels.stats.power import TTestPower

from lesion_core.errors import ScoreError
from lesion_core.stats import power


def test_three_seeds():
    assert power.critical_d_z(3) == pytest.approx(2.4841, abs=1e-4)
    assert power.smallest_p_wilcoxon(3) == 0.25
    assert [power.smallest_p_wilcoxon(n) for n in (0, 1, 2, 5, 6)] == [1.0, 1.0, 0.5, 0.0625, 0.03125]
    # At the critical effect itself the test succeeds about every second time.
    assert 0.4 < power.power_paired_t(power.critical_d_z(3), 3) < 0.65


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50, 500])
@pytest.mark.parametrize("d", [0.0, 0.1, 0.5, 1.5])
def test_power_equals_statsmodels(n, d):
    expected = TTestPower().power(d, n, 0.05, alternative="two-sided")
    if np.isnan(expected):  # its noncentral t underflows where the power is 1 to all digits
        expected = 1.0
    assert power.power_paired_t(d, n) == pytest.approx(expected, abs=1e-6)
    assert power.power_paired_t(-d, n) == power.power_paired_t(d, n)


@pytest.mark.parametrize("n", [2, 3, 4, 10, 100, 2000])
def test_smallest_detectable_effect_has_the_power(n):
    d = power.smallest_detectable_d_z(n)
    assert power.power_paired_t(d, n) == pytest.approx(0.8, abs=1e-6)
    assert power.power_paired_t(0.98 * d, n) < 0.8
    if n > 3:
        assert d > power.critical_d_z(n)


def test_smallest_detectable_effect_equals_simulation():
    n = 5
    d = power.smallest_detectable_d_z(n)
    x = np.random.default_rng(0).normal(d, 1, (40_000, n))
    found = x.mean(axis=1) / x.std(axis=1, ddof=1) * np.sqrt(n)
    assert np.mean(np.abs(found) > power.critical_d_z(n) * np.sqrt(n)) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("n", "d", "alpha"), [(2, 1.0, 0.0025), (3, 2.0, 0.001), (40, 0.3, 0.0025)])
def test_power_at_corrected_levels_equals_the_noncentral_t(n, d, alpha):
    c = t.ppf(1 - alpha / 2, n - 1)
    expected = nct.sf(c, n - 1, d * np.sqrt(n)) + nct.cdf(-c, n - 1, d * np.sqrt(n))
    assert power.power_paired_t(d, n, alpha) == pytest.approx(expected, abs=1e-6)


def test_no_effect_has_the_level_as_power():
    assert power.power_paired_t(0.0, 7, 0.01) == pytest.approx(0.01, abs=1e-8)


def test_pairs_needed_as_cohen_has_them():
    # d = 0.5, alpha 0.05 two-sided, power 0.8: 34 pairs
    assert power.power_paired_t(0.5, 33) < 0.8 <= power.power_paired_t(0.5, 34)


@pytest.mark.parametrize(
    "call",
    [
        lambda: power.critical_d_z(1),
        lambda: power.power_paired_t(1.0, 3, alpha=0.0),
        lambda: power.smallest_detectable_d_z(3, power=0.01),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ScoreError):
        call()
