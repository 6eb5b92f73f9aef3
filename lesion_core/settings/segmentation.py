"""What a segmentation method is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.augmentation import Augmentation
from lesion_core.settings.base import Count, Dataset, Distinct, NotNegative, Positive, Strict, TrainingPrompt, Whole
from lesion_core.settings.protocols import UnderProtocol
from lesion_core.settings.training import Training

SegmentationKind = Literal[
    "sam", "unet", "unet_plus_plus", "deeplabv3_plus", "segformer", "deep_unet", "segmae", "trans_unet",
    "attention_unet", "res_unet", "unetr", "swin_unetr", "otsu",
]  # fmt: skip
# Keys of SegmentationModel that a kind uses besides kind and image_size; any other must keep its default.
KIND_KEYS: dict[str, tuple[str, ...]] = {
    "sam": ("backbone", "adapter", "prompt"),
    "unet": ("encoder", "encoder_weights"),
    "unet_plus_plus": ("encoder", "encoder_weights"),
    "deeplabv3_plus": ("encoder", "encoder_weights"),
    "segformer": ("encoder", "encoder_weights"),
    "deep_unet": ("encoder", "encoder_weights", "attention_gates"),
    "segmae": ("encoder", "encoder_weights", "stem", "mae_decoder"),
    "trans_unet": ("encoder", "encoder_weights"),
    "attention_unet": ("width",),
    "res_unet": ("width",),
    "unetr": ("width",),
    "swin_unetr": ("width",),
    "otsu": (),
}
# What an adapter uses in addition.
ADAPTER_KEYS: dict[str, tuple[str, ...]] = {
    "none": ("frame",),
    "bottleneck": ("rank", "adapter_init", "depth", "gated"),
    "lora": ("rank", "adapter_init", "lora_targets"),
    "med_sa": ("rank", "adapter_init"),
    "gmed_sa": ("rank", "adapter_init"),
    "gl_med_sa": ("rank", "adapter_init"),
    "decoder": ("embedding_cache",),
}

# The one encoder of a kind that has a transformer in it; null is a scaled-down version.
VIT_ENCODERS = {"segmae": "vit_b_16", "trans_unet": "r50_vit_b_16"}
STRIDE = 32  # total stride of the encoders of segmentation-models-pytorch, and of Swin-UNETR
# Of the kinds that MONAI builds: channels at full size as in their papers, and what the channels are a multiple of.
WIDTHS = {"attention_unet": 64, "res_unet": 64, "unetr": 16, "swin_unetr": 48}
WIDTH_STEPS = {"attention_unet": 2, "res_unet": 1, "unetr": 4, "swin_unetr": 12}


class SegmentationModel(Strict):
    """What is built; the keys a kind does not use must keep their defaults.

    Attributes:
        width: channels at full size; doubled at each coarser scale. None: as in the kind's paper, see ``WIDTHS``.
    """

    kind: SegmentationKind
    image_size: Annotated[int, Field(ge=32)]
    backbone: Literal["sam_vit_t", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam"] | None = None
    adapter: Literal["none", "bottleneck", "lora", "med_sa", "gmed_sa", "gl_med_sa", "decoder"] = "none"
    rank: Count = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    gated: bool = False
    adapter_init: Literal["zero", "random"] = "zero"
    lora_targets: Literal["qv", "qkvo"] = "qv"
    embedding_cache: Literal["none", "fp16", "fp32"] = "none"
    frame: Literal["resized", "padded"] = "resized"
    encoder: str | None = None
    encoder_weights: Literal["imagenet"] | None = None
    width: Count | None = None
    attention_gates: bool = True
    stem: bool = True
    mae_decoder: bool = True
    prompt: TrainingPrompt = "none"

    @property
    def multiple(self) -> int:
        """What the image's side is a multiple of: the network's total stride."""
        if self.kind == "otsu":
            return 1
        coarse = self.kind == "swin_unetr" or (self.encoder is not None and self.kind not in VIT_ENCODERS)
        return STRIDE if coarse else 16

    @property
    def unaided_prompt(self) -> Literal["none", "automatic"] | None:
        """The prompt that it is given where neither truth nor a person is at hand.

        Boxes are what it learnt with: ``automatic``, the box around its own prediction without a prompt, as in scoring.
        Clicks: None, since only a person or the truth places them.
        """
        if self.prompt == "oracle_box":
            return "automatic"
        return "none" if self.prompt == "none" else None

    @property
    def smallest_batch(self) -> int:
        """Samples that a forward pass in training needs: 2 where a batch norm sees one value per channel of an image.

        DeepLabV3+ normalises what it has pooled over the whole image; a convolutional encoder's last map is one pixel
        where the image is as small as the total stride.
        """
        convolutional = self.encoder is not None and self.kind in ("unet", "unet_plus_plus", "deep_unet")
        return 2 if self.kind == "deeplabv3_plus" or (convolutional and self.image_size == STRIDE) else 1

    @model_validator(mode="after")
    def _fits_its_kind(self) -> SegmentationModel:
        if (self.kind == "sam") != (self.backbone is not None):
            raise ValueError("backbone must be set for kind sam, and for no other kind")
        used = {"kind", "image_size", *KIND_KEYS[self.kind]}
        name = f"kind {self.kind}"
        if self.kind == "sam":
            used |= set(ADAPTER_KEYS[self.adapter])
            name = f"adapter {self.adapter}"
        fields = type(self).model_fields
        if idle := [key for key in fields if key not in used and getattr(self, key) != fields[key].default]:
            raise ValueError(f"{name} does not use {', '.join(idle)}: leave it out")
        if self.backbone == "medsam" and self.frame == "padded":
            raise ValueError("frame must be resized for medsam: its training images were resized without aspect ratio")
        if self.encoder_weights and not self.encoder:
            raise ValueError("encoder_weights needs an encoder")
        if self.kind in ("unet_plus_plus", "deeplabv3_plus", "segformer") and not self.encoder:
            raise ValueError(f"kind {self.kind} needs an encoder")
        if self.kind in VIT_ENCODERS and self.encoder not in (None, VIT_ENCODERS[self.kind]):
            raise ValueError(
                f"the encoder of kind {self.kind} is {VIT_ENCODERS[self.kind]}, or null for the scaled-down version"
            )
        if self.width is not None and self.width % WIDTH_STEPS[self.kind]:
            raise ValueError(f"width must be a multiple of {WIDTH_STEPS[self.kind]} for kind {self.kind}")
        if self.image_size % self.multiple:
            raise ValueError(f"image_size must be a multiple of {self.multiple}, the total stride of {self.kind}")
        if self.kind == "swin_unetr" and self.image_size < 2 * STRIDE:
            raise ValueError(f"image_size must be at least {2 * STRIDE}: swin_unetr normalises each image's last map")
        return self


class SegmentationLoss(Strict):
    """L_seg = dice * Dice + bce * BCE (paper A, section 3.7) + patch * patch-wise loss (paper D, section 3.4).

    In BCE a lesion pixel counts ``lesion_weight`` times as much as another.
    """

    dice: NotNegative
    bce: NotNegative
    lesion_weight: Positive = 1.0
    soft_target: bool
    patch: NotNegative = 0.0
    patch_size: Count = 16
    patch_temperature: NotNegative = 0.1

    @model_validator(mode="after")
    def _patches_count(self) -> SegmentationLoss:
        fields = type(self).model_fields
        idle = [key for key in ("patch_size", "patch_temperature") if getattr(self, key) != fields[key].default]
        if idle and not self.patch:
            raise ValueError(f"with patch: 0 the loss does not use {', '.join(idle)}: leave it out")
        return self


class Reconstruction(Strict):
    """SegMAE's second branch (paper D, section 3.3): stage 1, and what is masked and how it is weighted in both."""

    epochs: Whole
    masking: Literal["designated", "random"]
    mask_ratio: Annotated[float, Field(gt=0.0, lt=1.0)]
    temperature: NotNegative


class SegmentationMethod(UnderProtocol):
    """One segmentation method: what is built, on which data, how it is trained."""

    task: Literal["segmentation"]
    train_on: Annotated[Distinct[Dataset], Field(min_length=1)]
    model: SegmentationModel
    loss: SegmentationLoss
    training: Training
    augmentation: Augmentation
    reconstruction: Reconstruction | None = None

    @model_validator(mode="after")
    def _reconstructs_with_a_decoder(self) -> SegmentationMethod:
        if (self.model.kind == "segmae" and self.model.mae_decoder) != (self.reconstruction is not None):
            raise ValueError("reconstruction must be set for kind segmae with mae_decoder, and for nothing else")
        if self.loss.patch and self.model.image_size % self.loss.patch_size:
            raise ValueError("model.image_size must be a multiple of loss.patch_size")
        return self

    @model_validator(mode="after")
    def _normalises_more_than_one_value(self) -> SegmentationMethod:
        if self.training.batch_size < self.model.smallest_batch:
            raise ValueError(
                f"training.batch_size must be at least {self.model.smallest_batch}: with one sample in memory a batch "
                f"norm of {self.model.kind} at {self.model.image_size} pixels sees one value per channel"
            )
        return self

    @model_validator(mode="after")
    def _caches_what_does_not_change(self) -> SegmentationMethod:
        if self.model.embedding_cache != "none" and self.augmentation:
            raise ValueError("embedding_cache keeps the embeddings of unchanged images: augmentation must be []")
        return self
