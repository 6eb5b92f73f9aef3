"""Class balance: hand fractions, Cui et al.'s formula, mixup."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.training import balance


def test_sampling_probabilities_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, -1])
    p = balance.sampling_probabilities(labels, classes=4)
    np.testing.assert_allclose(p, [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6, 0])


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=200).filter(lambda labels: max(labels) >= 0))
@settings(max_examples=50, deadline=None)
def test_every_class_present_is_drawn_equally_often(labels: list[int]) -> None:
    array = np.array(labels)
    p = balance.sampling_probabilities(array, classes=7)
    assert p.sum() == pytest.approx(1.0)
    present = np.unique(array[array >= 0])
    for label in present:
        assert p[array == label].sum() == pytest.approx(1 / len(present))
    assert (p[array == -1] == 0).all()


@pytest.mark.parametrize("labels", [[-1, -1], []])
def test_no_label_at_all_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="no sample"):
        balance.sampling_probabilities(np.array(labels, int), classes=7)


@pytest.mark.parametrize("labels", [[0, 7], [-2, 0]])
def test_labels_out_of_range_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels must lie"):
        balance.class_counts(np.array(labels), classes=7)


def test_inverse_frequency_weights_by_hand() -> None:
    np.testing.assert_allclose(balance.inverse_frequency_weights(np.array([1, 2, 0])), [4 / 3, 2 / 3, 0])


def test_effective_number_weights_by_the_papers_formula() -> None:
    counts, beta = np.array([327, 514, 1099, 115, 1113, 6705, 142]), 0.999  # HAM10000
    raw = (1 - beta) / (1 - beta ** counts.astype(float))
    np.testing.assert_allclose(balance.effective_number_weights(counts, beta), raw / raw.sum() * 7, rtol=1e-10)
    # n = 1 gives (1 - b) / (1 - b) = 1; n = 2 gives 1 / (1 + b)
    np.testing.assert_allclose(
        balance.effective_number_weights(np.array([1, 2]), 0.5), np.array([1, 2 / 3]) / (5 / 3) * 2
    )


def test_effective_number_limits() -> None:
    counts = np.array([10, 100, 0, 1000])
    np.testing.assert_allclose(balance.effective_number_weights(counts, 0.0), [1, 1, 0, 1])
    np.testing.assert_allclose(
        balance.effective_number_weights(counts, 1 - 1e-9), balance.inverse_frequency_weights(counts), rtol=1e-5
    )


def test_weights_by_name() -> None:
    counts = np.array([3, 1])
    np.testing.assert_array_equal(balance.class_weights(counts, "none", 0.999), [1, 1])
    np.testing.assert_allclose(balance.class_weights(counts, "inverse_frequency", 0.999), [0.5, 1.5])
    np.testing.assert_array_equal(
        balance.class_weights(counts, "effective_number", 0.9), balance.effective_number_weights(counts, 0.9)
    )
    with pytest.raises(ValueError, match="unknown"):
        balance.class_weights(counts, "typo", 0.9)


def test_mixup_mixes_images_and_targets_alike() -> None:
    rng = np.random.default_rng(4)
    images = rng.random((6, 3, 5, 5)).astype(np.float32)
    targets = np.eye(6, dtype=np.float32)
    share, partner = balance.draw_mixup(6, 0.4, np.random.default_rng(9))
    mixed, labels = balance.mixup(images, targets, 0.4, np.random.default_rng(9))
    np.testing.assert_allclose(mixed, share * images + (1 - share) * images[partner], rtol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
    for row in range(6):
        weight = {row: 0.0, int(partner[row]): 0.0}
        weight[row] += share
        weight[int(partner[row])] += 1 - share
        for column, value in weight.items():
            assert labels[row, column] == pytest.approx(value, abs=1e-6)
    assert mixed.dtype == np.float32


def test_mixup_of_tensors_equals_mixup_of_arrays() -> None:
    torch = pytest.importorskip("torch")
    images, targets = np.random.default_rng(0).random((4, 2)).astype(np.float32), np.eye(4, dtype=np.float32)
    a, b = balance.mixup(images, targets, 0.4, np.random.default_rng(1))
    c, d = balance.mixup(torch.from_numpy(images), torch.from_numpy(targets), 0.4, np.random.default_rng(1))
    np.testing.assert_allclose(a, c.numpy(), rtol=1e-6)
    np.testing.assert_allclose(b, d.numpy(), rtol=1e-6)


def test_mixup_off_returns_the_inputs_and_draws_follow_beta() -> None:
    images, targets = np.ones((2, 3)), np.eye(2)
    mixed, labels = balance.mixup(images, targets, 0.0, np.random.default_rng(0))
    assert mixed is images
    assert labels is targets
    rng = np.random.default_rng(0)
    shares = np.array([balance.draw_mixup(2, 0.4, rng)[0] for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    # Var Beta(a, a) = 1 / (4 (2a + 1)); 4 * 1.8 = 7.2
    assert shares.var() == pytest.approx(1 / 7.2, abs=0.01)
