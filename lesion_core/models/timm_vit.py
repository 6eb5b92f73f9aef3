"""ImageNet weights of timm's ViT-B/16 for SegMAE's encoder (paper D: "official pretrained weights of ViT")."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lesion_core.errors import WeightsError
from lesion_core.models.weights import check_state, read_weights

TIMM_VIT = "vit_base_patch16_224.augreg2_in21k_ft_in1k"


def timm_state(image_size: int, weights: Path | None) -> dict[str, Tensor]:
    """Tensors of timm's ViT-B/16 by timm's names, positions brought to ``image_size``; from ``weights`` if given.

    Raises:
        WeightsError: they cannot be fetched or read.
    """
    if weights is not None:
        return read_weights(weights)
    import timm

    try:
        return timm.create_model(TIMM_VIT, pretrained=True, num_classes=0, img_size=image_size).state_dict()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"Weights of {TIMM_VIT} cannot be fetched: {error}",
            remedy="check the network, or set model.encoder_weights to null",
        ) from error


def load_timm(encoder: nn.Module, state: dict[str, Tensor], file: Path | None) -> None:
    """timm's tensors into SegMAE's encoder, strictly; the class token has no place here and is left out.

    Args:
        encoder: with a ``stem`` (or None), ``embed``, ``position``, ``layers`` and ``norm``; the stem, and with one the
            patch embedding behind it, keep their start.
        state: see ``timm_state``.
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
