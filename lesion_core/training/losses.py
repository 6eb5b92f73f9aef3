"""Losses on logits: Dice, binary cross-entropy and patches of masks; weighted (focal) cross-entropy of classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.settings import ClassificationLoss, SegmentationLoss

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


def bce_loss(logits: Tensor, target: Tensor, lesion_weight: float = 1.0) -> Tensor:
    """Mean binary cross-entropy of each map, in nats per pixel; shapes as in :func:`dice_loss`."""
    weight = logits.new_tensor(lesion_weight, dtype=torch.float32)
    loss = functional.binary_cross_entropy_with_logits(
        logits.float(), target.float(), reduction="none", pos_weight=weight
    )
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
    bce = bce_loss(logits, target, settings.lesion_weight).mean()
    loss = settings.dice * dice + settings.bce * bce
    parts = {"dice_loss": float(dice.detach()), "bce_loss": float(bce.detach())}
    if settings.patch > 0:
        patch = patch_loss(
            logits, target, patch_size=settings.patch_size, temperature=settings.patch_temperature
        ).mean()
        loss = loss + settings.patch * patch
        parts["patch_loss"] = float(patch.detach())
    return loss, parts


def class_weights(counts: np.ndarray, settings: ClassificationLoss) -> np.ndarray:
    """float64 (C,): w_c ~ 1 / n_c, or ~ (1 - beta) / (1 - beta^n_c) (Cui et al., CVPR 2019, equation 6), or 1.

    Not scaled; without meaning for a class without samples.
    """
    known = np.maximum(counts, 1.0)
    if settings.weighting == "inverse_frequency":
        return 1.0 / known
    if settings.weighting == "effective_number" and settings.beta > 0:
        # expm1 and log1p keep the digits when beta^n is close to 1.
        return (1.0 - settings.beta) / -np.expm1(known * np.log(settings.beta))
    return np.ones(len(counts))


def loss_weights(counts: np.ndarray, settings: ClassificationLoss) -> Tensor:
    """Class weights of the loss, scaled so that a training sample's mean weight is 1.

    With that scale the loss keeps its size, and with it the meaning of learning rate, gradient clipping and
    of l1 : l2 in joint training, whatever the weighting.

    Args:
        counts: (C,) training images per class.
        settings: ``weighting`` none, inverse_frequency (w_c ~ 1 / n_c) or effective_number (w_c ~ (1 - beta)
            / (1 - beta^n_c), Cui et al., CVPR 2019); ``sampling`` decides how often a class is seen.

    Returns:
        float32 (C,), 0 for a class without images.
    """
    counts = np.asarray(counts, np.float64)
    weights = np.where(counts > 0, class_weights(counts, settings), 0.0)
    seen = counts if settings.sampling == "uniform" else (counts > 0).astype(np.float64)
    return torch.from_numpy(weights * seen.sum() / (weights * seen).sum()).float()


def one_hot(labels: np.ndarray | Tensor, classes: int) -> Tensor:
    """int (B,) in 0..classes - 1 -> float32 (B, classes)."""
    return functional.one_hot(torch.as_tensor(labels, dtype=torch.long), classes).float()


def classification_loss(logits: Tensor, targets: Tensor, weights: Tensor, settings: ClassificationLoss) -> Tensor:
    """Mean over the batch of - sum_c w_c t_c (1 - p_c)^gamma log p_c.

    Args:
        logits: (B, C) float.
        targets: (B, C) float, rows sum to 1: one-hot, or mixed by mixup.
        weights: (C,) class weights.
        settings: ``label_smoothing`` is e in t = (1 - e) target + e / C (Szegedy et al., CVPR 2016); ``focal_gamma`` is
            gamma of the focal loss (Lin et al., ICCV 2017), 0 is cross-entropy. With effective-number weights this is
            the class-balanced focal loss of Cui et al., in its softmax form.

    Returns:
        Scalar. With gamma 0, one-hot targets and weights of 1 it is torch's cross-entropy.
    """
    label_smoothing, focal_gamma = settings.label_smoothing, settings.focal_gamma
    logarithms = functional.log_softmax(logits.float(), dim=1)
    targets = (1.0 - label_smoothing) * targets + label_smoothing / targets.shape[1]
    terms = weights * targets * logarithms
    if focal_gamma > 0:
        # -expm1 keeps 1 - p exact near p = 1, where the gradient of a power would otherwise be lost
        terms = terms * (-torch.expm1(logarithms)).clamp_min(1e-12) ** focal_gamma
    return -terms.sum(dim=1).mean()
