"""The lesion classifier: input cut out by a soft mask, image tokens, fusion with mask tokens, seven logits
(paper A, 3.4 to 3.6)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lesion_core.models.backbones import TransformerLayer, build_encoder
from lesion_core.models.fusion import Fusion
from lesion_core.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lesion_core.models.trainable import Trainable
from lesion_core.settings import CLASSES, ClassificationModel, Extraction


def lesion_box(masks: Tensor, margin: float) -> Tensor:
    """Square boxes around lesions, (B, 1, S, S) in 0..1 -> (B, 3): centre x, centre y, side, in pixels; no
    gradient.

    The side is (1 + 2 * margin) times the longer side of the lesion (mask >= 0.5), at most S; the box is
    shifted to lie inside the image. A mask without a lesion gives the whole image.
    """
    size = masks.shape[-1]
    lesion = masks.detach()[:, 0] >= 0.5
    place = torch.arange(size, device=masks.device, dtype=masks.dtype)
    ends = []
    for present in (lesion.any(dim=1), lesion.any(dim=2)):
        low = torch.where(present, place, float(size)).amin(dim=1)
        high = torch.where(present, place + 1.0, 0.0).amax(dim=1)
        ends.append((low, high))
    (x0, x1), (y0, y1) = ends
    side = (torch.maximum(x1 - x0, y1 - y0) * (1.0 + 2.0 * margin)).clamp(max=float(size))
    side = torch.where(lesion.flatten(1).any(dim=1), side, float(size))
    half = side / 2
    centre_x = torch.minimum(torch.maximum((x0 + x1) / 2, half), size - half)
    centre_y = torch.minimum(torch.maximum((y0 + y1) / 2, half), size - half)
    return torch.stack([centre_x, centre_y, side], dim=1)


def crop(values: Tensor, boxes: Tensor) -> Tensor:
    """Cut boxes out of (B, C, S, S) and enlarge them to S x S, bilinear, differentiable in ``values``."""
    size = values.shape[-1]
    scale = boxes[:, 2] / size
    theta = values.new_zeros(len(values), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2] = 2.0 * boxes[:, 0] / size - 1.0
    theta[:, 1, 2] = 2.0 * boxes[:, 1] / size - 1.0
    grid = nn.functional.affine_grid(theta, list(values.shape), align_corners=False)
    return nn.functional.grid_sample(values, grid, padding_mode="border", align_corners=False)


def prepare_input(images: Tensor, masks: Tensor, kind: str, *, blend: float, margin: float) -> tuple[Tensor, Tensor]:
    """The classifier's view of an image (paper A, section 3.4), differentiable in images and soft masks.

    full: I. masked: I * M. blend: a * (I * M) + (1 - a) * I. crop: image and mask in the lesion's box, see
    ``lesion_box``. A mask without lesion (nowhere >= 0.5) cuts nothing out: the whole image is shown.

    Args:
        images: (B, 3, S, S) float, 0..255. masks: (B, 1, S, S) float, 0..1.
        kind: full, masked, crop or blend. blend: a. margin: fraction of the lesion's longer side added on
            each side.

    Returns:
        Images and masks of the same shapes; the masks are what fusion sees.
    """
    if kind == "full":
        return images, masks
    if kind in ("masked", "blend"):
        found = (masks.detach() >= 0.5).flatten(1).any(dim=1).view(-1, 1, 1, 1)
        shown = torch.where(found, masks, 1.0)
        share = 1.0 if kind == "masked" else blend
        return images * (share * shown + (1.0 - share)), masks
    boxes = lesion_box(masks, margin)
    return crop(images, boxes), crop(masks, boxes)


class ClassifierModule(Trainable):
    """What every network for classification shares: normalisation, settings, and its weights as named tensors.

    forward(images (B, 3, S, S) float32 RGB 0..255, soft masks (B, 1, S, S) float32 0..1) -> logits (B, 7), order
    ``CLASSES``; networks with metadata take it as a third argument.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ClassificationModel, extraction: Extraction) -> None:
        super().__init__()
        self.settings, self.extraction = model, extraction
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def needs_masks(self) -> bool:
        """Whether the prediction depends on the masks at all."""
        return self.settings.uses_masks

    @property
    def learns_masks(self) -> bool:
        """Whether a gradient reaches the masks: a crop's box alone passes none."""
        seen_by_fusion = self.settings.kind == "fusion" and self.settings.fusion != "none"
        return seen_by_fusion or self.settings.input in ("masked", "blend")

    @property
    def needs_metadata(self) -> bool:
        """Whether the prediction depends on metadata."""
        return False

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..255 by the ImageNet mean and standard deviation."""
        return (images - self.mean) / self.std


class Classifier(ClassifierModule):
    """forward(images (B, 3, S, S) float32 RGB 0..255, soft masks (B, 1, S, S) float32 0..1) -> logits (B, 7),
    order ``CLASSES``.

    Normalisation with the ImageNet mean and standard deviation happens inside. One transformer layer reads
    the fused tokens, in every fusion variant alike, so that a comparison of fusions compares fusion alone;
    the head sees the class token and the mean of the image tokens.

    Args:
        weights: file of the backbone's weights; None: a random start.
    """

    def __init__(self, model: ClassificationModel, extraction: Extraction, weights: Path | None = None) -> None:
        super().__init__(model, extraction)
        self.encoder = build_encoder(model.backbone, model.image_size, model.patch_size, weights)
        width = self.encoder.width
        self.fusion = Fusion(
            model.fusion, width=width, stride=self.encoder.stride, grid=self.encoder.grid, heads=model.heads
        )
        self.reader = TransformerLayer(width, model.heads, dropout=model.dropout).start_as_identity()
        self.norm = nn.LayerNorm(2 * width)
        self.dropout = nn.Dropout(model.dropout)
        self.head = nn.Linear(2 * width, len(CLASSES))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.fix_trainable()

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        images, masks = prepare_input(
            images, masks, self.settings.input, blend=self.extraction.blend, margin=self.extraction.crop_margin
        )
        tokens = self.fusion(self.encoder(self.normalise(images)), masks)
        tokens = self.reader(tokens)
        pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=-1)
        return self.head(self.dropout(self.norm(pooled)))
