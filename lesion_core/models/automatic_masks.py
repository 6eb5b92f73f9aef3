"""A lesion mask from SAM without a prompt: a grid of points, masks kept by their quality, and one of them taken.

Grid, estimated IoU and stability are those of segment_anything's SamAutomaticMaskGenerator (Kirillov et al., ICCV 2023,
appendix B), at one scale. Overlapping masks are not weeded out, since one mask is taken in the end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.models.sam.frame import PaddedSam
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.settings import AutomaticMasks

# Points decoded at once; at 1024 pixels they take about 1 GB.
CHUNK = 32
# Rec. 601
LUMA = (0.299, 0.587, 0.114)
# The logit of a mask that is empty for certain.
EMPTY = -20.0


def point_grid(per_side: int, size: int) -> np.ndarray:
    """(per_side^2, 2) float32 points (x, y) in pixels, the centres of per_side x per_side equal squares, by rows."""
    centres = (np.arange(per_side) + 0.5) * size / per_side
    x, y = np.meshgrid(centres, centres)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def stability(logits: Tensor, offset: float) -> Tensor:
    """IoU of the masks (..., h, w) cut ``offset`` above and below logit 0, shape (...); 0 if the wider one is empty."""
    narrow = (logits > offset).sum(dim=(-2, -1))
    wide = (logits > -offset).sum(dim=(-2, -1))
    return narrow / wide.clamp_min(1)


def darkness(masks: Tensor, luminance: Tensor) -> Tensor:
    """How well a mask separates a dark lesion from light skin: Otsu's between-class variance, w (1 - w) (m1 - m0)^2.

    Args:
        masks: (M, h, w) bool. luminance: (h, w).

    Returns:
        (M,) float32; 0 where the inside is not darker than the outside, or one of them is empty.
    """
    inside = masks.flatten(1).float()
    count = inside.sum(dim=1)
    total = inside.shape[1]
    values = luminance.flatten()
    summed = inside @ values
    inner = summed / count.clamp_min(1)
    outer = (values.sum() - summed) / (total - count).clamp_min(1)
    share = count / total
    return share * (1 - share) * (outer - inner).clamp_min(0).square()


@torch.no_grad()
def automatic_lesions(
    segmenter: SamSegmenter | PaddedSam, embeddings: Tensor, images: Tensor, settings: AutomaticMasks
) -> Tensor:
    """The lesion's logits of each image, no truth involved.

    Every grid point gives SAM's three masks. Those with an estimated IoU and a stability at or above the thresholds are
    kept (all, if none is); of them the one with the greatest ``darkness`` is the lesion. That rule is ours: SAM
    segments everything, and a lesion is what is darker than the skin around it.

    Args:
        segmenter: a SAM; in its own frame, of one image.
        embeddings: (B, C, g, g) of the images.
        images: (B, 3, S, S) float RGB, 0..255.
        settings: grid and thresholds.

    Returns:
        (B, 1, S/4, S/4) float32; where no mask is darker than its outside, a mask that is empty.
    """
    points = torch.from_numpy(point_grid(settings.points_per_side, segmenter.image_size)).to(embeddings.device)
    found = []
    for embedding, image in zip(embeddings, images, strict=True):
        logits, quality = [], []
        for some in points.split(CHUNK):
            labels = torch.ones(len(some), 1, dtype=torch.int64, device=some.device)
            prompts = Prompts(points=some[:, None], point_labels=labels)
            masks, iou = segmenter.decode_all(embedding.expand(len(some), -1, -1, -1), prompts)
            # Mask 0 is for several prompts at once; a lone point is answered by the nested three.
            logits.append(masks[:, 1:].flatten(0, 1))
            quality.append(iou[:, 1:].flatten())
        masks, iou = torch.cat(logits), torch.cat(quality)
        kept = (iou >= settings.predicted_iou) & (stability(masks, settings.stability_offset) >= settings.stability)
        if kept.any():
            masks = masks[kept]
        luminance = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(dim=0)
        luminance = functional.interpolate(luminance[None, None], size=masks.shape[-2:], mode="area")[0, 0]
        scores = darkness(masks > 0, luminance)
        best = int(scores.argmax())
        found.append(masks[best] if scores[best] > 0 else torch.full_like(masks[best], EMPTY))
    return torch.stack(found)[:, None]
