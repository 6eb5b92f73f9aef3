"""Pixels as a SAM's weights expect them: SAM's own rule, and MedSAM's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Normalisation = Literal["mean_std", "min_max"]
# MedSAM's least range of an image, so that one of a single colour becomes 0.
LEAST_RANGE = 1e-8


def normalise(sam: nn.Module, images: Tensor) -> Tensor:
    """Pixels as the weights of ``sam`` expect them: what its image encoder is given.

    ``mean_std``: (x - mean) / std by channel (segment_anything's ``Sam.preprocess``). ``min_max``: (x - min) /
    (max - min) over all pixels and channels of an image, in [0, 1], 0 for an image of a single colour: MedSAM's, whose
    code gives this to the image encoder and never calls ``preprocess`` (Ma et al., "Segment Anything in Medical
    Images", Nature Communications 2024; MedSAM_Inference.py of bowang-lab/MedSAM).

    Args:
        sam: from ``build_sam``.
        images: (B, 3, S, S) float, 0..255, RGB, already squeezed to the model's size.

    Returns:
        (B, 3, S, S) float.
    """
    if sam.normalisation == "mean_std":
        return (images - sam.pixel_mean) / sam.pixel_std
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(LEAST_RANGE)


def normalisation_of(sam: nn.Module) -> dict[str, str | float | list[float]]:
    """The rule of ``normalise`` and its constants: what an embedding depends on besides weights and pixels."""
    if sam.normalisation == "mean_std":
        return {"rule": "mean_std", "mean": sam.pixel_mean.flatten().tolist(), "std": sam.pixel_std.flatten().tolist()}
    return {"rule": "min_max", "least_range": LEAST_RANGE}
