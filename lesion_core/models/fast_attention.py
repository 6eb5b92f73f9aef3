"""SAM's attention with decomposed relative positions (Li et al., MViTv2, CVPR 2022), computed in less time and memory.

segment_anything pads the grid to whole windows and lets the padding through every projection (3.06 times the tokens at
256 pixels, 1.2 times at 1024), and it holds the whole attention matrix, several times while it adds the relative
positions, and once more for the backward pass (0.8 GB per global block at 1024). Here projections and queries see
true tokens only; padded keys and values are what the projection makes of a zero token, which is exact. The matrix
exists a piece at a time, in the cache; the backward pass computes it again. The result differs from
segment_anything's by rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.models.sam import sam_modeling

# One megabyte of float32: a piece stays in a core's cache between the passes over it.
PIECE = 1 << 18
FUSED_ALIGNMENT = 8


class FastAttention(nn.Module):
    """Takes the place of ``segment_anything``'s ``Attention`` and of the window partition around it.

    The modules and tables of ``attention`` are taken over under their names, so that weights keep theirs.

    Args:
        attention: with relative positions, its projections possibly wrapped by adapters that map tokens one by one.
        window: side of a window in tokens; 0: one window, the whole grid.
    """

    def __init__(self, attention: nn.Module, window: int) -> None:
        super().__init__()
        self.num_heads, self.scale, self.window = attention.num_heads, attention.scale, window
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        sides = (self.window, self.window) if self.window else (height, width)
        qkv = self._pad(self.qkv(x), x, sides)
        rows = []
        for real_h, band in _groups(qkv, 1, height, sides[0]):
            row = [self._group(part, (real_h, real_w), sides) for real_w, part in _groups(band, 3, width, sides[1])]
            rows.append(torch.cat(row, dim=2) if len(row) > 1 else row[0])
        return self.proj(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0])

    def _pad(self, qkv: Tensor, x: Tensor, sides: tuple[int, int]) -> Tensor:
        """(B, H, W, 3 C) -> (B, windows down, side, windows across, side, 3, heads, C / heads)."""
        batch, height, width, channels = qkv.shape
        below, right = -height % sides[0], -width % sides[1]
        if below or right:
            padding = self.qkv(x.new_zeros(1, x.shape[-1])).to(qkv.dtype)
            qkv = torch.cat([qkv, padding.expand(batch, height, right, channels)], dim=2)
            qkv = torch.cat([qkv, padding.expand(batch, below, width + right, channels)], dim=1)
        down, across = (height + below) // sides[0], (width + right) // sides[1]
        return qkv.view(batch, down, sides[0], across, sides[1], 3, self.num_heads, -1)

    def _group(self, qkv: Tensor, real: tuple[int, int], sides: tuple[int, int]) -> Tensor:
        """Windows (B, m, side, n, side, 3, heads, d) that hold ``real`` tokens each -> (B, m * real, n * real, C)."""
        batch, down, _, across = qkv.shape[:4]
        query, key, value = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).unbind(0)
        query = query[..., : real[0], : real[1], :].flatten(0, 3)
        key, value = key.flatten(0, 3).flatten(1, 2), value.flatten(0, 3).flatten(1, 2)
        tables = sam_modeling().image_encoder.get_rel_pos
        from_h = tables(sides[0], sides[0], self.rel_pos_h)[: real[0]].to(query.dtype)
        from_w = tables(sides[1], sides[1], self.rel_pos_w)[: real[1]].to(query.dtype)
        bias_h = torch.einsum("nhwc,hkc->nhwk", query, from_h).flatten(1, 2)
        bias_w = torch.einsum("nhwc,wkc->nhwk", query, from_w).flatten(1, 2)
        attended = attend(query.flatten(1, 2), key, value, bias_h, bias_w, self.scale)
        attended = attended.view(batch, down, across, self.num_heads, *real, -1)
        return attended.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, down * real[0], across * real[1], -1)


def use_fast_attention(encoder: nn.Module) -> None:
    """Give every block of a SAM image encoder ``FastAttention``, in place; adapters must hang in it already."""
    for block in encoder.blocks:
        block.attn = FastAttention(block.attn, block.window_size)
        # The block would partition; the attention does it itself.
        block.window_size = 0


def attend(query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v, where a key at (i, j) of its Kh x Kw grid has the bias bias_h[i] + bias_w[j].

    On a CPU in pieces (float32, also under autocast, since half types are slower there), on a GPU fused.

    Args:
        query: (N, L, d), N windows times heads. key, value: (N, Kh Kw, d). bias_h: (N, L, Kh). bias_w: (N, L, Kw).

    Returns:
        (N, L, d).
    """
    if query.is_cuda:
        return attend_fused(query, key, value, bias_h, bias_w, scale)
    with torch.autocast("cpu", enabled=False):
        parts = [part if part.dtype == torch.float64 else part.float() for part in (query, key, value, bias_h, bias_w)]
        return _Pieces.apply(*(part.contiguous() for part in parts), scale)


def attend_fused(query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float) -> Tensor:
    """``attend`` in one fused kernel, without the matrix of biases.

    The biases join the query as more channels, and the key has a one where its row and its column stand, so that their
    product is scale q k^T + bias: exact, and any fused kernel serves.
    """
    down, across = bias_h.shape[-1], bias_w.shape[-1]
    place = torch.arange(key.shape[1], device=key.device)
    ones = torch.cat([functional.one_hot(place // across, down), functional.one_hot(place % across, across)], dim=1).to(
        key.dtype
    )
    query = torch.cat([query * scale, bias_h.to(query.dtype), bias_w.to(query.dtype)], dim=-1)
    key = torch.cat([key, ones.expand(len(key), -1, -1)], dim=-1)
    missing = -query.shape[-1] % FUSED_ALIGNMENT
    if missing:
        query, key = functional.pad(query, (0, missing)), functional.pad(key, (0, missing))
    attended = functional.scaled_dot_product_attention(query[None], key[None], value[None].to(query.dtype), scale=1.0)
    return attended[0]


class _Pieces(torch.autograd.Function):
    """``attend`` a piece of the matrix at a time; keeps its inputs and its output, and no matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float):
        out = torch.empty_like(query)
        buffer = query.new_empty(_room(query, key))
        for n, rows in _pieces(query, key):
            weights = _weights(buffer, query[n, rows], key[n], bias_h[n, rows], bias_w[n, rows], scale)
            torch.bmm(weights, value[n], out=out[n, rows])
        ctx.save_for_backward(query, key, value, bias_h, bias_w, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor):
        query, key, value, bias_h, bias_w, out = ctx.saved_tensors
        gradient = gradient.contiguous()
        # The softmax's Jacobian: dS = P (dP - sum P dP), and that sum is the output's product with its gradient.
        means = (gradient * out).sum(dim=-1, keepdim=True)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        grad_h, grad_w = torch.empty_like(bias_h), torch.empty_like(bias_w)
        buffer, second = query.new_empty(_room(query, key)), query.new_empty(_room(query, key))
        for n, rows in _pieces(query, key):
            part = query[n, rows]
            weights = _weights(buffer, part, key[n], bias_h[n, rows], bias_w[n, rows], ctx.scale)
            change = second[: weights.numel()].view_as(weights)
            torch.bmm(gradient[n, rows], value[n].transpose(1, 2), out=change)
            change.sub_(means[n, rows]).mul_(weights)
            grad_value[n].baddbmm_(weights.transpose(1, 2), gradient[n, rows])
            grad_key[n].baddbmm_(change.transpose(1, 2), part, alpha=ctx.scale)
            grad_query[n, rows] = torch.bmm(change, key[n]).mul_(ctx.scale)
            grid = change.view(*change.shape[:2], bias_h.shape[-1], bias_w.shape[-1])
            grad_h[n, rows], grad_w[n, rows] = grid.sum(dim=-1), grid.sum(dim=-2)
        return grad_query, grad_key, grad_value, grad_h, grad_w, None


def _weights(buffer: Tensor, query: Tensor, key: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float) -> Tensor:
    """A piece (n, l, Kh Kw) of the attention matrix, in ``buffer``."""
    shape = (*query.shape[:2], key.shape[1])
    scores = buffer[: math.prod(shape)].view(shape)
    torch.bmm(query * scale, key.transpose(1, 2), out=scores)
    grid = scores.view(*shape[:2], bias_h.shape[-1], bias_w.shape[-1])
    grid.add_(bias_h[..., :, None]).add_(bias_w[..., None, :])
    return torch.softmax(scores, dim=-1, out=scores)


def _sizes(query: Tensor, key: Tensor) -> tuple[int, int]:
    """How many windows and how many queries of each make a piece."""
    length, keys = query.shape[1], key.shape[1]
    if length * keys <= PIECE:
        return max(1, PIECE // (length * keys)), length
    return 1, max(1, PIECE // keys)


def _room(query: Tensor, key: Tensor) -> int:
    windows, rows = _sizes(query, key)
    return min(windows, len(query)) * rows * key.shape[1]


def _pieces(query: Tensor, key: Tensor) -> list[tuple[slice, slice]]:
    windows, rows = _sizes(query, key)
    return [
        (slice(n, n + windows), slice(row, row + rows))
        for n in range(0, len(query), windows)
        for row in range(0, query.shape[1], rows)
    ]


def _groups(qkv: Tensor, axis: int, length: int, side: int) -> list[tuple[int, Tensor]]:
    """Windows along ``axis`` by the true tokens that they hold: all whole ones, and the last if it is padded."""
    whole, rest = divmod(length, side)
    if not (whole and rest):
        return [(rest or side, qkv)]
    # Not two slices: their gradients would be two tensors of the whole's size, and their sum.
    return list(zip((side, rest), qkv.split([whole, 1], dim=axis), strict=True))
