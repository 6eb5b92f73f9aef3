"""SAM's windowed attention on a CPU, from the fused projection to the heads' output, forward and backward.

One autograd function over all windows: it keeps the projection and its own output for the backward pass and neither
padded copies nor any attention matrix. A matrix exists a piece at a time, in the cache, and is computed again for the
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Eight megabytes of float32: a piece stays in the last cache between the passes over it, and is tall enough that the
# keys, packed anew by each piece's product, cost little.
PIECE = 1 << 21
# Of windows larger than a piece so many go side by side: two threads take one each, instead of sharing every product.
ABREAST = 2


class Region(NamedTuple):
    """Windows side by side that hold equally many true tokens: ``count`` of ``height`` x ``width`` tokens each."""

    top: int
    left: int
    height: int
    width: int
    count: int


def regions(height: int, width: int, sides: tuple[int, int]) -> Iterator[Region]:
    """Cut a grid into rows of windows; windows at the lower and right edge may be cut short."""
    whole, rest = divmod(width, sides[1])
    for top in range(0, height, sides[0]):
        rows = min(sides[0], height - top)
        if whole:
            yield Region(top, 0, rows, sides[1], whole)
        if rest:
            yield Region(top, whole * sides[1], rows, rest, 1)


class WindowedAttention(torch.autograd.Function):
    """softmax(scale q k^T + bias) v in every window, with decomposed relative positions as the bias.

    ``apply(qkv, padding, table_h, table_w, heads, scale)``:

    Args:
        qkv: (B, H, W, 3 C) float32 or float64, the projected tokens: query, key, value, each ``heads`` x d channels.
        padding: (3 C,) what the projection makes of a padded token.
        table_h: (Sh, Sh, d), entry (i, j): the relative position of key row j seen from query row i in a window of Sh
            rows. table_w: (Sw, Sw, d) alike, of columns.
        heads, scale: as the names say.

    Returns:
        (B, H, W, C).
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, padding: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float
    ) -> Tensor:
        batch, height, width, channels = qkv.shape
        sides = len(table_h), len(table_w)
        out = qkv.new_empty(batch, height, width, channels // 3)
        places = _by_head(out, heads)
        for region in regions(height, width, sides):
            query, key, value = _gather(qkv, padding, region, sides, heads)
            bias_h, bias_w = _biases(query, region, table_h, table_w)
            found = torch.empty_like(query)
            buffer = query.new_empty(_room(query, key))
            for n, rows in _pieces(query, key):
                weights = _weights(buffer, query[n, rows], key[n], bias_h[n, rows], bias_w[n, rows], scale)
                torch.bmm(weights, value[n], out=found[n, rows])
            _put(places, region, found)
        ctx.save_for_backward(qkv, padding, table_h, table_w, out)
        ctx.heads, ctx.scale = heads, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        qkv, padding, table_h, table_w, out = ctx.saved_tensors
        heads, sides = ctx.heads, (len(table_h), len(table_w))
        gradient = _by_head(gradient, heads)
        # The softmax's Jacobian: dS = P (dP - sum P dP), and that sum is the output's product with its gradient.
        means = (gradient * _by_head(out, heads)).sum(dim=-1, keepdim=True)
        grad_qkv = torch.empty_like(qkv)
        of_query, of_key, of_value = _by_head(grad_qkv, 3 * heads).split(heads, dim=3)
        grad_padding = torch.zeros_like(padding) if ctx.needs_input_grad[1] else None
        wanted = zip((table_h, table_w), ctx.needs_input_grad[2:4], strict=True)
        grad_tables = [torch.zeros_like(table) if want else None for table, want in wanted]
        for region in regions(*qkv.shape[1:3], sides):
            query, key, value = _gather(qkv, padding, region, sides, heads)
            biases = _biases(query, region, table_h, table_w)
            given, mean = _take(gradient, region), _take(means, region)
            changes = _differentiate(query, key, value, biases, given, mean, ctx.scale)
            grad_query, grad_key, grad_value, *grad_biases = changes
            _through_biases(query, grad_query, grad_biases, region, (table_h, table_w), grad_tables)
            _put(of_query, region, grad_query)
            for place, change in ((of_key, grad_key), (of_value, grad_value)):
                _put(place, region, change, sides)
            if grad_padding is not None:
                _add_padding(grad_padding, (grad_key, grad_value), region, sides, heads)
        return grad_qkv, grad_padding, *grad_tables, None, None


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, H, W, heads * d) -> (B, H, W, heads, d), a view."""
    return x.unflatten(3, (heads, -1))


def _windows(x: Tensor, region: Region) -> Tensor:
    """(B, H, W, heads, d) -> the region's (B, count, heads, height, width, d), a view."""
    across = region.count * region.width
    part = x[:, region.top : region.top + region.height, region.left : region.left + across]
    return part.unflatten(2, (region.count, region.width)).permute(0, 2, 4, 1, 3, 5)


def _take(x: Tensor, region: Region) -> Tensor:
    """The region's tokens (N, height * width, d), N = B * count * heads, a copy."""
    return _windows(x, region).flatten(3, 4).flatten(0, 2).contiguous()


def _put(x: Tensor, region: Region, values: Tensor, sides: tuple[int, int] | None = None) -> None:
    """Write a region's (N, L, d) into ``x``; with ``sides``, L covers whole windows, whose padding is left out."""
    place = _windows(x, region)
    rows, columns = sides or (region.height, region.width)
    values = values.view(*place.shape[:3], rows, columns, -1)
    place.copy_(values[..., : region.height, : region.width, :])


def _gather(
    qkv: Tensor, padding: Tensor, region: Region, sides: tuple[int, int], heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query (N, height * width, d) of the true tokens, key and value (N, Sh * Sw, d) of padded ones too."""
    query, key, value = _by_head(qkv, 3 * heads).split(heads, dim=3)
    if (region.height, region.width) == sides:
        return _take(query, region), _take(key, region), _take(value, region)
    whole = []
    for part, vector in ((key, padding.view(3, heads, -1)[1]), (value, padding.view(3, heads, -1)[2])):
        tokens = _windows(part, region)
        window = tokens.new_empty(*tokens.shape[:3], *sides, tokens.shape[-1])
        window[..., : region.height, : region.width, :] = tokens
        window[..., : region.height, region.width :, :] = vector[:, None, None]
        window[..., region.height :, :, :] = vector[:, None, None]
        whole.append(window.flatten(3, 4).flatten(0, 2))
    return _take(query, region), whole[0], whole[1]


def _biases(query: Tensor, region: Region, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """Per query and key row (N, L, Sh), per query and key column (N, L, Sw)."""
    grid = query.unflatten(1, (region.height, region.width))
    bias_h = torch.einsum("nhwc,hkc->nhwk", grid, table_h[: region.height])
    bias_w = torch.einsum("nhwc,wkc->nhwk", grid, table_w[: region.width])
    return bias_h.flatten(1, 2).contiguous(), bias_w.flatten(1, 2).contiguous()


def _weights(buffer: Tensor, query: Tensor, key: Tensor, bias_h: Tensor, bias_w: Tensor, scale: float) -> Tensor:
    """A piece (n, l, Kh Kw) of the attention matrix, in ``buffer``."""
    shape = (*query.shape[:2], key.shape[1])
    scores = buffer[: math.prod(shape)].view(shape)
    grid = scores.view(*shape[:2], bias_h.shape[-1], bias_w.shape[-1])
    # Summed in the published order, so that the rounding is the published one too.
    torch.bmm(query * scale, key.transpose(1, 2), out=scores)
    grid.add_(bias_h[..., :, None]).add_(bias_w[..., None, :])
    return torch.softmax(scores, dim=-1, out=scores)


def _differentiate(
    query: Tensor, key: Tensor, value: Tensor, biases: tuple[Tensor, Tensor], given: Tensor, means: Tensor, scale: float
) -> tuple[Tensor, ...]:
    """Gradients of query, key, value and both biases from that of the output, piece by piece."""
    grad_query = torch.empty_like(query)
    # Transposed: the sum over rows is then a product of the usual shape, a quarter faster than the other way round.
    grad_key, grad_value = (part.new_empty(len(part), part.shape[2], part.shape[1]) for part in (key, value))
    grad_h, grad_w = (torch.empty_like(bias) for bias in biases)
    bias_h, bias_w = biases
    buffer, second = (query.new_empty(_room(query, key)) for _ in range(2))
    for n, rows in _pieces(query, key):
        part, told = query[n, rows], given[n, rows]
        weights = _weights(buffer, part, key[n], bias_h[n, rows], bias_w[n, rows], scale)
        change = second[: weights.numel()].view_as(weights)
        torch.bmm(told, value[n].transpose(1, 2), out=change)
        change.sub_(means[n, rows]).mul_(weights)
        # The first rows overwrite, the others add.
        beta = float(rows.start > 0)
        grad_value[n].baddbmm_(told.transpose(1, 2), weights, beta=beta)
        grad_key[n].baddbmm_(part.transpose(1, 2), change, beta=beta, alpha=scale)
        torch.bmm(change, key[n], out=grad_query[n, rows])
        grid = change.view(*change.shape[:2], bias_h.shape[-1], bias_w.shape[-1])
        torch.sum(grid, dim=-1, out=grad_h[n, rows])
        torch.sum(grid, dim=-2, out=grad_w[n, rows])
    turned = (part.transpose(1, 2).contiguous() for part in (grad_key, grad_value))
    return grad_query.mul_(scale), *turned, grad_h, grad_w


def _through_biases(
    query: Tensor,
    grad_query: Tensor,
    grad_biases: list[Tensor],
    region: Region,
    tables: tuple[Tensor, Tensor],
    grad_tables: list[Tensor | None],
) -> None:
    """Add what flows through the biases to the gradients of the query and, where wanted, of the tables."""
    inside = (region.height, region.width)
    grid = query.unflatten(1, inside)
    for axis, grad_bias, table, grad_table in zip("hw", grad_biases, tables, grad_tables, strict=True):
        length = inside["hw".index(axis)]
        change = grad_bias.unflatten(1, inside)
        grad_query += torch.einsum(f"nhwk,{axis}kc->nhwc", change, table[:length]).flatten(1, 2)
        if grad_table is not None:
            grad_table[:length] += torch.einsum(f"nhwk,nhwc->{axis}kc", change, grid)


def _add_padding(
    grad_padding: Tensor, changes: tuple[Tensor, Tensor], region: Region, sides: tuple[int, int], heads: int
) -> None:
    """Add the gradients of padded keys and values to that of the padded token's projection, (3 C,)."""
    for place, change in zip(grad_padding.view(3, heads, -1)[1:], changes, strict=True):
        windows = change.view(-1, heads, *sides, change.shape[-1])
        place += windows[:, :, : region.height, region.width :].sum(dim=(0, 2, 3))
        place += windows[:, :, region.height :].sum(dim=(0, 2, 3))


def _sizes(query: Tensor, key: Tensor) -> tuple[int, int]:
    """How many windows and how many queries of each make a piece."""
    length, keys = query.shape[1], key.shape[1]
    if length * keys <= PIECE:
        return max(1, PIECE // (length * keys)), length
    return ABREAST, max(1, PIECE // (ABREAST * keys))


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
