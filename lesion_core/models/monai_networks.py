"""Segmentation networks of MONAI in 2D, trained from scratch: the library has no weights for three channels in 2D."""

from __future__ import annotations

from monai.networks.nets import UNETR, AttentionUnet, SwinUNETR, UNet
from torch import nn

from lesion_core.models.networks import NetworkSegmenter
from lesion_core.settings import SegmentationModel
from lesion_core.settings.segmentation import WIDTHS

SCALES = 5  # of the convolutional U-Nets
HEAD = 64  # channels of an attention head of ViT-B


def build_monai(model: SegmentationModel) -> NetworkSegmenter:
    """A network of a kind in ``WIDTHS``, in eval mode; it starts from torch's global generator.

    - ``attention_unet``: Oktay et al., "Attention U-Net", MIDL 2018; batch norm.
    - ``res_unet``: U-Net of residual units, two convolutions each (Kerfoot et al., STACOM 2018, after Zhang et al.,
      "Road extraction by deep residual U-Net", GRSL 2018); instance norm.
    - ``unetr``: Hatamizadeh et al., WACV 2022, a ViT with patches of 16 pixels; its positions are of one image size.
    - ``swin_unetr``: Hatamizadeh et al., BrainLes 2021.
    """
    width = model.width or WIDTHS[model.kind]
    channels, strides = [width * 2**scale for scale in range(SCALES)], [2] * (SCALES - 1)
    network: nn.Module
    if model.kind == "attention_unet":
        network = AttentionUnet(2, 3, 1, channels, strides)
    elif model.kind == "res_unet":
        network = UNet(2, 3, 1, channels, strides, num_res_units=2)
    elif model.kind == "unetr":
        tokens = 48 * width  # 768, ViT-B's, at full width
        network = UNETR(
            3, 1, model.image_size, feature_size=width, hidden_size=tokens, mlp_dim=4 * tokens,
            num_heads=tokens // HEAD, spatial_dims=2,
        )  # fmt: skip
    else:
        network = SwinUNETR(3, 1, feature_size=width, spatial_dims=2)
    size = model.image_size if model.kind == "unetr" else None
    return NetworkSegmenter(network, multiple=model.multiple, size=size).eval()
