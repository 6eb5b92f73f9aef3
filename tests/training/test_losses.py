"""Segmentation losses: hand-worked values, properties of soft targets, parity with torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.settings import SegmentationLoss
from lesion_core.training.losses import bce_loss, dice_loss, resize_target, segmentation_loss

BOTH = SegmentationLoss(dice=1.0, bce=1.0, soft_target=True)


def test_dice_by_hand():
    # p = 1/2 everywhere, t = (1, 0, 0, 0): 1 - (2 * 1/2 + 1) / (4 * 1/4 + 1 + 1) = 1 - 2/3
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert dice_loss(torch.zeros(2, 2), target).item() == pytest.approx(1 / 3)


def test_bce_by_hand():
    target = torch.tensor([[1.0, 0.0]])
    logits = torch.tensor([[math.log(3.0), math.log(3.0)]])
    # p = 3/4: (-ln(3/4) - ln(1/4)) / 2
    assert bce_loss(logits, target).item() == pytest.approx((-math.log(0.75) - math.log(0.25)) / 2, rel=1e-6)
    twice = (-2 * math.log(0.75) - math.log(0.25)) / 2
    assert bce_loss(logits, target, 2.0).item() == pytest.approx(twice, rel=1e-6)
    lesions = SegmentationLoss(dice=0.0, bce=1.0, lesion_weight=2.0, soft_target=False)
    found = segmentation_loss(logits[None, None], target[None, None], lesions)[0]
    assert found.item() == pytest.approx(twice, rel=1e-6)


def test_perfect_prediction_costs_next_to_nothing_and_empty_on_empty_nothing():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:5, 2:5] = 1.0
    loss, parts = segmentation_loss((target - 0.5) * 80.0, target, BOTH)
    assert loss.item() < 1e-6
    assert set(parts) == {"dice_loss", "bce_loss"}
    assert dice_loss(torch.full((4, 4), -80.0), torch.zeros(4, 4)).item() == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.98), st.integers(0, 10_000))
def test_a_soft_target_is_its_own_best_prediction(value, seed):
    """The squared denominator makes p = t the optimum; the plain one would push p to 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(1, 6, 6, generator=generator) * 0.9 + 0.05
    target[0, 0, 0] = value
    best = torch.logit(target)
    other = best + torch.randn(best.shape, generator=generator) * 0.3
    assert dice_loss(best, target).item() <= dice_loss(other, target).item() + 1e-7
    assert bce_loss(best, target).item() <= bce_loss(other, target).item() + 1e-7


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_range_and_batch_independence(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 1, 5, 7, generator=generator) * 5
    target = (torch.rand(3, 1, 5, 7, generator=generator) > 0.5).float()
    loss = dice_loss(logits, target)
    assert ((loss >= 0) & (loss <= 1)).all()
    # not to the bit: kernels add up rows of a batch in another order, which depends on the version
    torch.testing.assert_close(loss[1], dice_loss(logits[1], target[1]), rtol=1e-6, atol=1e-7)


def test_weights_and_parity_with_torch():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 1, 4, 4, generator=generator), torch.rand(2, 1, 4, 4, generator=generator)
    loss, parts = segmentation_loss(logits, target, SegmentationLoss(dice=0.4, bce=1.2, soft_target=True))
    reference = torch.nn.BCEWithLogitsLoss()(logits, target)
    assert parts["bce_loss"] == pytest.approx(reference.item(), rel=1e-6)
    assert loss.item() == pytest.approx(0.4 * parts["dice_loss"] + 1.2 * parts["bce_loss"], rel=1e-6)


def test_coarse_targets_are_area_averages():
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, :2, 0] = 1.0
    assert torch.equal(resize_target(target, (2, 2)), torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]))
    assert resize_target(target, (4, 4)) is target


def test_a_hard_target_is_cut_before_it_is_made_coarse():
    target = torch.tensor([[[[0.6, 0.4], [0.4, 0.4]]]])
    hard = SegmentationLoss(dice=0.0, bce=1.0, soft_target=False)
    loss, _ = segmentation_loss(torch.zeros(1, 1, 1, 1), target, hard)
    assert loss.item() == pytest.approx(math.log(2))
    logits = torch.full((1, 1, 1, 1), 2.0)
    loss, _ = segmentation_loss(logits, target, hard)
    assert loss.item() == pytest.approx(bce_loss(logits, torch.full((1, 1, 1, 1), 0.25)).item())


def test_half_precision_logits_are_computed_in_float32():
    logits = torch.full((1, 1, 128, 128), 0.0, dtype=torch.float16)
    loss, _ = segmentation_loss(logits, torch.ones(1, 1, 128, 128), BOTH)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
