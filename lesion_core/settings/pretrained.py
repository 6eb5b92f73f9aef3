"""The published weights that a network starts from, by the names of acquire/registry.yaml."""

from __future__ import annotations

from lesion_core.settings.classification import ClassificationModel
from lesion_core.settings.segmentation import SegmentationModel

# (backbone, patch size): timm's name.
TIMM_NAMES = {
    ("vit_base", 8): "vit_base_patch8_224.augreg2_in21k_ft_in1k",
    ("vit_base", 16): "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    ("vit_base", 32): "vit_base_patch32_224.augreg_in21k_ft_in1k",
    ("efficientnet_b4", 32): "efficientnet_b4.ra2_in1k",
    ("efficientnet_lite0", 32): "tf_efficientnet_lite0.in1k",
    ("efficientnet_lite1", 32): "tf_efficientnet_lite1.in1k",
    ("efficientnet_lite2", 32): "tf_efficientnet_lite2.in1k",
    ("convnext_tiny", 32): "convnext_tiny.fb_in1k",
    ("densenet201", 32): "densenet201.tv_in1k",
    ("resnet50", 32): "resnet50.tv_in1k",
    ("vgg16", 32): "vgg16.tv_in1k",
    ("inception_v3", 32): "inception_v3.tv_in1k",
    ("swin_tiny", 32): "swin_tiny_patch4_window7_224.ms_in1k",
    ("deit_small", 16): "deit_small_patch16_224.fb_in1k",
}
TRANS_UNET = "vit_base_r50_s16_224.orig_in21k"  # its encoder's


def weights_name(model: SegmentationModel | ClassificationModel) -> str | None:
    """The weights that a model is built on; None: all of it starts at random.

    SAM's by the backbone; timm's by its name; an encoder of segmentation-models-pytorch as ``<encoder>.imagenet``, one
    of timm's (``tu-<name>``) by timm's name.
    """
    if isinstance(model, ClassificationModel):
        return TIMM_NAMES[str(model.backbone), model.patch_size] if model.pretrained else None
    if model.encoder is None or model.encoder_weights is None:
        return model.backbone
    if model.kind == "segmae":
        return TIMM_NAMES["vit_base", 16]
    if model.kind == "trans_unet":
        return TRANS_UNET
    return model.encoder.removeprefix("tu-") if model.encoder.startswith("tu-") else f"{model.encoder}.imagenet"
