"""Classification losses: against torch's own, by hand, and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.settings import ClassificationLoss
from lesion_core.training.losses import classification_loss, loss_weights, one_hot

COUNTS = np.array([10, 20, 40, 5, 80, 160, 5])


def settings_of(**changes: object) -> ClassificationLoss:
    base = {
        "weighting": "none",
        "beta": 0.999,
        "focal_gamma": 0.0,
        "label_smoothing": 0.0,
        "sampling": "uniform",
        "mixup_alpha": 0.0,
    }
    return ClassificationLoss(**{**base, **changes})


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 7, generator=generator) * 3, torch.randint(7, (9,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_agrees_with_torch(smoothing: float):
    logits, labels = sample()
    weights = torch.linspace(0.2, 2.0, 7)
    ours = classification_loss(logits, one_hot(labels, 7), weights, settings_of(label_smoothing=smoothing))
    total = torch.nn.functional.cross_entropy(
        logits, labels, weight=weights, label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(ours, total.mean())


def test_mixed_labels_mix_the_losses():
    logits, labels = sample()
    other = labels.flip(0)
    weights = torch.ones(7)
    mixed = 0.3 * one_hot(labels, 7) + 0.7 * one_hot(other, 7)
    parts = [classification_loss(logits, one_hot(each, 7), weights, settings_of()) for each in (labels, other)]
    found = classification_loss(logits, mixed, weights, settings_of())
    torch.testing.assert_close(found, 0.3 * parts[0] + 0.7 * parts[1])


def test_focal_factor_by_hand():
    # two classes, logits (ln 3, 0): p = (3/4, 1/4); the true class is the first
    logits = torch.tensor([[math.log(3.0), 0.0]])
    loss = classification_loss(logits, torch.tensor([[1.0, 0.0]]), torch.ones(2), settings_of(focal_gamma=2.0))
    assert float(loss) == pytest.approx((1 / 4) ** 2 * math.log(4 / 3), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(-30, 30), st.floats(0.1, 5))
def test_focal_loss_is_finite_and_at_most_cross_entropy(margin: float, gamma: float):
    logits = torch.tensor([[margin, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0, 0.0]])
    focal = classification_loss(logits, target, torch.ones(3), settings_of(focal_gamma=gamma))
    focal.backward()
    assert torch.isfinite(focal)
    assert torch.isfinite(logits.grad).all()
    plain = classification_loss(logits.detach(), target, torch.ones(3), settings_of())
    assert float(focal.detach()) <= float(plain) + 1e-7


@pytest.mark.parametrize("weighting", ["none", "inverse_frequency", "effective_number"])
def test_mean_weight_of_a_sample_is_one(weighting: str):
    weights = loss_weights(COUNTS, settings_of(weighting=weighting)).numpy()
    assert (weights * COUNTS).sum() / COUNTS.sum() == pytest.approx(1.0, rel=1e-5)
    balanced = loss_weights(COUNTS, settings_of(weighting=weighting, sampling="inverse_frequency")).numpy()
    assert balanced.mean() == pytest.approx(1.0, rel=1e-5)


def test_effective_number_by_hand():
    weights = loss_weights(np.array([1, 2, 0]), settings_of(weighting="effective_number", beta=0.5)).numpy()
    # (1 - b) / (1 - b^n) = 1 and 1 / 1.5; ratio 3 : 2; mean over the three samples 1: (3 x + 2 * 2 x) / 3 = 1
    np.testing.assert_allclose(weights, [9 / 7, 6 / 7, 0.0], rtol=1e-6)


def test_effective_number_limits():
    """beta 0 weighs all alike; towards 1 the weights go to 1 / n_c."""
    flat, steep = (
        loss_weights(COUNTS, settings_of(weighting="effective_number", beta=beta)).numpy() for beta in (0.0, 1 - 1e-9)
    )
    np.testing.assert_allclose(flat, 1.0, rtol=1e-6)
    inverse = loss_weights(COUNTS, settings_of(weighting="inverse_frequency")).numpy()
    np.testing.assert_allclose(steep, inverse, rtol=1e-5)


def test_inverse_frequency_gives_every_class_the_same_total():
    weights = loss_weights(COUNTS, settings_of(weighting="inverse_frequency")).numpy()
    np.testing.assert_allclose(weights * COUNTS, COUNTS.sum() / 7, rtol=1e-5)


def test_a_class_without_images_weighs_nothing():
    counts = np.array([3, 0, 1])
    for weighting in ("none", "inverse_frequency", "effective_number"):
        assert loss_weights(counts, settings_of(weighting=weighting))[1] == 0
