from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from lesion_core.errors import ScoreError
from lesion_core.stats.bootstrap import bootstrap_means, bootstrap_totals


def clustered(seed: int, lesions: int, per_lesion: int, between: float, within: float, mean: float = 0.0):
    rng = np.random.default_rng(seed)
    values = mean + np.repeat(rng.normal(0, between, lesions), per_lesion)
    values += rng.normal(0, within, lesions * per_lesion)
    return values, np.repeat([f"lesion_{i:04d}" for i in range(lesions)], per_lesion)


def bca_by_hand(groups: list[np.ndarray], resamples: int, level: float = 0.95) -> list[float]:
    """Efron and Tibshirani (1993), equations 14.9 to 14.15, lesion by lesion."""
    normal, rng = NormalDist(), np.random.default_rng(9)

    def mean(chosen) -> float:
        return float(np.concatenate([groups[i] for i in chosen]).mean())

    everyone = np.arange(len(groups))
    drawn = np.array([mean(rng.choice(everyone, len(groups))) for _ in range(resamples)])
    bias = normal.inv_cdf(float(np.mean(drawn < mean(everyone))))
    jackknife = np.array([mean(np.delete(everyone, i)) for i in everyone])
    deviation = jackknife.mean() - jackknife
    acceleration = np.sum(deviation**3) / (6 * np.sum(deviation**2) ** 1.5)
    shifted = [bias + normal.inv_cdf(quantile) for quantile in ((1 - level) / 2, (1 + level) / 2)]
    return [float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z)))) for z in shifted]


def test_equals_resampling_lesion_by_lesion():
    lesions = np.repeat(np.arange(20), 3)[:-2]
    values = np.random.default_rng(3).exponential(size=20)[lesions] + 0.1 * np.arange(58) % 3
    ours = bootstrap_means(values, lesions, seed=5, resamples=20_000)
    expected = bca_by_hand([values[lesions == name] for name in range(20)], 20_000)
    assert (ours.low[0], ours.high[0]) == pytest.approx(expected, abs=0.03)
    assert ours.estimate[0] == pytest.approx(values.mean())


def test_the_standard_error_of_single_images():
    values = np.random.default_rng(0).exponential(size=80)
    ours = bootstrap_means(values, np.arange(80), seed=1, resamples=20_000)
    assert ours.standard_error[0] == pytest.approx(values.std() / np.sqrt(80), rel=0.02)


def test_images_of_a_lesion_widen_the_interval():
    values, lesions = clustered(1, 100, 4, 1.0, 0.1)
    by_lesion = bootstrap_means(values, lesions, seed=0, resamples=2000)
    by_image = bootstrap_means(values, np.arange(len(values)), seed=0, resamples=2000)
    assert by_lesion.standard_error[0] > 1.8 * by_image.standard_error[0]
    assert by_lesion.clusters == 100


def test_coverage_is_close_to_95_percent():
    trials = 150
    hits = 0
    for trial in range(trials):
        values, lesions = clustered(trial, 60, 3, 1.0, 1.0, mean=2.0)
        result = bootstrap_means(values, lesions, seed=trial, resamples=600)
        hits += result.low[0] <= 2.0 <= result.high[0]
    assert 0.88 < hits / trials < 0.995


def test_statistics_of_totals():
    # Pooled Dice of two lesions' pixels.
    rng = np.random.default_rng(6)
    tp, fp, fn = rng.integers(50, 100, 40), rng.integers(0, 30, 40), rng.integers(0, 30, 40)
    parts = np.column_stack([2 * tp, 2 * tp + fp + fn]).astype(float)
    result = bootstrap_totals(parts, lambda t: t[:1] / t[1:], np.arange(40), seed=0, resamples=1000)
    assert result.estimate[0] == pytest.approx(2 * tp.sum() / (2 * tp.sum() + fp.sum() + fn.sum()))
    assert result.low[0] < result.estimate[0] < result.high[0]


def test_columns_share_resamples_and_do_not_depend_on_their_neighbours():
    rng = np.random.default_rng(2)
    values, lesions = rng.normal(size=(60, 3)), np.repeat(np.arange(30), 2)
    together = bootstrap_means(values, lesions, seed=4, resamples=500)
    alone = bootstrap_means(values[:, 1], lesions, seed=4, resamples=500)
    assert together.low[1] == pytest.approx(alone.low[0], abs=1e-12)
    shifted = bootstrap_means(values[:, 1] + 5.0, lesions, seed=4, resamples=500)
    assert shifted.low[0] == pytest.approx(alone.low[0] + 5.0)


def test_same_seed_same_numbers_whatever_the_order_of_images():
    values, lesions = clustered(8, 30, 2, 1.0, 1.0)
    order = np.random.default_rng(0).permutation(60)
    first = bootstrap_means(values, lesions, seed=1, resamples=500)
    again = bootstrap_means(values, lesions, seed=1, resamples=500)
    shuffled = bootstrap_means(values[order], lesions[order], seed=1, resamples=500)
    other = bootstrap_means(values, lesions, seed=2, resamples=500)
    assert first.low[0] == again.low[0]
    assert shuffled.low[0] == pytest.approx(first.low[0], abs=1e-12)
    assert other.low[0] != first.low[0]


def test_constant_values_give_a_point():
    result = bootstrap_means(np.full(50, 0.25), np.arange(50), seed=0, resamples=200)
    assert (result.low[0], result.high[0]) == pytest.approx((0.25, 0.25))
    assert not result.notes


def test_few_lesions_are_told():
    result = bootstrap_means(np.arange(6.0), np.array(list("aabbcc")), seed=0, resamples=200)
    assert "3 lesions are few" in result.notes[0]


@pytest.mark.parametrize(
    ("values", "lesions", "resamples", "says"),
    [
        (np.arange(4.0), np.array(list("abc")), 1000, "clusters"),
        (np.arange(4.0), np.array(list("aaaa")), 1000, "cannot be resampled"),
        (np.array([1.0, np.nan]), np.array(list("ab")), 1000, "finite"),
        (np.arange(4.0), np.array(list("abcd")), 10, "resamples"),
    ],
)
def test_bad_input_is_refused(values, lesions, resamples, says):
    with pytest.raises(ScoreError, match=says):
        bootstrap_means(values, lesions, seed=0, resamples=resamples)


def test_a_class_missing_from_a_resample_is_told():
    parts = np.column_stack([np.r_[1.0, np.zeros(9)], np.r_[1.0, np.zeros(9)]])
    with pytest.raises(ScoreError, match="not finite in"):
        bootstrap_totals(parts, lambda t: t[:1] / t[1:], np.arange(10), seed=0, resamples=200)
