"""Adapters for a frozen SAM image encoder: bottleneck, gated bottleneck, LoRA (paper A, section 3.3).

With ``init="zero"`` all of them are exactly nothing at the start, so that step 0 equals SAM to the bit; with
``"random"`` they disturb it, which is the untrained row of Table 9.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["zero", "random"]
# Standard deviation of a random start, as usual for vision transformers.
RANDOM_STD = 0.02


class Bottleneck(nn.Module):
    """x + A(x), A(x) = W_up GELU(W_down x); gated: x + g * A(x), g = sigmoid(W_g x + b_g), element by element.

    Args:
        dim: channels d of the layer's output.
        rank: r, rows of W_down (r, d) and columns of W_up (d, r); neither has a bias, as in the paper.
        gated: with the gate, W_g (d, d) and b_g (d,).
        init: of W_up.
    """

    def __init__(self, dim: int, rank: int, *, gated: bool, init: Init = "zero") -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank, bias=False)
        self.activation = nn.GELU()
        self.up = nn.Linear(rank, dim, bias=False)
        _start(self.up.weight, init)
        self.gate = nn.Linear(dim, dim) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        change = self.up(self.activation(self.down(x)))
        if self.gate is not None:
            change = torch.sigmoid(self.gate(x)) * change
        return x + change


class LayerAdapter(nn.Sequential):
    """``depth`` bottlenecks in a row on the output of one transformer layer (paper A, Table 11: 1, 2, 4)."""

    def __init__(self, dim: int, rank: int, depth: int, *, gated: bool, init: Init = "zero") -> None:
        super().__init__(*(Bottleneck(dim, rank, gated=gated, init=init) for _ in range(depth)))


class LowRank(nn.Module):
    """The product B A of LoRA (Hu et al., ICLR 2022), without a scale.

    A (r, d) starts as torch starts a Linear, B (d, r) as ``init`` says.
    """

    def __init__(self, dim: int, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, dim))
        self.b = nn.Parameter(torch.empty(dim, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        _start(self.b, init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d): x (B A)^T."""
        return nn.functional.linear(nn.functional.linear(x, self.a), self.b)


class LoRAQueryValue(nn.Module):
    """SAM's fused qkv projection with W' = W + B A on its query and value thirds; the key third stays as it is."""

    def __init__(self, qkv: nn.Linear, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.qkv = qkv
        self.query = LowRank(qkv.in_features, rank, init=init)
        self.value = LowRank(qkv.in_features, rank, init=init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., 3 d), in the order query, key, value."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return torch.cat([query + self.query(x), key, value + self.value(x)], dim=-1)


def bottlenecks(encoder: nn.Module, rank: int, depth: int, *, gated: bool, init: Init = "zero") -> nn.ModuleList:
    """One ``LayerAdapter`` per block of a SAM image encoder, which stays untouched."""
    return nn.ModuleList(
        LayerAdapter(block.norm2.normalized_shape[0], rank, depth, gated=gated, init=init) for block in encoder.blocks
    )


def add_lora(encoder: nn.Module, rank: int, *, init: Init = "zero") -> None:
    """Put ``LoRAQueryValue`` around every block's qkv projection, in place (weights must be loaded before)."""
    for block in encoder.blocks:
        block.attn.qkv = LoRAQueryValue(block.attn.qkv, rank, init=init)


def _start(weight: Tensor, init: Init) -> None:
    if init == "zero":
        nn.init.zeros_(weight)
    else:
        nn.init.normal_(weight, std=RANDOM_STD)
