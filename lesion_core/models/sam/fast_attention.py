"""SAM's attention with decomposed relative positions (Li et al., MViTv2, CVPR 2022), computed in less time and memory.

segment_anything pads the grid to whole windows and lets the padding through every projection (3.06 times the tokens at
256 pixels, 1.2 times at 1024), and it holds the whole attention matrix, several times while it adds the relative
positions, and once more for the backward pass (0.8 GB per global block at 1024). Here projections and queries see
true tokens only; padded keys and values are what the projection makes of a zero token, which is exact. On a CPU the
matrix exists a piece at a time (``windowed_attention``), on a GPU inside one fused kernel. The result differs from
segment_anything's by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.models.sam.fast_mlp import FastMLP
from lesion_core.models.sam.network import sam_modeling
from lesion_core.models.sam.windowed_attention import WindowedAttention

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
        # Looked up here and not at each call: torch.compile cannot trace an import.
        self._relative = sam_modeling().image_encoder.get_rel_pos

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        sides = (self.window, self.window) if self.window else (height, width)
        qkv = self.qkv(x)
        padded = height % sides[0] or width % sides[1]
        padding = (self.qkv(x.new_zeros(x.shape[-1])) if padded else qkv.new_zeros(qkv.shape[-1])).to(qkv.dtype)
        of_rows, of_columns = zip(sides, (self.rel_pos_h, self.rel_pos_w), strict=True)
        tables = [self._relative(side, side, table) for side, table in (of_rows, of_columns)]
        attend = attend_fused if x.is_cuda else attend_in_pieces
        return self.proj(attend(qkv, padding, *tables, self.num_heads, self.scale))


def use_fast_attention(encoder: nn.Module) -> None:
    """Give every block of a SAM image encoder ``FastAttention`` and ``FastMLP``, in place.

    Adapters must hang in it already.
    """
    for block in encoder.blocks:
        block.attn = FastAttention(block.attn, block.window_size)
        # The block would partition; the attention does it itself.
        block.window_size = 0
        owner = block.mlp if hasattr(block.mlp, "mlp") else block
        owner.mlp = FastMLP(owner.mlp)


def attend_in_pieces(
    qkv: Tensor, padding: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float
) -> Tensor:
    """``WindowedAttention`` in float32 (or float64), also under autocast, since half types are slower on a CPU."""
    with torch.autocast("cpu", enabled=False):
        parts = (qkv, padding, table_h, table_w)
        return WindowedAttention.apply(
            *(part if part.dtype == torch.float64 else part.float() for part in parts), heads, scale
        )


def attend_fused(qkv: Tensor, padding: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float) -> Tensor:
    """``WindowedAttention``'s result in fused kernels, without the matrix of biases; arguments as there.

    The biases join the query as more channels, and the key has a one where its row and its column stand, so that their
    product is scale q k^T + bias: exact, and any fused kernel serves.
    """
    sides = (len(table_h), len(table_w))
    qkv, size = _pad(qkv, padding, sides, heads), qkv.shape[1:3]
    rows = []
    for real_h, band in _groups(qkv, 1, size[0], sides[0]):
        row = [
            _group(part, (real_h, real_w), table_h[:real_h], table_w[:real_w], scale)
            for real_w, part in _groups(band, 3, size[1], sides[1])
        ]
        rows.append(torch.cat(row, dim=2) if len(row) > 1 else row[0])
    return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]


def _pad(qkv: Tensor, padding: Tensor, sides: tuple[int, int], heads: int) -> Tensor:
    """(B, H, W, 3 C) -> (B, windows down, side, windows across, side, 3, heads, C / heads)."""
    batch, height, width, channels = qkv.shape
    below, right = -height % sides[0], -width % sides[1]
    if below or right:
        qkv = torch.cat([qkv, padding.expand(batch, height, right, channels)], dim=2)
        qkv = torch.cat([qkv, padding.expand(batch, below, width + right, channels)], dim=1)
    down, across = (height + below) // sides[0], (width + right) // sides[1]
    return qkv.view(batch, down, sides[0], across, sides[1], 3, heads, -1)


def _group(qkv: Tensor, real: tuple[int, int], from_h: Tensor, from_w: Tensor, scale: float) -> Tensor:
    """Windows (B, m, side, n, side, 3, heads, d) that hold ``real`` tokens each -> (B, m * real, n * real, C)."""
    batch, down, _, across, _, _, heads = qkv.shape[:7]
    query, key, value = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).unbind(0)
    query = query[..., : real[0], : real[1], :].flatten(0, 3)
    key, value = key.flatten(0, 3).flatten(1, 2), value.flatten(0, 3).flatten(1, 2)
    bias_h = torch.einsum("nhwc,hkc->nhwk", query, from_h.to(query.dtype)).flatten(1, 2)
    bias_w = torch.einsum("nhwc,wkc->nhwk", query, from_w.to(query.dtype)).flatten(1, 2)
    attended = _fused(query.flatten(1, 2), key, value, bias_h, bias_w, scale)
    attended = attended.view(batch, down, across, heads, *real, -1)
    return attended.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, down * real[0], across * real[1], -1)


def _fused(query: Tensor, key: Tensor, value: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v: query (N, L, d), key and value (N, Kh Kw, d), biases (N, L, Kh), (N, L, Kw)."""
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


def _groups(qkv: Tensor, axis: int, length: int, side: int) -> list[tuple[int, Tensor]]:
    """Windows along ``axis`` by the true tokens that they hold: all whole ones, and the last if it is padded."""
    whole, rest = divmod(length, side)
    if not (whole and rest):
        return [(rest or side, qkv)]
    # Not two slices: their gradients would be two tensors of the whole's size, and their sum.
    return list(zip((side, rest), qkv.split([whole, 1], dim=axis), strict=True))
