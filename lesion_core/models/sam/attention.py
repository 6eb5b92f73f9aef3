"""SAM's attention with decomposed relative positions (Li et al., MViTv2, CVPR 2022) by torch's own kernel.

segment_anything projects the padding of its windows too (3.06 times the tokens at 256 pixels, 1.2 times at 1024) and
keeps every attention matrix for the backward pass (0.8 GB per global block at 1024). Here projections and queries see
true tokens only, since a padded key is what the projection makes of a zero; the relative positions are the mask of
``scaled_dot_product_attention``; and a large matrix exists some rows at a time and is computed again in the backward
pass. The result differs from segment_anything's by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Entries of a batch's attention matrix, 16 MB of float32: a larger one is not kept for the backward pass, and exists in
# pieces of about so many, which fit the last cache.
KEPT = PIECE = 1 << 22
# Where no fused kernel passes a gradient to the mask, torch's kernel would take its own formula, a quarter slower.
UNFUSED = ("cpu",)


class Attention(nn.Module):
    """Takes the place of ``segment_anything``'s ``Attention`` and of the window partition around it.

    The modules and tables of ``attention`` are taken over under their names, so that weights keep theirs.

    Args:
        attention: with relative positions, its projections possibly wrapped by adapters that map tokens one by one.
        window: side of a window in tokens; 0: one window, the whole grid.
    """

    def __init__(self, attention: Any, window: int) -> None:
        super().__init__()
        self.num_heads, self.scale, self.window = attention.num_heads, attention.scale, window
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.width = self.rel_pos_h.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        sides = (self.window, self.window) if self.window else (height, width)
        tables = get_rel_pos(sides[0], sides[0], self.rel_pos_h), get_rel_pos(sides[1], sides[1], self.rel_pos_w)
        windows = self._windows(self.qkv(x), x, sides)
        bands = []
        for down, true_h in _bands(height, sides[0]):
            parts = [
                self._attend(windows[:, down, :, across], tables[0][:true_h], tables[1][:true_w])
                for across, true_w in _bands(width, sides[1])
            ]
            bands.append(torch.cat(parts, dim=2))
        return self.proj(torch.cat(bands, dim=1))

    def _windows(self, qkv: Tensor, x: Tensor, sides: tuple[int, int]) -> Tensor:
        """(B, H, W, 3 C) -> (B, windows down, side, windows across, side, 3, heads, d), padded to whole windows."""
        batch, height, width, _ = qkv.shape
        below, right = -height % sides[0], -width % sides[1]
        if below or right:
            blank = self.qkv(x.new_zeros(x.shape[-1])).to(qkv.dtype)
            qkv = torch.cat([qkv, blank.expand(batch, height, right, -1)], dim=2)
            qkv = torch.cat([qkv, blank.expand(batch, below, width + right, -1)], dim=1)
        return qkv.view(batch, (height + below) // sides[0], sides[0], -1, sides[1], 3, self.num_heads, self.width)

    def _attend(self, windows: Tensor, table_h: Tensor, table_w: Tensor) -> Tensor:
        """(B, m, side, n, side, 3, heads, d), true in the first rows and columns of each window -> (B, h, w, C)."""
        batch, down, _, across = windows.shape[:4]
        true = (len(table_h), len(table_w))
        query, key, value = windows.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).unbind(0)
        query = query[:, :, : true[0], : true[1]]
        query, key, value = (part.flatten(2, 3) for part in (query, key, value))
        attended = attend(query, key, value, table_h, table_w, self.scale)
        attended = attended.view(batch, down, across, self.num_heads, *true, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return attended.reshape(batch, down * true[0], across * true[1], -1)


def _bands(length: int, side: int) -> list[tuple[slice, int]]:
    """Windows along an axis, and how many true tokens each has: whole ones, and the last if it is padded."""
    whole, rest = divmod(length, side)
    return [(slice(0, whole), side)] * (whole > 0) + [(slice(whole, None), rest)] * (rest > 0)


def attend(query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v, the bias being q's products with the relative positions.

    Args:
        query: (N, heads, h * w, d); key, value: (N, heads, H * W, d).
        table_h: (h, H, d), entry (i, j): the relative position of key row j seen from query row i.
        table_w: (w, W, d) alike, of columns.
    """
    height, width = len(table_h), len(table_w)
    entries = query.shape[0] * query.shape[1] * width * key.shape[2]  # of one row of queries
    rows = max(1, PIECE // entries)
    again = torch.is_grad_enabled() and height * entries > KEPT
    found = []
    for row in range(0, height, rows):
        some = query[:, :, row * width : (row + rows) * width]
        parts = (some, key, value, table_h[row : row + rows], table_w, scale)
        found.append(checkpoint(_attend, *parts, use_reentrant=False) if again else _attend(*parts))
    return torch.cat(found, dim=2) if len(found) > 1 else found[0]


def _attend(query: Tensor, key: Tensor, value: Tensor, table_h: Tensor, table_w: Tensor, scale: float) -> Tensor:
    """``attend`` of as many rows of queries as ``table_h`` has."""
    grid = query.unflatten(2, (len(table_h), len(table_w)))
    of_rows = torch.einsum("nahwc,hkc->nahwk", grid, table_h.to(query.dtype))
    of_columns = torch.einsum("nahwc,wkc->nahwk", grid, table_w.to(query.dtype))
    of_rows, of_columns = of_rows.flatten(2, 3).unsqueeze(4), of_columns.flatten(2, 3).unsqueeze(3)
    if torch.is_grad_enabled() and query.device.type in UNFUSED:
        scores = ((query * scale) @ key.transpose(2, 3)).unflatten(3, (table_h.shape[1], table_w.shape[1]))
        return (scores + of_rows + of_columns).flatten(3).softmax(dim=-1).to(value.dtype) @ value
    bias = (of_rows + of_columns).flatten(3)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


def use_attention(encoder: ImageEncoderViT) -> None:
    """Give every block of a SAM image encoder ``Attention``, in place; adapters must hang in it already."""
    for block in encoder.blocks:
        block.attn = Attention(block.attn, block.window_size)
        # The block would partition; the attention does it itself.
        block.window_size = 0
