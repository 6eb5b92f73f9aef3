"""Classification losses: weighted cross-entropy on hard, smoothed or mixed labels, optionally focal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.settings import ClassificationLoss
from lesion_core.training.balance import class_weights


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
    weights = class_weights(counts, settings.weighting, settings.beta) * (counts > 0)
    seen = counts if settings.sampling == "uniform" else (counts > 0).astype(np.float64)
    return torch.from_numpy(weights * seen.sum() / (weights * seen).sum()).float()


def one_hot(labels: np.ndarray | Tensor, classes: int) -> Tensor:
    """int (B,) in 0..classes - 1 -> float32 (B, classes)."""
    return functional.one_hot(torch.as_tensor(labels, dtype=torch.long), classes).float()


def classification_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0
) -> Tensor:
    """Mean over the batch of - sum_c w_c t_c (1 - p_c)^gamma log p_c.

    Args:
        logits: (B, C) float. targets: (B, C) float, rows sum to 1: one-hot, or mixed by mixup.
        weights: (C,) class weights.
        label_smoothing: e in t = (1 - e) target + e / C (Szegedy et al., CVPR 2016).
        focal_gamma: gamma of the focal loss (Lin et al., ICCV 2017); 0 is cross-entropy. With
            effective-number weights this is the class-balanced focal loss of Cui et al., in its softmax form.

    Returns:
        Scalar. With gamma 0, one-hot targets and weights of 1 it is torch's cross-entropy.
    """
    logarithms = functional.log_softmax(logits.float(), dim=1)
    targets = (1.0 - label_smoothing) * targets + label_smoothing / targets.shape[1]
    terms = weights * targets * logarithms
    if focal_gamma > 0:
        # -expm1 keeps 1 - p exact near p = 1, where the gradient of a power would otherwise be lost
        terms = terms * (-torch.expm1(logarithms)).clamp_min(1e-12) ** focal_gamma
    return -terms.sum(dim=1).mean()
