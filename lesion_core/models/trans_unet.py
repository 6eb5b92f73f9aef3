"""TransUNet (Chen et al., arXiv 2102.04306, 2021): a ResNet, a ViT over its last map, a decoder with the ResNet's maps.

The hybrid encoder is timm's ResNetV2-50 with ViT-B/16, whose weights TransUNet starts from; no library has the decoder.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import HybridEmbed
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lesion_core.models.backbones import timm_model
from lesion_core.models.networks import NetworkSegmenter
from lesion_core.settings import SegmentationModel
from lesion_core.settings.pretrained import TRANS_UNET

PATCH = 16


class TransUNet(nn.Module):
    """Encoder and cascaded upsampler (section 3.2 of the paper).

    Args:
        encoder: timm's hybrid ViT; its backbone's stem and stages halve the image four times.
        channels: of the decoder at strides 16, 8, 4, 2 and 1.
        skips: channels of the ResNet's maps at strides 8, 4 and 2.
    """

    def __init__(self, encoder: Any, channels: tuple[int, int, int, int, int], skips: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.start = _convolution(encoder.embed_dim, channels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before + skip, after), _convolution(after, after))
            for before, skip, after in zip(channels[:-1], (*skips, 0), channels[1:], strict=True)
        )
        self.upsample = nn.UpsamplingBilinear2d(scale_factor=2)
        self.head = nn.Conv2d(channels[-1], 1, kernel_size=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> logits (B, 1, S, S)."""
        embed = self.encoder.patch_embed
        stem = embed.backbone.stem
        x = stem.norm(stem.conv(images))
        maps = [x]
        x = stem.pool(x)
        for stage in embed.backbone.stages:
            x = stage(x)
            maps.append(x)
        x = embed.proj(maps.pop())
        grid = x.shape[-2:]
        x = self.encoder.norm_pre(self.encoder._pos_embed(x.flatten(2).transpose(1, 2)))
        x = self.encoder.norm(self.encoder.blocks(x))[:, self.encoder.num_prefix_tokens :]
        x = self.start(x.transpose(1, 2).unflatten(2, grid))
        for stage in self.stages:
            x = self.upsample(x)
            x = stage(torch.cat([x, maps.pop()], dim=1) if maps else x)
        return self.head(x)


def build_trans_unet(model: SegmentationModel, weights: Path | None = None) -> NetworkSegmenter:
    """A TransUNet from settings, in eval mode; random parts start from torch's global generator.

    Args:
        model: ``encoder``: ``r50_vit_b_16``, or None for a scaled-down one.
        weights: file of timm's hybrid ViT, positions brought to the image size; None: a random start.

    Raises:
        WeightsError: the weights do not fit.
    """
    if model.encoder is None:
        network = TransUNet(_small_encoder(model.image_size), (32, 32, 16, 8, 8), (128, 128, 32))
    else:
        encoder = timm_model(TRANS_UNET, weights, img_size=model.image_size)
        network = TransUNet(encoder, (512, 256, 128, 64, 16), (512, 256, 64))
    return NetworkSegmenter(network, multiple=PATCH, size=model.image_size).eval()


def _small_encoder(image_size: int) -> VisionTransformer:
    backbone = ResNetV2(
        layers=[1, 1, 1], channels=(128, 128, 128), stem_chs=32, num_classes=0, global_pool="", preact=False,
        stem_type="same",
    )  # fmt: skip
    embed = partial(HybridEmbed, backbone=backbone)
    return VisionTransformer(
        img_size=image_size, embed_layer=embed, patch_size=1, embed_dim=48, depth=2, num_heads=4, num_classes=0,
        global_pool="",
    )  # fmt: skip


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
