from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.errors import ScoreError
from lesion_core.metrics import classification as cls


@pytest.fixture(scope="module")
def sk():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn import metrics
    return metrics


@st.composite
def tables(draw, classes=4):
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10_000]))  # few levels: many ties
    truth = rng.integers(0, classes, n)
    raw = rng.integers(1, levels + 1, (n, classes)).astype(float)
    return truth, raw / raw.sum(axis=1, keepdims=True)


def test_hand_worked_matrix():
    truth = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 2, 2])
    matrix = cls.confusion_matrix(truth, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert cls.accuracy(matrix) == pytest.approx(4 / 6)
    assert cls.balanced_accuracy(matrix) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    each = cls.per_class(matrix)
    assert each.precision.tolist() == pytest.approx([1, 1 / 2, 1 / 2, 0])
    assert each.f1.tolist() == pytest.approx([4 / 5, 2 / 4, 2 / 3, 0])
    assert cls.macro(matrix).precision == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert cls.weighted(matrix).f1 == pytest.approx((3 * 4 / 5 + 2 * 2 / 4 + 1 * 2 / 3) / 6)


@settings(max_examples=60, deadline=None)
@given(data=tables())
def test_averages_equal_scikit_learn(sk, data):
    truth, probabilities = data
    predicted = probabilities.argmax(axis=1)
    matrix = cls.confusion_matrix(truth, predicted, 4)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, predicted, labels=range(4)))
    assert cls.accuracy(matrix) == pytest.approx(sk.accuracy_score(truth, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cls.balanced_accuracy(matrix) == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    for name, ours in (("macro", cls.macro(matrix)), ("weighted", cls.weighted(matrix))):
        theirs = sk.precision_recall_fscore_support(truth, predicted, average=name, zero_division=0)
        assert tuple(ours) == pytest.approx(theirs[:3])
    assert cls.weighted(matrix).recall == pytest.approx(cls.accuracy(matrix))


@settings(max_examples=60, deadline=None)
@given(data=tables())
def test_curves_equal_scikit_learn(sk, data):
    truth, probabilities = data
    for c in range(4):
        positive, score = truth == c, probabilities[:, c]
        if 0 < positive.sum() < len(positive):
            assert cls.auc(positive, score) == pytest.approx(sk.roc_auc_score(positive, score))
            fpr, tpr, _ = sk.roc_curve(positive, score, drop_intermediate=False)
            best = tpr[fpr <= 0.05 + 1e-12].max()
            assert cls.sensitivity_at_specificity(positive, score) == pytest.approx(best)
        if positive.any():
            assert cls.average_precision(positive, score) == pytest.approx(sk.average_precision_score(positive, score))


def test_macro_auc_equals_scikit_learn(sk):
    rng = np.random.default_rng(4)
    truth = np.r_[np.arange(4), rng.integers(0, 4, 60)]
    raw = rng.random((64, 4)) + 0.3 * np.eye(4)[truth]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    expected = sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert cls.scores(truth, probabilities)["auc"] == pytest.approx(expected)


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
    strict = cls.confusion_matrix(truth, judged, 5)
    assert cls.balanced_accuracy(strict) == pytest.approx(official)
    if (judged < 4).all():
        assert cls.scores(truth, probabilities)["balanced_accuracy"] == pytest.approx(official)
    for c in range(4):
        positive, score = truth == c, probabilities[:, c]
        if 0 < positive.sum() < len(positive):
            name = f"class{c}"
            assert cls.auc(positive, score) == pytest.approx(metrics.auc(hot[name], p[name], weights))
            theirs = metrics.average_precision(hot[name], p[name], weights)
            assert cls.average_precision(positive, score) == pytest.approx(theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_midranks_equal_scipy(values):
    from scipy.stats import rankdata

    np.testing.assert_array_equal(cls.midranks(np.array(values, float)), rankdata(values))


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
    truth = np.array([0, 0, 1, 1])
    values = cls.auc_per_class(truth, np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.2, 0.8, 0]]))
    assert values[:2].tolist() == [1.0, 1.0]
    assert np.isnan(values[2])
    assert cls.nan_mean(values) == 1.0


def test_class_only_predicted_lowers_macro_recall_not_balanced_accuracy():
    matrix = cls.confusion_matrix(np.array([0, 0, 1]), np.array([0, 2, 1]), 3)
    assert cls.balanced_accuracy(matrix) == pytest.approx((1 / 2 + 1) / 2)
    assert cls.macro(matrix).recall == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_equal_largest_probabilities_take_the_lowest_index():
    assert cls.scores(np.array([0, 1]), np.full((2, 2), 0.5))["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("truth", "probabilities", "says"),
    [
        (np.array([0, 3]), np.full((2, 3), 1 / 3), "outside 0..2"),
        (np.array([0, -1]), np.full((2, 3), 1 / 3), "outside 0..2"),
        (np.array([0.0, 1.0]), np.full((2, 3), 1 / 3), "not class indices"),
        (np.array([0]), np.full((2, 3), 1 / 3), "1 true labels but 2"),
        (np.array([0, 1]), np.array([[0.5, np.nan], [0.5, 0.5]]), "NaN"),
        (np.zeros(0, int), np.zeros((0, 3)), "not a list"),
    ],
)
def test_bad_input_is_refused(truth, probabilities, says):
    with pytest.raises(ScoreError, match=says):
        cls.scores(truth, probabilities)
