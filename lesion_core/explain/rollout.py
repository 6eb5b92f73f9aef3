"""Attention roll-out: how much each token can draw on each patch through all layers.

Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020: the residual path is half of every layer, so
a layer passes on (A + I) / 2 with A averaged over heads; the layers' product is the flow from the input to the output.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from segment_anything.modeling.image_encoder import add_decomposed_rel_pos, window_partition
from torch import Tensor, nn

from lesion_core.errors import SettingsError
from lesion_core.explain.cam import classifier_encoder, classify


class Flow:
    """Roll-out layer by layer, so that one matrix is kept whatever the depth."""

    def __init__(self) -> None:
        self._value: Tensor | None = None

    def add(self, attention: Tensor) -> None:
        """Pass through the next layer; attention (B, T, T) averaged over heads, rows of sum 1."""
        identity = torch.eye(attention.shape[-1], device=attention.device, dtype=attention.dtype)
        layer = (attention + identity) / 2
        layer = layer / layer.sum(dim=-1, keepdim=True)
        self._value = layer if self._value is None else layer @ self._value

    @property
    def value(self) -> Tensor:
        """(B, T, T), rows of sum 1."""
        if self._value is None:
            raise SettingsError("Attention roll-out saw no layer")
        return self._value


def attention_of(qkv: Tensor, heads: int) -> Tensor:
    """softmax(QK' / sqrt d) averaged over heads: joint projections (B, T, 3 * width) -> (B, T, T)."""
    batch, count, triple = qkv.shape
    query, key, _ = qkv.view(batch, count, 3, heads, triple // 3 // heads).permute(2, 0, 3, 1, 4)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return scores.float().softmax(dim=-1).mean(dim=1)


def encoder_layers(encoder: Any) -> list[tuple[nn.Module, int]] | None:
    """(joint projection, heads) of each layer of a classifier's ViT; None for a CNN, which has no attention."""
    if hasattr(encoder, "layers"):
        return [(layer.qkv, layer.heads) for layer in encoder.layers]
    blocks = getattr(getattr(encoder, "model", None), "blocks", [])
    found = [(block.attn.qkv, block.attn.num_heads) for block in blocks if hasattr(getattr(block, "attn", None), "qkv")]
    return found or None


def classifier_rollout(
    model: nn.Module, images: Tensor, masks: Tensor, metadata: Tensor | None = None
) -> Tensor | None:
    """Flow from the patches to the class token, (B, grid, grid) in the frame of what the encoder sees; None for a CNN.

    Args:
        images: (B, 3, S, S) float, 0..255; masks: (B, 1, S, S) float, 0..1; metadata: what the model takes besides.
    """
    encoder = classifier_encoder(model)
    layers = encoder_layers(encoder)
    if layers is None:
        return None
    flow = Flow()
    with torch.inference_mode(), ExitStack() as hooks:
        for layer, heads in layers:
            hook = layer.register_forward_hook(lambda _, __, output, heads=heads: flow.add(attention_of(output, heads)))
            hooks.callback(hook.remove)
        classify(model, images, masks, metadata)
    grid = encoder.grid
    return flow.value[:, 0, flow.value.shape[-1] - grid * grid :].reshape(len(images), grid, grid)


def segmenter_rollout(model: Any, images: Tensor) -> Tensor | None:
    """Flow through SAM's image encoder to the tokens that it calls lesion, (B, g, g); None for a CNN.

    Args:
        model: a segmenter.
        images: (B, 3, S, S) float, 0..255.
    """
    sam = getattr(model, "sam", None)
    if sam is None:
        return None
    flow, grid = Flow(), int(model.image_size) // 16
    with torch.inference_mode(), ExitStack() as hooks:
        for block in sam.image_encoder.blocks:
            hook = block.attn.register_forward_pre_hook(lambda attn, inputs: flow.add(windowed(attn, inputs[0], grid)))
            hooks.callback(hook.remove)
        logits = model(images, None)
    called = (nn.functional.adaptive_max_pool2d(logits, grid) > 0).flatten(1).float()
    # where nothing is called lesion, the flow to all tokens
    called = torch.where(called.any(dim=1, keepdim=True), called, torch.ones_like(called))
    drawn = torch.einsum("bt,bts->bs", called / called.sum(dim=1, keepdim=True), flow.value)
    return drawn.reshape(len(images), grid, grid)


def windowed(attn: Any, x: Tensor, grid: int) -> Tensor:
    """Attention of one SAM block over all tokens, (B, grid², grid²): zero between windows, padding left out.

    Args:
        attn: ``models.sam.attention.Attention``. x: its input (B, grid, grid, C).
    """
    window = attn.window
    if window == 0:
        return sam_attention(attn, x)
    weights = sam_attention(attn, window_partition(x, window)[0])
    across = -(-grid // window)
    batch = len(weights) // across**2
    weights = weights.view(batch, across**2, window**2, window**2)
    place = torch.arange(across * window, device=x.device)
    inside = (place[:, None] < grid) & (place[None, :] < grid)
    number = torch.where(inside, place[:, None] * grid + place[None, :], -1)
    # token numbers window by window, in the order in which segment_anything cuts them
    number = number.view(across, window, across, window).permute(0, 2, 1, 3).reshape(across**2, window**2)
    full = weights.new_zeros(batch, grid * grid, grid * grid)
    for part in range(across**2):
        kept = number[part] >= 0
        tokens = number[part][kept]
        own = weights[:, part][:, kept][:, :, kept]
        full[:, tokens[:, None], tokens[None, :]] = own / own.sum(dim=-1, keepdim=True)
    return full


def sam_attention(attn: Any, x: Tensor) -> Tensor:
    """softmax with relative positions, averaged over heads, (B, h * w, h * w), as segment_anything computes it."""
    batch, height, width, _ = x.shape
    heads = attn.num_heads
    qkv = attn.qkv(x).reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, _ = qkv.reshape(3, batch * heads, height * width, -1).unbind(0)
    scores = (query * attn.scale) @ key.transpose(-2, -1)
    sides = (height, width)
    scores = add_decomposed_rel_pos(scores, query, attn.rel_pos_h, attn.rel_pos_w, sides, sides)
    return scores.float().softmax(dim=-1).view(batch, heads, height * width, -1).mean(dim=1)
