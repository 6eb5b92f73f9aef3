from __future__ import annotations

import numpy as np
import pytest
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
