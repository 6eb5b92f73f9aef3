"""SegMAE of paper D: a hybrid CNN-transformer encoder with two decoders, one for the lesion, one for masked patches.

Widths of the stem and of both decoders are open in the paper; ours are TransUNet's (Chen et al., 2021) for the cascaded
upsampler and MAE's (He et al., CVPR 2022) for the reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lesion_core.errors import SettingsError
from lesion_core.models.backbones import TransformerLayer, timm_model
from lesion_core.models.networks import NetworkSegmenter
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.unet import convolution
from lesion_core.models.weights import check_state
from lesion_core.settings import SegmentationModel
from lesion_core.settings.pretrained import TIMM_NAMES

PATCH = 16
NORM_EPS = 1e-6


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of one SegMAE.

    Attributes:
        width, depth, heads: of the encoder's transformer.
        stem: channels at strides 2, 4 and 8.
        upsampler: channels at strides 16, 8, 4, 2 and 1.
        decoder_width, decoder_depth, decoder_heads: of the MAE decoder.
    """

    width: int
    depth: int
    heads: int
    stem: tuple[int, int, int]
    upsampler: tuple[int, int, int, int, int]
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


SIZES = {
    "vit_b_16": Sizes(768, 12, 12, (64, 128, 256), (512, 256, 128, 64, 16), 512, 8, 16),
    None: Sizes(48, 2, 4, (8, 16, 24), (32, 24, 16, 8, 8), 32, 1, 4),
}


class Stem(nn.Module):
    """Three strided stages of two 3x3 convolutions; their maps are skips, the last is cut into patches."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, stride=2), convolution(after, after))
            for before, after in zip((3, *channels[:-1]), channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> maps at strides 2, 4, 8."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class HybridEncoder(nn.Module):
    """Stem, patches of its last map, and a pre-norm ViT over the patches that are kept.

    Args:
        sizes: see ``Sizes``.
        grid: patches per side.
        stem: without it the image itself is cut into patches (the ablation's baseline, a pure ViT).
    """

    def __init__(self, sizes: Sizes, grid: int, *, stem: bool) -> None:
        super().__init__()
        self.stem = Stem(sizes.stem) if stem else None
        side = PATCH // 8 if stem else PATCH
        self.embed = nn.Conv2d(sizes.stem[-1] if stem else 3, sizes.width, kernel_size=side, stride=side)
        self.position = nn.Parameter(torch.zeros(1, grid * grid, sizes.width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(sizes.width, sizes.heads, mlp_ratio=4.0) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=NORM_EPS)
        for part in self.layers.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = NORM_EPS

    def forward(self, images: Tensor, keep: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, K, d) of the kept patches in the order of ``keep``, and the stem's maps.

        Args:
            images: (B, 3, S, S) normalised.
            keep: (B, K) int64 numbers of the patches that are seen, row by row; None: all, in order.
        """
        maps = [] if self.stem is None else self.stem(images)
        tokens = self.embed(maps[-1] if maps else images).flatten(2).transpose(1, 2) + self.position
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens), maps


class CascadedUpsampler(nn.Module):
    """From tokens to logits: four times upsampling, a skip where there is one, 3x3 convolution, ReLU (section 3.2)."""

    def __init__(self, sizes: Sizes, *, skips: bool) -> None:
        super().__init__()
        channels = sizes.upsampler
        extra = (*sizes.stem[::-1], 0) if skips else (0, 0, 0, 0)
        self.start = convolution(sizes.width, channels[0])
        self.stages = nn.ModuleList(
            convolution(before + skip, after)
            for before, skip, after in zip(channels[:-1], extra, channels[1:], strict=True)
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(channels[-1], 1, kernel_size=1)

    def forward(self, tokens: Tensor, maps: list[Tensor]) -> Tensor:
        """(B, g * g, d) and the stem's maps -> logits (B, 1, 16 g, 16 g)."""
        grid = round(tokens.shape[1] ** 0.5)
        x = self.start(tokens.transpose(1, 2).unflatten(2, (grid, grid)))
        for place, stage in enumerate(self.stages):
            x = self.upsample(x)
            if place < len(maps):
                x = torch.cat([x, maps[-1 - place]], dim=1)
            x = stage(x)
        return self.head(x)


class MAEDecoder(nn.Module):
    """A light transformer over the visible tokens and mask tokens, to pixels of every patch (equations 3 and 4)."""

    def __init__(self, sizes: Sizes, grid: int) -> None:
        super().__init__()
        width = sizes.decoder_width
        self.embed = nn.Linear(sizes.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, grid * grid, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(width, sizes.decoder_heads, mlp_ratio=4.0) for _ in range(sizes.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Linear(width, 3 * PATCH * PATCH)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """(B, K, d) visible tokens and their numbers (B, K) -> (B, g * g, 768) pixels, see ``patches_of``."""
        count = self.position.shape[1]
        width = self.mask_token.shape[-1]
        whole = self.mask_token.to(tokens.dtype).expand(len(tokens), count, -1)
        x = whole.scatter(1, keep[..., None].expand(-1, -1, width), self.embed(tokens).to(whole.dtype)) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class SegMAE(NetworkSegmenter):
    """Encoder and two decoders; ``forward`` segments, ``reconstruct`` fills masked patches in.

    Args:
        sizes: see ``Sizes``.
        image_size: S, a multiple of 16.
        stem: the CNN before the transformer, whose maps are the upsampler's skips.
        mae_decoder: the second branch.
    """

    def __init__(self, sizes: Sizes, image_size: int, *, stem: bool = True, mae_decoder: bool = True) -> None:
        if image_size % PATCH:
            raise SettingsError(f"SegMAE's image size must be a multiple of {PATCH}", remedy="change model.image_size")
        grid = image_size // PATCH
        network = nn.ModuleDict(
            {
                "encoder": HybridEncoder(sizes, grid, stem=stem),
                "upsampler": CascadedUpsampler(sizes, skips=stem),
            }
        )
        if mae_decoder:
            network["mae"] = MAEDecoder(sizes, grid)
        super().__init__(network, multiple=image_size)
        self.patches = grid * grid

    def forward(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """(B, 3, S, S) float, 0..255, RGB -> lesion logits (B, 1, S, S) float32; every patch is seen."""
        return self.network["upsampler"](*self.network["encoder"](self.normalised(images, prompts))).float()

    def reconstruct(self, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true pixels of the masked patches, both (B, N - K, 768) float32, normalised colours.

        The masked patches are blanked before the stem, whose convolutions would else carry their pixels into the
        tokens next to them.

        Args:
            images: (B, 3, S, S) float, 0..255.
            keep: (B, K) int64, the patches that are seen.
        """
        true = self.normalised(images, None)
        visible = torch.zeros(len(images), self.patches, device=images.device).scatter(1, keep, 1.0)
        grid = round(self.patches**0.5)
        shown = visible.unflatten(1, (1, grid, grid)).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        tokens, _ = self.network["encoder"](true * shown, keep)
        predicted = self.network["mae"](tokens, keep).float()
        masked = visible < 0.5
        return _select(predicted, masked), _select(patches_of(true.float()), masked)

    def reconstruction_parameters(self) -> dict[str, nn.Parameter]:
        """What stage 1 learns, by name: encoder and MAE decoder; the upsampler stays as it is (section 3.3)."""
        own = dict(self.trainable_parameters())
        return {name: parameter for name, parameter in own.items() if not name.startswith("network.upsampler.")}


def patches_of(images: Tensor) -> Tensor:
    """(B, 3, 16 g, 16 g) -> (B, g * g, 768): patches row by row, each as (3, 16, 16) flattened."""
    batch, channels, height, width = images.shape
    cut = images.view(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)


def build_segmae(model: SegmentationModel, weights: Path | None = None) -> SegMAE:
    """A SegMAE from settings, in eval mode; random parts start from torch's global generator.

    Args:
        model: ``encoder``: ``vit_b_16``, or None for a scaled-down one.
        weights: file of timm's ViT-B/16, into the transformer (its patch embedding too, without a stem), positions
            brought to the image size; None: a random start.

    Raises:
        SettingsError: the encoder is unknown.
        WeightsError: the weights do not fit.
    """
    encoder = model.encoder
    if encoder not in SIZES:
        raise SettingsError(f"SegMAE has no encoder {encoder!r}", remedy="set model.encoder to vit_b_16 or null")
    built = SegMAE(SIZES[encoder], model.image_size, stem=model.stem, mae_decoder=model.mae_decoder)
    if weights is not None:
        theirs = timm_model(TIMM_NAMES["vit_base", 16], weights, img_size=model.image_size)
        load_timm(built.network["encoder"], theirs.state_dict(), weights)
    return built.eval()


def load_timm(encoder: nn.Module, state: dict[str, Tensor], file: Path | None) -> None:
    """timm's tensors into SegMAE's encoder, strictly; the class token has no place here and is left out.

    Args:
        encoder: with a ``stem`` (or None), ``embed``, ``position``, ``layers`` and ``norm``; the stem, and with one the
            patch embedding behind it, keep their start.
        state: of timm's model.
        file: named in errors.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(("cls_token", "head.")) or (encoder.stem is not None and name.startswith("patch_embed.")):
            continue
        renamed[timm_name(name)] = tensor[:, 1:] if name == "pos_embed" else tensor
    own = encoder.state_dict()
    wanted = {name: own[name] for name in own if not name.startswith("stem.")}
    if encoder.stem is not None:
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith("embed.")}
    for name, tensor in check_state(wanted, renamed, file=file).items():
        own[name].copy_(tensor)


def timm_name(name: str) -> str:
    """Our name of a tensor of timm's VisionTransformer."""
    for theirs, ours in (
        ("pos_embed", "position"),
        ("patch_embed.proj.", "embed."),
        ("blocks.", "layers."),
        (".norm1.", ".norm_attention."),
        (".norm2.", ".norm_mlp."),
        (".attn.qkv.", ".qkv."),
        (".attn.proj.", ".project."),
        (".mlp.fc1.", ".mlp.0."),
        (".mlp.fc2.", ".mlp.2."),
    ):
        name = name.replace(theirs, ours)
    return name


def _select(values: Tensor, chosen: Tensor) -> Tensor:
    """(B, N, C) and (B, N) bool with equal counts per row -> (B, M, C)."""
    return values[chosen].view(len(values), -1, values.shape[-1])
