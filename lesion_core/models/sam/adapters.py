"""Adapters for a frozen SAM image encoder: bottleneck, gated bottleneck, LoRA (paper A, section 3.3), and the
placements of Med-SA, GMed-SA and GL-Med-SA (paper B, section III).

With ``init="zero"`` all of them are exactly nothing at the start, so that step 0 equals SAM to the bit; with
``"random"`` they disturb it, which is the untrained row of Table 9.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

Init = Literal["zero", "random"]
Targets = Literal["qv", "qkvo"]
THIRDS = ("query", "key", "value")
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


class LoRAProjection(nn.Module):
    """SAM's fused qkv projection with W' = W + B A on some of its thirds; the others stay as they are.

    Args:
        qkv: the projection (d -> 3 d).
        parts: thirds that are adapted, of ``query``, ``key``, ``value``.
    """

    def __init__(self, qkv: nn.Linear, rank: int, parts: tuple[str, ...], *, init: Init = "zero") -> None:
        super().__init__()
        self.qkv = qkv
        self.parts = parts
        for part in parts:
            self.add_module(part, LowRank(qkv.in_features, rank, init=init))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., 3 d), in the order query, key, value."""
        thirds = dict(zip(THIRDS, self.qkv(x).chunk(3, dim=-1), strict=True))
        changed = {part: thirds[part] + getattr(self, part)(x) for part in self.parts}
        return torch.cat([changed.get(part, third) for part, third in thirds.items()], dim=-1)


class LoRAOutput(nn.Module):
    """The attention's output projection with W' = W + B A."""

    def __init__(self, projection: nn.Linear, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.projection = projection
        self.output = LowRank(projection.in_features, rank, init=init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.projection(x) + self.output(x)


class MedSABottleneck(nn.Module):
    """A(x) = FC_up ReLU(FC_down x), both with a bias and without a residual of its own (paper B, section III.B).

    Args:
        dim: channels d.
        rank: width of the bottleneck; 80 gives the parameter counts that paper B prints for ViT-H.
        init: of FC_up; its bias starts at zero, so that ``zero`` makes A vanish.
    """

    def __init__(self, dim: int, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank)
        self.up = nn.Linear(rank, dim)
        _start(self.up.weight, init)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.up(nn.functional.relu(self.down(x)))


class AfterAttention(nn.Module):
    """z + A(z) on the output z of multi-head attention (Med-SA's MHA-A), hung on its output projection."""

    def __init__(self, projection: Any, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.projection = projection
        self.adapter = MedSABottleneck(projection.out_features, rank, init=init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        z = self.projection(x)
        return z + self.adapter(z)


class BesideMLP(nn.Module):
    """MLP(h) + A(h), h the normalised tokens: the adapter in the MLP's residual path (Med-SA's MLP-A)."""

    def __init__(self, mlp: Any, rank: int, *, init: Init = "zero") -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = MedSABottleneck(mlp.lin1.in_features, rank, init=init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.mlp(x) + self.adapter(x)


def bottlenecks(encoder: ImageEncoderViT, rank: int, depth: int, *, gated: bool, init: Init = "zero") -> nn.ModuleList:
    """One ``LayerAdapter`` per block of a SAM image encoder, which stays untouched."""
    return nn.ModuleList(LayerAdapter(width, rank, depth, gated=gated, init=init) for width in _widths(encoder))


def add_lora(encoder: ImageEncoderViT, rank: int, targets: Targets = "qv", *, init: Init = "zero") -> None:
    """Put LoRA around every block's qkv projection, in place (weights must be loaded before).

    Args:
        targets: ``qv``: query and value (Hu et al.'s choice); ``qkvo``: key and output projection too.
    """
    for block in encoder.blocks:
        parts = ("query", "value") if targets == "qv" else THIRDS
        block.attn.qkv = LoRAProjection(block.attn.qkv, rank, parts, init=init)
        if targets == "qkvo":
            block.attn.proj = LoRAOutput(block.attn.proj, rank, init=init)


def add_med_sa(encoder: ImageEncoderViT, rank: int, *, init: Init = "zero") -> None:
    """Med-SA's two adapters in every block, in place (weights must be loaded before)."""
    for block in encoder.blocks:
        block.attn.proj = AfterAttention(block.attn.proj, rank, init=init)
        block.mlp = BesideMLP(block.mlp, rank, init=init)


def highway(encoder: ImageEncoderViT, rank: int, *, init: Init = "zero") -> nn.ModuleList:
    """GMed-SA's adapters g, one per block on a residual path around it: block(x) + g(x) (paper B, equation 1)."""
    return nn.ModuleList(MedSABottleneck(width, rank, init=init) for width in _widths(encoder))


def _widths(encoder: ImageEncoderViT) -> list[int]:
    return [block.norm2.normalized_shape[0] for block in encoder.blocks]


def _start(weight: Tensor, init: Init) -> None:
    if init == "zero":
        nn.init.zeros_(weight)
    else:
        nn.init.normal_(weight, std=RANDOM_STD)
