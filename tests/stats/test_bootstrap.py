from __future__ import annotations

import numpy as np
import pytest

from lesion_core.errors import ScoreError
from lesion_core.stats.bootstrap import bootstrap_means, bootstrap_totals


def clustered(seed: int, lesions: int, per_lesion: int, between: float, within: float, mean: float = 0.0):
    rng = np.random.default_rng(seed)
    values = mean + np.repeat(rng.normal(0, between, lesions), per_lesion)
    values += rng.normal(0, within, lesions * per_lesion)
    return values, np.repeat([f"lesion_{i:04d}" for i in range(lesions)], per_lesion)


def test_single_images_equal_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).exponential(size=80)
    ours = bootstrap_means(values, np.arange(80), seed=1, resamples=20_000)
    for method, low, high in (
        ("percentile", ours.percentile_low, ours.percentile_high),
        ("BCa", ours.bca_low, ours.bca_high),
    ):
        theirs = bootstrap(
            (values,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(2)
        ).confidence_interval
        assert low[0] == pytest.approx(theirs.low, abs=0.015)
        assert high[0] == pytest.approx(theirs.high, abs=0.015)
    assert ours.standard_error[0] == pytest.approx(values.std() / np.sqrt(80), rel=0.02)
    assert ours.estimate[0] == pytest.approx(values.mean())


def test_equals_resampling_lesion_by_lesion():
    values, lesions = clustered(3, 12, 3, 1.0, 0.5)
    values, lesions = values[:-2], lesions[:-2]
    ours = bootstrap_means(values, lesions, seed=5, resamples=4000)
    rng = np.random.default_rng(9)
    groups = [values[lesions == name] for name in np.unique(lesions)]
    slow = [np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]).mean() for _ in range(4000)]
    expected = np.quantile(slow, [0.025, 0.975])
    assert (ours.percentile_low[0], ours.percentile_high[0]) == pytest.approx(expected, abs=0.05)


def test_images_of_a_lesion_widen_the_interval():
    values, lesions = clustered(1, 100, 4, 1.0, 0.1)
    by_lesion = bootstrap_means(values, lesions, seed=0, resamples=2000)
    by_image = bootstrap_means(values, np.arange(len(values)), seed=0, resamples=2000)
    assert by_lesion.standard_error[0] > 1.8 * by_image.standard_error[0]
    assert (by_lesion.clusters, by_lesion.images) == (100, 400)


def test_coverage_is_close_to_95_percent():
    trials = 150
    hits = np.zeros(2)
    for trial in range(trials):
        values, lesions = clustered(trial, 60, 3, 1.0, 1.0, mean=2.0)
        result = bootstrap_means(values, lesions, seed=trial, resamples=600)
        hits += [
            result.percentile_low[0] <= 2.0 <= result.percentile_high[0],
            result.bca_low[0] <= 2.0 <= result.bca_high[0],
        ]
    assert (hits / trials > 0.88).all()
    assert (hits / trials < 0.995).all()


def test_statistics_of_totals():
    # Pooled Dice of two lesions' pixels.
    rng = np.random.default_rng(6)
    tp, fp, fn = rng.integers(50, 100, 40), rng.integers(0, 30, 40), rng.integers(0, 30, 40)
    parts = np.column_stack([2 * tp, 2 * tp + fp + fn]).astype(float)
    result = bootstrap_totals(parts, lambda t: t[:, :1] / t[:, 1:], np.arange(40), seed=0, resamples=1000)
    assert result.estimate[0] == pytest.approx(2 * tp.sum() / (2 * tp.sum() + fp.sum() + fn.sum()))
    assert result.bca_low[0] < result.estimate[0] < result.bca_high[0]


def test_columns_share_resamples_and_do_not_depend_on_their_neighbours():
    rng = np.random.default_rng(2)
    values, lesions = rng.normal(size=(60, 3)), np.repeat(np.arange(30), 2)
    together = bootstrap_means(values, lesions, seed=4, resamples=500)
    alone = bootstrap_means(values[:, 1], lesions, seed=4, resamples=500)
    assert together.bca_low[1] == pytest.approx(alone.bca_low[0], abs=1e-12)
    shifted = bootstrap_means(values[:, 1] + 5.0, lesions, seed=4, resamples=500)
    assert shifted.bca_low[0] == pytest.approx(alone.bca_low[0] + 5.0)


def test_same_seed_same_numbers_whatever_the_order_of_images():
    values, lesions = clustered(8, 30, 2, 1.0, 1.0)
    order = np.random.default_rng(0).permutation(60)
    first = bootstrap_means(values, lesions, seed=1, resamples=500)
    again = bootstrap_means(values, lesions, seed=1, resamples=500)
    shuffled = bootstrap_means(values[order], lesions[order], seed=1, resamples=500)
    other = bootstrap_means(values, lesions, seed=2, resamples=500)
    assert first.bca_low[0] == again.bca_low[0]
    assert shuffled.bca_low[0] == pytest.approx(first.bca_low[0], abs=1e-12)
    assert other.bca_low[0] != first.bca_low[0]


def test_constant_values_give_a_point():
    result = bootstrap_means(np.full(50, 0.25), np.arange(50), seed=0, resamples=200)
    for end in (result.percentile_low, result.percentile_high, result.bca_low, result.bca_high):
        assert end[0] == pytest.approx(0.25)
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
        bootstrap_totals(parts, lambda t: t[:, :1] / t[:, 1:], np.arange(10), seed=0, resamples=200)
