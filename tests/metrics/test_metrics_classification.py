from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.errors import ScoreError
from lesion_core.metrics import classification as cls


@st.composite
def tables(draw, classes=4):
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10_000]))  # few levels: many ties
    truth = rng.integers(0, classes, n)
    raw = rng.integers(1, levels + 1, (n, classes)).astype(float)
    return truth, raw / raw.sum(axis=1, keepdims=True)


def certain(predicted: list[int], classes: int) -> np.ndarray:
    """Probabilities whose largest is that of the class."""
    return 0.1 / classes + 0.9 * np.eye(classes)[predicted]


def test_hand_worked():
    found = cls.scores(np.array([0, 0, 0, 1, 1, 2]), certain([0, 0, 1, 1, 2, 2], 4))
    assert found["accuracy"] == found["recall_weighted"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["precision"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found["f1_weighted"] == pytest.approx((3 * 4 / 5 + 2 * 2 / 4 + 1 * 2 / 3) / 6)


def area_by_pairs(positive: np.ndarray, score: np.ndarray) -> float:
    over = score[positive][:, None] - score[~positive][None]
    return float(np.mean((over > 0) + 0.5 * (over == 0)))


def best_sensitivity(positive: np.ndarray, score: np.ndarray, specificity: float) -> float:
    kept = [cut for cut in score if np.mean(score[~positive] < cut) >= specificity - 1e-12]
    return max((float(np.mean(score[positive] >= cut)) for cut in kept), default=0.0)


@settings(max_examples=60, deadline=None)
@given(data=tables())
def test_areas_and_sensitivities_equal_counting(data):
    truth, probabilities = data
    found, areas = cls.scores(truth, probabilities), []
    for c in range(4):
        positive, score = truth == c, probabilities[:, c]
        if 0 < positive.sum() < len(positive):
            areas.append(area_by_pairs(positive, score))
            assert cls.auc(positive, score) == pytest.approx(areas[-1])
            assert cls.sensitivity_at_specificity(positive, score) == best_sensitivity(positive, score, 0.95)
    assert found["auc"] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)


@pytest.fixture(scope="module")
def scorer():
    """The challenge's own scorer, as a function of one-hot truth and probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from isic_challenge_scoring import metrics

    def frames(truth, probabilities):
        names = [f"class{c}" for c in range(probabilities.shape[1])]
        hot = np.eye(len(names))[truth]
        return (
            pd.DataFrame(hot, columns=names),
            pd.DataFrame(probabilities, columns=names),
            pd.Series(np.ones(len(hot))),
        )

    return metrics, frames


@settings(max_examples=40, deadline=None)
@given(data=tables())
def test_scores_equal_the_official_scorer(scorer, data):
    metrics, frames = scorer
    truth, probabilities = data
    hot, p, weights = frames(truth, probabilities)
    official = metrics.balanced_multiclass_accuracy(hot, p, weights)
    # of equal largest probabilities we take the lowest index, as NumPy and scikit-learn do; the scorer calls none right
    top = probabilities == probabilities.max(axis=1, keepdims=True)
    judged = np.where(top.sum(axis=1) == 1, probabilities.argmax(axis=1), 4)
    assert cls.balanced_accuracy(truth, judged) == pytest.approx(official)
    if (judged < 4).all():
        assert cls.scores(truth, probabilities)["balanced_accuracy"] == pytest.approx(official)
    for c in range(4):
        positive, score = truth == c, probabilities[:, c]
        if 0 < positive.sum() < len(positive):
            name = f"class{c}"
            assert cls.auc(positive, score) == pytest.approx(metrics.auc(hot[name], p[name], weights))
            theirs = metrics.average_precision(hot[name], p[name], weights)
            assert cls.average_precision(positive, score) == pytest.approx(theirs)


def test_ties_count_half():
    positive = np.array([True, True, False, False])
    assert cls.auc(positive, np.ones(4)) == 0.5
    assert cls.auc(positive, np.array([2.0, 1.0, 1.0, 0.0])) == 3.5 / 4
    assert cls.average_precision(positive, np.ones(4)) == 0.5
    assert cls.sensitivity_at_specificity(positive, np.ones(4)) == 0.0


def test_specificity_of_exactly_95_percent_counts():
    positive = np.r_[np.ones(4, bool), np.zeros(20, bool)]
    score = np.r_[[9.0, 8.0, 5.0, 3.0], [6.0, 4.0], np.zeros(18)]
    # Threshold 5 lets in one of 20 negatives: specificity 0.95; threshold 3 two.
    assert cls.sensitivity_at_specificity(positive, score) == 3 / 4
    assert cls.sensitivity_at_specificity(positive, score, 1.0) == 2 / 4
    assert cls.sensitivity_at_specificity(positive, score, 0.9) == 1.0


def test_one_class_and_absent_classes():
    truth = np.zeros(5, int)
    probabilities = np.tile([0.6, 0.3, 0.1], (5, 1))
    result = cls.scores(truth, probabilities, melanoma=1)
    assert result["accuracy"] == result["balanced_accuracy"] == result["precision"] == result["f1"] == 1.0
    assert np.isnan(result["auc"])
    assert np.isnan(result["melanoma_sensitivity_at_95_specificity"])
    assert result["average_precision"] == 1.0
    assert np.isnan(cls.average_precision(np.zeros(3, bool), np.arange(3.0)))
    two_of_three = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.2, 0.8, 0]])
    assert cls.scores(np.array([0, 0, 1, 1]), two_of_three)["auc"] == 1.0


def test_class_only_predicted_lowers_macro_recall_not_balanced_accuracy():
    found = cls.scores(np.array([0, 0, 1]), certain([0, 2, 1], 4))
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["recall"] == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_equal_largest_probabilities_take_the_lowest_index():
    assert cls.scores(np.array([0, 1]), np.full((2, 2), 0.5))["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("truth", "probabilities", "says"),
    [
        (np.array([0, 3]), np.full((2, 3), 1 / 3), "indices 0..2"),
        (np.array([0, -1]), np.full((2, 3), 1 / 3), "indices 0..2"),
        (np.array([0.0, 1.0]), np.full((2, 3), 1 / 3), "class indices"),
        (np.array([0]), np.full((2, 3), 1 / 3), r"got \(1,\) and \(2, 3\)"),
        (np.array([0, 1]), np.array([[0.5, np.nan], [0.5, 0.5]]), "finite"),
        (np.zeros(0, int), np.zeros((0, 3)), "Expected labels"),
    ],
)
def test_bad_input_is_refused(truth, probabilities, says):
    with pytest.raises(ScoreError, match=says):
        cls.scores(truth, probabilities)
