"""Image encoders for classification: a class token and a grid of image tokens, whatever the architecture.

Every encoder maps images, already normalised, (B, 3, S, S) float32, to tokens Z, (B, 1 + N, d): the class
token first, then the N = grid * grid image tokens in row-major order, so that token 1 + r * grid + c sees
pixels from (c * stride, r * stride) on. That order is what the mask tokens of ``lesion_core.models.fusion``
are aligned with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lesion_core.errors import SettingsError
from lesion_core.models.weights import not_the_weights_of
from lesion_core.settings import BACKBONE_PATCHES
from lesion_core.settings.pretrained import TIMM_NAMES

TIMM_TRANSFORMERS = ("vit_base", "deit_small")
INCEPTION_LAYERS = ((3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 2))  # kernel, stride of those without padding
COLOUR_LEVELS = 16


class ImageEncoder(nn.Module):
    """What a classifier needs to know about an encoder.

    Attributes:
        width: d, the length of a token.
        grid: tokens per side of the image.
        stride: pixels per side of a token's patch; ``grid * stride`` is the image size.
    """

    width: int
    grid: int
    stride: int


class TransformerLayer(nn.Module):
    """One pre-norm transformer layer; tokens (B, T, d) -> (B, T, d). Dosovitskiy et al., ICLR 2021."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise SettingsError(
                f"A token length of {width} does not divide into {heads} heads",
                remedy="choose heads that divide the backbone's token length",
            )
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm_attention(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.dropout(self.project(attended))
        return tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))

    def start_as_identity(self) -> TransformerLayer:
        """Zero the two residual projections, so that the layer changes nothing before it has learned."""
        for linear in (self.project, self.mlp[2]):
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)
        return self


class ColourStatistics(nn.Module):
    """Soft histogram of each channel, (B, 3, S, S) -> (B, 3 * levels): what colour-histogram baselines look
    at.

    Triangular bins, evenly spaced over the normalised range [-2.5, 2.5]; each channel's bins sum to 1, and
    the square root is taken (Hellinger), which evens out full and nearly empty bins. Differentiable in the
    image.
    """

    def __init__(self, levels: int = COLOUR_LEVELS) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, images: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(images, 32).flatten(2)
        position = (small.clamp(-2.5, 2.5) + 2.5) * ((self.levels - 1) / 5.0)
        levels = torch.arange(self.levels, device=images.device, dtype=images.dtype)
        weight = (1.0 - (position.unsqueeze(-1) - levels).abs()).clamp_min(0.0)
        return (weight.mean(dim=2) + 1e-4).sqrt().flatten(1)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class ResidualConvolution(nn.Module):
    """x + BN(conv(ReLU(BN(conv x)))), then ReLU. He et al., CVPR 2016."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, 1)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), norm)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + self.second(self.first(features)))


class TinyViT(ImageEncoder):
    """``vit_t``: a small ViT behind a convolutional stem, for a CPU and for tests; plain torch, nothing to download.

    The stem (Xiao et al., "Early convolutions help transformers see better", NeurIPS 2021) halves the map
    log2(patch_size) times, which small data sets reward; the class token starts from the image's colour statistics.
    """

    def __init__(self, image_size: int, patch_size: int, *, width: int = 128, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        steps = patch_size.bit_length() - 1
        if patch_size != 1 << steps or steps < 2 or image_size % patch_size:
            raise SettingsError(
                f"vit_t cannot cut {image_size} px into patches of {patch_size} px",
                remedy="choose a patch size of 4, 8, 16 or 32 that divides image_size",
            )
        self.width, self.grid, self.stride = width, image_size // patch_size, patch_size
        channels = [min(width, 16 << step) for step in range(steps - 1)] + [width]
        stem: list[nn.Module] = []
        for step, (before, after) in enumerate(zip([3, *channels], channels, strict=False)):
            stem.append(_convolution(before, after, 2))
            if step > 0:
                stem.append(ResidualConvolution(after))
        self.stem = nn.Sequential(*stem)
        self.colour = nn.Sequential(ColourStatistics(), nn.Linear(3 * COLOUR_LEVELS, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, self.grid**2, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2) + self.position
        first = self.class_token + self.colour(images).unsqueeze(1)
        tokens = torch.cat([first, tokens], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)


class TimmTransformer(ImageEncoder):
    """A timm ViT; its own class token and patch tokens."""

    def __init__(self, name: str, image_size: int, patch_size: int, weights: Path | None) -> None:
        super().__init__()
        model: Any = timm_model(name, weights, img_size=image_size)
        self.model = model
        self.width, self.grid, self.stride = model.embed_dim, image_size // patch_size, patch_size

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)


class TimmPyramid(ImageEncoder):
    """A timm CNN, or Swin: its last map as tokens, the map's mean as class token."""

    def __init__(self, name: str, image_size: int, stride: int, weights: Path | None) -> None:
        super().__init__()
        swin = name.startswith("swin")
        options = {"img_size": image_size} if swin else {}
        model: Any = timm_model(name, weights, **options)
        if name.startswith("vgg"):
            model.pre_logits = nn.Identity()  # its two wide layers belong to ImageNet's head
        # convolutions with channels last are 1.5 times as fast on a CPU; a cut crop has channels first
        self.model = model if swin else model.to(memory_format=torch.channels_last)
        self.channels_last = swin
        self.width, self.grid, self.stride = model.num_features, image_size // stride, stride
        if name.startswith("inception"):
            self.grid = image_size
            for kernel, step in INCEPTION_LAYERS:
                self.grid = (self.grid - kernel) // step + 1

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.model.forward_features(images)
        tokens = tokens.flatten(1, 2) if self.channels_last else tokens.flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


def timm_model(name: str, weights: Path | None, **options: Any) -> nn.Module:
    """A model of timm's without pooling and head, from a file of its weights or from a random start.

    timm brings positions to the image size.

    Raises:
        WeightsError: the file is not that model's.
    """
    if weights is None:
        return timm.create_model(name, num_classes=0, global_pool="", **options)
    overlay = {"file": str(weights)}
    try:  # with its head at first: only then timm is strict
        model: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        model.reset_classifier(0, "")
        return model
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise not_the_weights_of(name, weights, error) from error


def build_encoder(backbone: str | None, image_size: int, patch_size: int, weights: Path | None = None) -> ImageEncoder:
    """Build an image encoder by name.

    Args:
        backbone: one of ``settings.BACKBONE_PATCHES``.
        image_size: pixels per side, S.
        patch_size: pixels per side of a token; convolutional backbones and Swin have 32.
        weights: file of the backbone's weights; None: a random start. ``vit_t`` has none.

    Raises:
        SettingsError: unknown backbone, a patch size it does not come in, or an image size that the patches
            do not divide.
        WeightsError: the file is not the backbone's.
    """
    if backbone not in BACKBONE_PATCHES:
        raise SettingsError(
            f"Unknown classification backbone {backbone!r}", remedy=f"choose one of {', '.join(BACKBONE_PATCHES)}"
        )
    if backbone == "vit_t":
        return TinyViT(image_size, patch_size)
    name = TIMM_NAMES.get((backbone, patch_size))
    if name is None or image_size % patch_size:
        sizes = sorted(size for kind, size in TIMM_NAMES if kind == backbone)
        raise SettingsError(
            f"{backbone} cannot cut {image_size} px into patches of {patch_size} px",
            remedy=f"choose patch_size among {sizes}, and an image_size it divides",
        )
    if name.startswith(TIMM_TRANSFORMERS):
        return TimmTransformer(name, image_size, patch_size, weights)
    return TimmPyramid(name, image_size, patch_size, weights)
