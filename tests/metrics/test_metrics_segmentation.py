from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from lesion_core.errors import ScoreError
from lesion_core.metrics import segmentation as seg

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
PREDICTION = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
EMPTY, FULL = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)

masks = arrays(np.bool_, (4, 5))


def official(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from isic_challenge_scoring import metrics
        from isic_challenge_scoring.confusion import create_binary_confusion_matrix

    table = create_binary_confusion_matrix(truth, prediction)
    return {
        "dice": metrics.binary_dice(table),
        "iou": metrics.binary_jaccard(table),
        "thresholded_iou": metrics.binary_threshold_jaccard(table, threshold=0.65),
        "sensitivity": metrics.binary_sensitivity(table),
        "specificity": metrics.binary_specificity(table),
        "accuracy": metrics.binary_accuracy(table),
    }


def test_hand_worked_fractions():
    counts = seg.confusion(PREDICTION, TRUTH)
    assert counts == (3, 2, 1, 10)
    assert seg.dice(counts) == 6 / 9
    assert seg.iou(counts) == 3 / 6
    assert seg.thresholded_iou(counts) == 0.0
    assert seg.sensitivity(counts) == 3 / 4
    assert seg.specificity(counts) == 10 / 12
    assert seg.accuracy(counts) == 13 / 16


def test_threshold_is_inclusive():
    assert seg.thresholded_iou(seg.Confusion(13, 7, 0, 0)) == 13 / 20
    assert seg.thresholded_iou(seg.Confusion(12, 8, 0, 0)) == 0.0


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, {"dice": 1, "iou": 1, "thresholded_iou": 1, "sensitivity": 1, "specificity": 1, "accuracy": 1}),
        (FULL, FULL, {"dice": 1, "iou": 1, "thresholded_iou": 1, "sensitivity": 1, "specificity": 1, "accuracy": 1}),
        (EMPTY, FULL, {"dice": 0, "iou": 0, "thresholded_iou": 0, "sensitivity": 0, "specificity": 1, "accuracy": 0}),
        (FULL, EMPTY, {"dice": 0, "iou": 0, "thresholded_iou": 0, "sensitivity": 1, "specificity": 0, "accuracy": 0}),
    ],
)
def test_empty_and_full_masks(prediction, truth, expected):
    assert seg.scores(seg.confusion(prediction, truth)) == expected
    assert official(truth, prediction) == expected


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_equals_the_challenge_scorer(prediction, truth):
    assert seg.scores(seg.confusion(prediction, truth)) == pytest.approx(official(truth, prediction), abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, (3, 4, 5)), arrays(np.bool_, (3, 4, 5)))
def test_arrays_of_counts_equal_single_images_and_pooling_adds(predictions, truths):
    singles = [seg.confusion(p, t) for p, t in zip(predictions, truths, strict=True)]
    batch = seg.Confusion(*(np.array(part) for part in zip(*singles, strict=True)))
    np.testing.assert_array_equal(seg.dice(batch), [seg.dice(c) for c in singles])
    np.testing.assert_array_equal(seg.thresholded_iou(batch), [seg.thresholded_iou(c) for c in singles])
    assert seg.pooled(batch) == seg.confusion(predictions.reshape(3, -1), truths.reshape(3, -1))


@settings(max_examples=40, deadline=None)
@given(masks, masks)
def test_dice_and_iou_of_one_image_are_one_number(prediction, truth):
    counts = seg.confusion(prediction, truth)
    d = seg.dice(counts)
    assert seg.iou(counts) == pytest.approx(d / (2 - d))
    assert sum(counts) == truth.size
    assert seg.confusion(truth, prediction) == (counts.tp, counts.fn, counts.fp, counts.tn)


def test_mean_and_pooled_differ():
    counts = seg.Confusion(*(np.array(part) for part in ([1, 90], [1, 5], [1, 5], [97, 0])))
    assert seg.dice(counts).mean() == pytest.approx((1 / 2 + 18 / 19) / 2)
    assert seg.dice(seg.pooled(counts)) == pytest.approx(182 / 194)


@pytest.mark.parametrize(
    ("prediction", "truth", "says"),
    [
        (PREDICTION.astype(np.uint8), TRUTH, "uint8"),
        (PREDICTION.astype(np.float32), TRUTH, "threshold"),
        (PREDICTION, TRUTH[:3], "resize"),
        (np.zeros((0, 4), bool), np.zeros((0, 4), bool), "no pixel"),
    ],
)
def test_bad_masks_are_refused(prediction, truth, says):
    with pytest.raises(ScoreError, match=says):
        seg.confusion(prediction, truth)


def test_pooling_nothing_is_refused():
    with pytest.raises(ScoreError, match="at least one image"):
        seg.pooled(seg.Confusion(*(np.zeros(0, int) for _ in range(4))))
