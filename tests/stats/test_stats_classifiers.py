from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from lesion_core.errors import ScoreError
from lesion_core.stats.classifiers import delong, mcnemar_clustered, mcnemar_exact


def brute_force(positive, a, b):
    """AUCs and covariance by the structural components, pair by pair (DeLong 1988)."""
    kernels = []
    for score in (a, b):
        x, y = score[positive][:, None], score[~positive][None, :]
        kernels.append((x > y) + 0.5 * (x == y))
    aucs = [k.mean() for k in kernels]
    s10 = np.cov([k.mean(axis=1) for k in kernels])
    s01 = np.cov([k.mean(axis=0) for k in kernels])
    return aucs, s10 / positive.sum() + s01 / (~positive).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 1000]))
def test_delong_equals_brute_force(seed, levels):
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.r_[np.ones(9, bool), np.zeros(14, bool)])
    a = rng.integers(0, levels, 23) + positive * levels / 3
    b = rng.integers(0, levels, 23) + positive * levels / 5
    aucs, cov = brute_force(positive, a, b)
    result = delong(positive, a, b)
    assert (result.auc_a, result.auc_b) == pytest.approx(aucs)
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    assert result.standard_error == pytest.approx(math.sqrt(max(0.0, variance)), abs=1e-9)
    mirrored = delong(positive, b, a)
    assert mirrored.difference == pytest.approx(-result.difference)
    assert mirrored.p == pytest.approx(result.p, nan_ok=True)


def test_delong_hand_worked():
    positive = np.array([True, True, False, False])
    a, b = np.array([4.0, 3.0, 2.0, 1.0]), np.array([4.0, 1.5, 2.0, 1.0])
    result = delong(positive, a, b)
    assert (result.auc_a, result.auc_b, result.difference) == (1.0, 0.75, 0.25)
    # Score b: placements (1, 1/2) and (1/2, 1), variance 1/8 each, over 2 each.
    assert result.standard_error == pytest.approx(math.sqrt(1 / 8 / 2 + 1 / 8 / 2))
    assert result.z == pytest.approx(0.25 / math.sqrt(1 / 8))
    assert result.p == pytest.approx(math.erfc(result.z / math.sqrt(2)))
    assert result.ci_low < 0 < result.ci_high


def test_delong_interval_covers_and_the_level_holds():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(300):
        positive = np.r_[np.ones(40, bool), np.zeros(60, bool)]
        shared = rng.normal(size=100) + positive
        rejected += delong(positive, shared + rng.normal(size=100), shared + rng.normal(size=100)).p < 0.05
    assert 0.015 < rejected / 300 < 0.1


def test_delong_by_lesion():
    rng = np.random.default_rng(3)
    lesion = np.repeat(np.arange(60), 3)
    positive = np.repeat(rng.random(60) < 0.4, 3)
    a = positive + np.repeat(rng.normal(size=60), 3) + 0.01 * rng.normal(size=180)
    b = positive + np.repeat(rng.normal(size=60), 3) + 0.01 * rng.normal(size=180)
    alone = delong(positive, a, b)
    same = delong(positive, a, b, clusters=np.arange(180))
    by_lesion = delong(positive, a, b, clusters=lesion)
    assert same == alone
    assert by_lesion.auc_a == alone.auc_a
    # Three near copies of each lesion carry the information of one.
    assert by_lesion.standard_error == pytest.approx(math.sqrt(3) * alone.standard_error, rel=0.05)


def test_delong_without_difference():
    positive = np.array([True, True, False, False])
    result = delong(positive, np.array([4.0, 3.0, 2.0, 1.0]), np.array([8.0, 7.0, 6.0, 5.0]))
    assert (result.difference, result.z, result.p) == (0.0, 0.0, 1.0)
    separated = delong(positive, np.array([4.0, 3.0, 2.0, 1.0]), -np.array([4.0, 3.0, 2.0, 1.0]))
    assert separated.difference == 1.0
    assert math.isnan(separated.p)


@pytest.mark.parametrize(
    ("positive", "says"),
    [
        (np.array([True, False, False, False]), "two positive"),
        (np.ones(4, bool), "two positive"),
        (np.array([1, 0, 1, 0]), "Expected bool"),
    ],
)
def test_delong_refuses(positive, says):
    with pytest.raises(ScoreError, match=says):
        delong(positive, np.arange(4.0), np.arange(4.0))


def pairs(only_a: int, only_b: int, both: int = 5):
    a = np.r_[np.ones(only_a, bool), np.zeros(only_b, bool), np.ones(both, bool)]
    b = np.r_[np.zeros(only_a, bool), np.ones(only_b, bool), np.ones(both, bool)]
    return a, b


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_statsmodels(only_a, only_b):
    result = mcnemar_exact(*pairs(only_a, only_b))
    assert (result.only_a, result.only_b) == (only_a, only_b)
    if only_a + only_b:
        expected = mcnemar([[5, only_a], [only_b, 0]], exact=True).pvalue
        assert result.p == pytest.approx(expected)
    else:
        assert result.p == 1.0


def test_mcnemar_hand_worked():
    # 1 against 5: 2 (1 + 6) / 64.
    result = mcnemar_exact(*pairs(1, 5))
    assert result.p == 14 / 64
    assert result.p_smallest == 2 / 64


def test_mcnemar_of_many_images():
    result = mcnemar_exact(*pairs(2000, 1500))
    assert 0 < result.p < 1e-15
    assert mcnemar_exact(*pairs(1500, 2000)).p == result.p


def test_mcnemar_refuses_labels():
    with pytest.raises(ScoreError, match="Expected bool"):
        mcnemar_exact(np.array([1, 0]), np.array([True, False]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_by_lesion_of_single_images_equals_statsmodels(only_a, only_b):
    a, b = pairs(only_a, only_b)
    result = mcnemar_clustered(a, b, np.arange(len(a)))
    if only_a + only_b:
        expected = mcnemar([[5, only_a], [only_b, 0]], exact=False, correction=False)
        assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    else:
        assert (result.statistic, result.p) == (0.0, 1.0)


def test_mcnemar_of_the_presidents_approval():
    # Agresti, Categorical Data Analysis, approval ratings of 1600 people: z = (86 - 150) / sqrt(86 + 150) = -4.17
    a, b = pairs(86, 150, both=794 + 570)
    result = mcnemar_clustered(a, b, np.arange(1600))
    assert math.sqrt(result.statistic) == pytest.approx(4.17, abs=0.005)
    assert mcnemar_exact(a, b).p == pytest.approx(result.p, rel=0.3)


def test_mcnemar_by_lesion_hand_worked():
    a = np.array([True, True, True, False, True, False])
    b = np.array([False, False, True, True, True, False])
    # lesions of 3, 2 and 1 images: shares 2/3, -1/2, 0
    result = mcnemar_clustered(a, b, np.array(list("xxxyyz")))
    assert result.statistic == pytest.approx((2 / 3 - 1 / 2) ** 2 / (4 / 9 + 1 / 4))
    assert (result.clusters, result.informative) == (3, 2)


def test_copies_of_an_image_do_not_add_evidence_by_lesion():
    a, b = pairs(3, 12)
    alone = mcnemar_clustered(a, b, np.arange(20))
    copied = mcnemar_clustered(np.repeat(a, 4), np.repeat(b, 4), np.repeat(np.arange(20), 4))
    assert copied == alone
    assert mcnemar_exact(np.repeat(a, 4), np.repeat(b, 4)).p < 1e-3 < mcnemar_exact(a, b).p


def test_mcnemar_by_lesion_keeps_its_level():
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(300):
        lesions = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        # whole lesions are right or wrong: images are anything but independent
        a, b = (rng.random(60)[lesions] < 0.7 for _ in range(2))
        rejected += mcnemar_clustered(a, b, lesions).p < 0.05
    assert 0.015 < rejected / 300 < 0.09


def test_mcnemar_by_lesion_refuses():
    with pytest.raises(ScoreError, match="lesions"):
        mcnemar_clustered(np.array([True]), np.array([True]), np.array(["a", "b"]))
