"""SAM from segment_anything's own modules: variants, builders, strict weight loading.

Architecture: Kirillov et al., "Segment Anything", ICCV 2023; ``sam_vit_t`` is the same architecture made small.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.errors import SettingsError, WeightsError
from lesion_core.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lesion_core.models.sam.input import Normalisation

PATCH = 16
_IMPORT_LOCK = threading.RLock()
_ABSOLUTE_POSITION = "image_encoder.pos_embed"


@dataclass(frozen=True)
class Variant:
    """Sizes of one SAM variant, and how its weights expect pixels; see ``sam_input``.

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


def sam_modeling() -> ModuleType:
    """``segment_anything.modeling`` without running the top package, which imports torchvision (seconds).

    A later ``import segment_anything`` runs the real package and shares these classes.
    """
    name = "segment_anything.modeling"
    with _IMPORT_LOCK:
        if name in sys.modules or "segment_anything" in sys.modules:
            return importlib.import_module(name) if name not in sys.modules else sys.modules[name]
        spec = find_spec("segment_anything")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("segment_anything is not installed", name="segment_anything")
        bare = ModuleType("segment_anything")
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules["segment_anything"] = bare
        try:
            return importlib.import_module(name)
        finally:
            del sys.modules["segment_anything"]


def build_sam(name: str, *, image_size: int | None = None, weights: Path | None = None) -> nn.Module:
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, or a ``.pth``/``.pt`` that holds a plain state dict.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: the file is missing, truncated, not a state dict, or holds other objects than tensors.
    """
    path = Path(path)
    remedy = "fetch the weights again, or give a file of segment_anything's names"
    if not path.is_file():
        raise WeightsError("The weights file does not exist", file=path, remedy=remedy)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path, device="cpu")
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"The weights cannot be read: {error}", file=path, remedy=remedy) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"The weights cannot be read: {first_line}", file=path, remedy=remedy) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsError("The file is not a plain state dict of tensors", file=path, remedy=remedy)
    return dict(state)


def load_sam_weights(sam: nn.Module, state: Mapping[str, Tensor], name: str, *, file: Path | None = None) -> None:
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
            fits = table is not None and tuple(table.shape) == _table_shape(variant, key)
            if fits and table.is_floating_point():
                state[key] = _resize_table(table.float(), tuple(expected[key].shape))
    load_strict(sam, state, file=file)


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, file: Path | None = None) -> None:
    """``module.load_state_dict`` that refuses every difference with a WeightsError; float32 copies are assigned.

    Raises:
        WeightsError: tensors are missing, unknown, of another shape, not floating, or not finite; names in ``ids``.
    """
    checked = check_state(module.state_dict(), state, file=file)
    training = module.training
    module.load_state_dict(checked, strict=True, assign=True)
    module.train(training)


def check_state(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], *, file: Path | None = None
) -> dict[str, Tensor]:
    """Own copies of ``state`` in the expected dtypes, or a WeightsError that names what does not fit."""
    remedy = "use weights of this very model; nothing is loaded in part"
    missing = sorted(expected.keys() - state.keys())
    if missing:
        raise WeightsError(f"{len(missing)} tensors are missing", file=file, ids=missing, remedy=remedy)
    unknown = sorted(state.keys() - expected.keys())
    if unknown:
        raise WeightsError(f"{len(unknown)} tensors are unknown", file=file, ids=unknown, remedy=remedy)
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected)
        if state[key].shape != expected[key].shape
    ]
    if reshaped:
        raise WeightsError(f"{len(reshaped)} tensors have another shape", file=file, ids=reshaped, remedy=remedy)
    mistyped = [key for key in sorted(expected) if state[key].is_floating_point() != expected[key].is_floating_point()]
    if mistyped:
        raise WeightsError(f"{len(mistyped)} tensors have another type", file=file, ids=mistyped, remedy=remedy)
    broken = [key for key in sorted(expected) if not torch.isfinite(state[key]).all()]
    if broken:
        raise WeightsError(f"{len(broken)} tensors are not finite", file=file, ids=broken, remedy=remedy)
    # Cloned, since memory mapped from a file may lie on another alignment and then sum in another order.
    return {key: state[key].detach().to(expected[key].dtype, copy=True).contiguous() for key in expected}


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


def _assemble(variant: Variant, size: int, *, empty: bool = False) -> nn.Module:
    """Put a SAM together; ``empty``: the image encoder without memory, to be loaded.

    A random start of ViT-H's encoder costs seconds and would be overwritten at once. The other parts are small, and
    normal noise on tensors without memory would import torch._dynamo: 4 s of each job.
    """
    modeling = sam_modeling()
    grid = size // PATCH
    with torch.device("meta") if empty else nullcontext():
        image_encoder = modeling.ImageEncoderViT(
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
    prompt_encoder = modeling.PromptEncoder(
        embed_dim=variant.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(size, size),
        mask_in_chans=16,
    )
    mask_decoder = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=2,
            embedding_dim=variant.prompt_dim,
            num_heads=variant.decoder_heads,
            mlp_dim=variant.decoder_mlp,
        ),
        transformer_dim=variant.prompt_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=variant.iou_hidden,
    )
    sam = modeling.Sam(image_encoder, prompt_encoder, mask_decoder, list(IMAGENET_MEAN), list(IMAGENET_STD))
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
