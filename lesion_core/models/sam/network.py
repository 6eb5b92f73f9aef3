"""SAM from segment_anything's own modules: variants, builders, strict weight loading.

Architecture: Kirillov et al., "Segment Anything", ICCV 2023; ``sam_vit_t`` is the same architecture made small.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import SettingsError
from lesion_core.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lesion_core.models.weights import load_strict, read_weights

Normalisation = Literal["mean_std", "min_max"]
PATCH = 16
# MedSAM's least range of an image, so that one of a single colour becomes 0.
LEAST_RANGE = 1e-8
_ABSOLUTE_POSITION = "image_encoder.pos_embed"


@dataclass(frozen=True)
class Variant:
    """Sizes of one SAM variant, and how its weights expect pixels; see ``normalise``.

    All have patches of 16 x 16 pixels and four masks (one single, three nested).
    """

    image_size: int
    embed_dim: int
    depth: int
    heads: int
    window: int
    global_attention: tuple[int, ...]
    prompt_dim: int = 256
    decoder_mlp: int = 2048
    decoder_heads: int = 8
    iou_hidden: int = 256
    normalisation: Normalisation = "mean_std"


VARIANTS: dict[str, Variant] = {
    "sam_vit_t": Variant(256, 160, 8, 5, 8, (3, 7), 128, 512, 4, 128),
    "sam_vit_b": Variant(1024, 768, 12, 12, 14, (2, 5, 8, 11)),
    "sam_vit_l": Variant(1024, 1024, 24, 16, 14, (5, 11, 17, 23)),
    "sam_vit_h": Variant(1024, 1280, 32, 16, 14, (7, 15, 23, 31)),
    "medsam": Variant(1024, 768, 12, 12, 14, (2, 5, 8, 11), normalisation="min_max"),
}


def build_sam(name: str, *, image_size: int | None = None, weights: Path | None = None) -> Sam:
    """A ``segment_anything.modeling.Sam`` in eval mode, float32, on the CPU, with its variant's ``normalisation``.

    Args:
        name: a key of ``VARIANTS``.
        image_size: side of the square input in pixels, a multiple of 16; None: the variant's own.
        weights: a ``.safetensors`` or ``.pth`` file in segment_anything's names (float16 is widened to float32);
            None: torch's random start, from the global generator (``seeding.seed_torch`` first).

    Raises:
        SettingsError: unknown variant, or a size that is no multiple of 16.
        WeightsError: see ``load_sam_weights``.
    """
    variant = _variant(name)
    size = variant.image_size if image_size is None else image_size
    if size % PATCH or size < PATCH:
        raise SettingsError(
            f"SAM's image size must be a multiple of {PATCH}, not {size}", remedy="change model.image_size"
        )
    if weights is None:
        return _assemble(variant, size).eval()
    sam = _assemble(variant, size, empty=True)
    load_sam_weights(sam, read_weights(weights), name, file=weights)
    return sam.eval()


def load_sam_weights(sam: Sam, state: Mapping[str, Tensor], name: str, *, file: Path | None = None) -> None:
    """Load a state dict into ``sam`` (in place), strictly.

    If ``sam`` has another image size than the variant, and only then, the absolute position table (bilinear) and the
    relative ones of the global-attention blocks (linear, as segment_anything's ``get_rel_pos``) are interpolated;
    the file's tables must then have the variant's own shapes. All else must fit to the letter.

    Raises:
        WeightsError: tensors are missing, unknown, of another shape, not floating, or not finite; names in ``ids``.
    """
    variant = _variant(name)
    expected = sam.state_dict()
    state = dict(state)
    if sam.image_encoder.img_size != variant.image_size:
        for key in position_tables(variant):
            table = state.get(key)
            if table is not None and tuple(table.shape) == _table_shape(variant, key) and table.is_floating_point():
                state[key] = _resize_table(table.float(), tuple(expected[key].shape))
    load_strict(sam, state, file=file)


def position_tables(variant: Variant) -> list[str]:
    """Names of the tensors whose shape depends on the image size."""
    relative = [
        f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in variant.global_attention for axis in "hw"
    ]
    return [_ABSOLUTE_POSITION, *relative]


def _variant(name: str) -> Variant:
    try:
        return VARIANTS[name]
    except KeyError:
        raise SettingsError(f"No SAM variant is called {name!r}", remedy=f"use one of {', '.join(VARIANTS)}") from None


def _assemble(variant: Variant, size: int, *, empty: bool = False) -> Sam:
    """Put a SAM together; ``empty``: the image encoder without memory, to be loaded.

    A random start of ViT-H's encoder would cost seconds and 2.5 GB, and be overwritten at once.
    """
    grid = size // PATCH
    with torch.device("meta") if empty else nullcontext():
        image_encoder = ImageEncoderViT(
            img_size=size,
            patch_size=PATCH,
            embed_dim=variant.embed_dim,
            depth=variant.depth,
            num_heads=variant.heads,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=variant.global_attention,
            window_size=variant.window,
            out_chans=variant.prompt_dim,
        )
    prompt_encoder = PromptEncoder(
        embed_dim=variant.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(size, size),
        mask_in_chans=16,
    )
    mask_decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=2,
            embedding_dim=variant.prompt_dim,
            num_heads=variant.decoder_heads,
            mlp_dim=variant.decoder_mlp,
        ),
        transformer_dim=variant.prompt_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=variant.iou_hidden,
    )
    sam = Sam(image_encoder, prompt_encoder, mask_decoder, list(IMAGENET_MEAN), list(IMAGENET_STD))
    sam.normalisation = variant.normalisation
    return sam


def _table_shape(variant: Variant, key: str) -> tuple[int, ...]:
    grid = variant.image_size // PATCH
    if key == _ABSOLUTE_POSITION:
        return (1, grid, grid, variant.embed_dim)
    return (2 * grid - 1, variant.embed_dim // variant.heads)


def _resize_table(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    if table.ndim == 4:
        resized = functional.interpolate(
            table.permute(0, 3, 1, 2), size=shape[1:3], mode="bilinear", align_corners=False, antialias=False
        )
        return resized.permute(0, 2, 3, 1).contiguous()
    resized = functional.interpolate(table.T.unsqueeze(0), size=shape[0], mode="linear", align_corners=False)
    return resized.squeeze(0).T.contiguous()


def normalise(sam: Sam, images: Tensor) -> Tensor:
    """Pixels as the weights of ``sam`` expect them: what its image encoder is given.

    ``mean_std``: (x - mean) / std by channel (segment_anything's ``Sam.preprocess``). ``min_max``: (x - min) /
    (max - min) over all pixels and channels of an image, in [0, 1], 0 for an image of a single colour: MedSAM's, whose
    code gives this to the image encoder and never calls ``preprocess`` (Ma et al., "Segment Anything in Medical
    Images", Nature Communications 2024; MedSAM_Inference.py of bowang-lab/MedSAM).

    Args:
        sam: from ``build_sam``.
        images: (B, 3, S, S) float, 0..255, RGB.
    """
    if sam.normalisation == "mean_std":
        return (images - sam.pixel_mean) / sam.pixel_std
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(LEAST_RANGE)


def normalisation_of(sam: Sam) -> dict[str, str | float | list[float]]:
    """The rule of ``normalise`` and its constants: what an embedding depends on besides weights and pixels."""
    if sam.normalisation == "mean_std":
        return {"rule": "mean_std", "mean": sam.pixel_mean.flatten().tolist(), "std": sam.pixel_std.flatten().tolist()}
    return {"rule": "min_max", "least_range": LEAST_RANGE}
