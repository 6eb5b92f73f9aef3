"""What a classification, joint or derived method is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.augmentation import Augmentation
from lesion_core.settings.base import (
    BACKBONE_PATCHES,
    NETWORKS,
    UNALIGNED,
    Count,
    Dataset,
    Distinct,
    Fraction,
    NotNegative,
    Strict,
)
from lesion_core.settings.protocols import UnderProtocol
from lesion_core.settings.segmentation import SegmentationLoss
from lesion_core.settings.training import Training


class ClassificationModel(Strict):
    """Image encoder, input, and fusion with mask tokens (paper A, sections 3.5 and 3.6)."""

    kind: Literal["fusion", "dual", "majority", "color_histogram"]
    backbone: (
        Literal[
            "vit_t", "vit_base", "efficientnet_b4", "convnext_tiny", "densenet201",
            "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
            "resnet50", "vgg16", "inception_v3", "swin_tiny", "deit_small",
        ]
        | None
    ) = None  # fmt: skip
    pretrained: bool = False
    image_size: Annotated[int, Field(ge=32)] = 224
    patch_size: Count = 16
    input: Literal["full", "masked", "crop", "blend"] = "full"
    fusion: Literal["none", "concat", "cross_attention", "gated"] = "none"
    heads: Count = 4
    dropout: Fraction = 0.0
    metadata: Literal["none", "binned", "continuous"] = "none"

    @property
    def uses_masks(self) -> bool:
        """Whether a prediction depends on masks; the dual network's attention is between image and lesion."""
        fused = self.kind == "fusion" and self.fusion != "none"
        return self.kind != "majority" and (fused or self.input != "full")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClassificationModel:
        if (self.kind in NETWORKS) != (self.backbone is not None):
            raise ValueError("backbone must be set for kinds fusion and dual, and for no other kind")
        if self.backbone is not None and self.patch_size not in BACKBONE_PATCHES[self.backbone]:
            raise ValueError(f"{self.backbone} comes with patch_size {BACKBONE_PATCHES[self.backbone]}")
        if self.backbone == "vit_t" and self.pretrained:
            raise ValueError("vit_t has no pretrained weights: set pretrained to false")
        if self.kind == "fusion" and self.backbone in UNALIGNED and self.fusion != "none":
            raise ValueError(f"{self.backbone} takes fusion none: its last map is not aligned with the mask's patches")
        if self.metadata != "none" and self.kind != "dual":
            raise ValueError("metadata belongs to kind dual")
        if self.image_size % self.patch_size:
            raise ValueError("image_size must be a multiple of patch_size")
        return self


class ClassificationLoss(Strict):
    """Weighted cross-entropy and what may stand beside it."""

    weighting: Literal["none", "inverse_frequency", "effective_number"]
    beta: Annotated[float, Field(ge=0.0, lt=1.0)]
    focal_gamma: NotNegative
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    sampling: Literal["uniform", "inverse_frequency"]
    mixup_alpha: NotNegative


class ClassificationMethod(UnderProtocol):
    """One classification method; ``masks``: ``true``, or the segmentation method that makes the pseudo-masks."""

    task: Literal["classification"]
    train_on: Annotated[Distinct[Dataset], Field(min_length=1)]
    masks: str | None
    mask_order: Literal["own", "shuffled"] = "own"
    model: ClassificationModel
    loss: ClassificationLoss
    training: Training
    augmentation: Augmentation

    @model_validator(mode="after")
    def _has_the_masks_it_uses(self) -> ClassificationMethod:
        uses = self.model.uses_masks
        if uses and self.masks is None:
            raise ValueError("fusion other than none and input other than full need masks: true or a method")
        if not uses and self.mask_order != "own":
            raise ValueError("mask_order shuffled needs masks that are used")
        if self.model.metadata != "none" and self.loss.mixup_alpha > 0:
            raise ValueError("mixup cannot mix metadata: set loss.mixup_alpha to 0")
        if not uses and self.masks is not None:
            raise ValueError("masks must be null where fusion is none and input is full: nothing would use them")
        return self


class JointMethod(UnderProtocol):
    """Joint fine-tuning of a segmenter and a classifier: l1 * L_seg + l2 * L_cls (paper A, section 3.7).

    ``segmentation_from``: what L_seg learns from. ``segmenter_images``: true masks of the images that the segmenter was
    trained on, a batch of which joins each labelled batch; ``labelled_images``: true masks of the labelled images
    themselves; ``pseudo_masks``: the starting segmenter's own masks of them (self-distillation, a control).
    """

    task: Literal["joint"]
    train_on: Annotated[Distinct[Dataset], Field(min_length=1)]
    segmenter: str
    classifier: str
    segmentation_from: Literal["segmenter_images", "labelled_images", "pseudo_masks"]
    weight_segmentation: NotNegative
    weight_classification: NotNegative
    segmentation_loss: SegmentationLoss
    classification_loss: ClassificationLoss
    training: Training
    augmentation: Augmentation


class DerivedMethod(UnderProtocol):
    """A method that trains nothing: averages of what other methods predict.

    ``tta``: test-time augmentation of each run of one method. ``ensemble``: of one method, one run that averages all
    its seeds; of several, one run per seed that averages their runs of that seed.
    """

    task: Literal["derived"]
    of: Annotated[Distinct[str], Field(min_length=1)]
    how: Literal["tta", "ensemble"]

    @property
    def of_seeds(self) -> bool:
        """Whether one run averages all seeds of one method."""
        return self.how == "ensemble" and len(self.of) == 1

    @model_validator(mode="after")
    def _augments_one(self) -> DerivedMethod:
        if self.how == "tta" and len(self.of) > 1:
            raise ValueError("of must name one method for tta")
        return self
