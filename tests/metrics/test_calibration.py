from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from lesion_core.errors import ScoreError
from lesion_core.metrics import calibration as cal


def sample(seed: int, n: int = 400, classes: int = 3, sharpness: float = 1.0):
    """Logits whose softmax is the true distribution of the labels, then multiplied by ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 1.5
    p = cal.softmax(logits)
    truth = np.array([rng.choice(classes, p=row) for row in p])
    return truth, logits * sharpness


def test_hand_worked():
    truth = np.array([0, 1])
    p = np.array([[0.8, 0.2], [0.6, 0.4]])
    assert cal.brier(truth, p) == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    # Confidence 0.8 right, 0.6 wrong; two bins of 10: |1 - 0.8| / 2 + |0 - 0.6| / 2.
    assert cal.ece(truth, p, bins=10) == pytest.approx(0.4)
    # One bin: |0.5 - 0.7|.
    assert cal.ece(truth, p, bins=1) == pytest.approx(0.2)


def test_bins_are_closed_above():
    # 0.5 belongs to (0, 0.5], 0.51 to (0.5, 1].
    p = np.array([[0.5, 0.5], [0.51, 0.49]])
    assert cal.ece(np.array([0, 1]), p, bins=2) == pytest.approx((0.5 + 0.51) / 2)


def test_brier_is_twice_scikit_learns_for_two_classes():
    truth, logits = sample(1, classes=2)
    p = cal.softmax(logits)
    assert cal.brier(truth, p) == pytest.approx(2 * brier_score_loss(truth, p[:, 1]))


def test_perfect_and_worst():
    p = np.eye(3)
    assert cal.brier(np.arange(3), p) == cal.ece(np.arange(3), p) == 0.0
    assert cal.brier(np.array([1, 2, 0]), p) == 2.0
    assert cal.ece(np.array([1, 2, 0]), p) == 1.0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.25, 1.0, 3.0, 10.0]))
def test_temperature_is_the_likelihoods_minimum(seed, sharpness):
    truth, logits = sample(seed, sharpness=sharpness)
    temperature = cal.fit_temperature(truth, logits)
    best = minimize_scalar(
        lambda x: log_loss(truth, cal.softmax(logits, np.exp(x)), labels=range(3)),
        bounds=np.log(cal.TEMPERATURE_RANGE),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-4)
    assert cal.fit_temperature(truth, logits * 2) == pytest.approx(2 * temperature, rel=1e-6)


def test_temperature_repairs_overconfidence_and_keeps_the_decision():
    truth, logits = sample(2, n=3000, sharpness=4.0)
    temperature = cal.fit_temperature(truth, logits)
    assert temperature == pytest.approx(4.0, rel=0.1)
    before, after = cal.softmax(logits), cal.softmax(logits, temperature)
    assert cal.ece(truth, after) < 0.5 * cal.ece(truth, before)
    assert cal.brier(truth, after) < cal.brier(truth, before)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_log_probabilities_serve_as_logits():
    truth, logits = sample(3, sharpness=2.0)
    assert cal.fit_temperature(truth, np.log(cal.softmax(logits))) == pytest.approx(cal.fit_temperature(truth, logits))


def test_no_finite_optimum_gives_the_ends():
    logits = np.array([[3.0, 0.0], [0.0, 3.0]])
    assert cal.fit_temperature(np.array([0, 1]), logits) == cal.TEMPERATURE_RANGE[0]
    assert cal.fit_temperature(np.array([1, 0]), logits) == cal.TEMPERATURE_RANGE[1]


@pytest.mark.parametrize(
    ("truth", "p", "says"),
    [
        (np.array([0]), np.array([[1.5, -0.5]]), "sum to 1"),
        (np.array([0]), np.array([[0.5, 0.4]]), "sum to 1"),
        (np.array([2]), np.array([[0.5, 0.5]]), "0..1"),
        (np.array([0]), np.array([[np.nan, 0.5]]), "finite"),
        (np.array([0, 1]), np.array([[0.5, 0.5]]), "got"),
    ],
)
def test_bad_input_is_refused(truth, p, says):
    with pytest.raises(ScoreError, match=says):
        cal.brier(truth, p)
    with pytest.raises(ScoreError, match=says):
        cal.ece(truth, p)
