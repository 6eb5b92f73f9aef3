"""Segmentation losses on logits: Dice and binary cross-entropy against hard or soft masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.settings import SegmentationLoss

DICE_SMOOTHING = 1.0


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice of each map, with squared terms in the denominator (V-Net, Milletari et al. 2016).

    The squares matter with soft targets: 2 sum(p t) / (sum(p^2) + sum(t^2)) has its optimum at p = t, while the
    denominator sum(p) + sum(t) pushes p to 0 or 1.

    Args:
        logits: (..., h, w) float.
        target: (..., h, w) float in 0..1, the same shape.

    Returns:
        (...) float in 0..1, one loss per map. An empty target with an empty prediction costs 0.
    """
    probability = torch.sigmoid(logits.float())
    target = target.float()
    overlap = (probability * target).sum(dim=(-2, -1))
    size = probability.square().sum(dim=(-2, -1)) + target.square().sum(dim=(-2, -1))
    return 1.0 - (2.0 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)


def bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of each map, in nats per pixel; shapes as in :func:`dice_loss`."""
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return loss.mean(dim=(-2, -1))


def weighted_patches(errors: Tensor, temperature: float) -> Tensor:
    """The patch-wise loss of paper D (equations 6 to 8): (1/N) sum_i w_i L'_i, w = softmax(L' / temperature).

    The weights sum to 1 and the sum is divided by N once more, as the paper prints it.

    Args:
        errors: (B, N) mean squared error L' of each patch.
        temperature: the paper's beta; small values look at the worst patch alone. 0: no weighting, the plain mean.

    Returns:
        (B,)
    """
    if temperature == 0:
        return errors.mean(dim=1)
    return (torch.softmax(errors / temperature, dim=1) * errors).mean(dim=1)


def patch_loss(logits: Tensor, target: Tensor, *, patch_size: int, temperature: float) -> Tensor:
    """``weighted_patches`` of the squared error between probability and mask, shape (B,).

    Args:
        logits, target: (B, 1, h, w); h and w are multiples of ``patch_size``.
    """
    errors = (torch.sigmoid(logits.float()) - target.float()).square()
    return weighted_patches(functional.avg_pool2d(errors, patch_size).flatten(1), temperature)


def resize_target(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average of masks (B, 1, H, W) in 0..1 at ``size`` = (h, w): the share of lesion in each coarse pixel."""
    if tuple(target.shape[-2:]) == size:
        return target
    return functional.interpolate(target, size=size, mode="area")


def segmentation_loss(logits: Tensor, target: Tensor, settings: SegmentationLoss) -> tuple[Tensor, dict[str, float]]:
    """L_seg = dice * Dice + bce * BCE + patch * Patch, mean over the batch (papers A, section 3.7, and D, equation 11).

    Args:
        logits: (B, 1, h, w) float.
        target: (B, 1, H, W) float in 0..1; brought to (h, w) by area averaging. With ``soft_target`` off it is first
            cut at 0.5, the point where the refined binary mask has its edge.
        settings: the weights of the parts.

    Returns:
        The scalar loss and its parts (unweighted) for the history: ``dice_loss``, ``bce_loss`` and, where it counts,
        ``patch_loss``.
    """
    if not settings.soft_target:
        target = (target >= 0.5).to(logits.dtype)
    target = resize_target(target, (logits.shape[-2], logits.shape[-1]))
    dice = dice_loss(logits, target).mean()
    bce = bce_loss(logits, target).mean()
    loss = settings.dice * dice + settings.bce * bce
    parts = {"dice_loss": float(dice.detach()), "bce_loss": float(bce.detach())}
    if settings.patch > 0:
        patch = patch_loss(
            logits, target, patch_size=settings.patch_size, temperature=settings.patch_temperature
        ).mean()
        loss = loss + settings.patch * patch
        parts["patch_loss"] = float(patch.detach())
    return loss, parts
