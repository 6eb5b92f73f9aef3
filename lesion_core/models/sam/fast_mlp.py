"""SAM's MLP with frozen weights, some tokens at a time, so that the hidden activations stay in the cache.

The published block makes two tensors of four times the tokens' size (50 MB each at 1024 pixels), whose fresh memory
pages alone cost a tenth of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Tokens of a piece: 6 MB of hidden activations in ViT-B; fewer would make the products inefficient.
TOKENS = 512


class FastMLP(nn.Module):
    """Takes the place of ``segment_anything``'s ``MLPBlock``, whose layers it takes over under their names.

    On a GPU, in other types than float32 and float64, under autocast, and where the layers learn, it is the published
    block.
    """

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2 = mlp.lin1, mlp.lin2

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if self.in_pieces(x):
            return _FrozenMLP.apply(x, self.lin1.weight, self.lin1.bias, self.lin2.weight, self.lin2.bias)
        return self.lin2(functional.gelu(self.lin1(x)))

    def in_pieces(self, x: Tensor) -> bool:
        """Whether ``x`` is computed piece by piece: see the class."""
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return False
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return False
        return x.dtype == self.lin1.weight.dtype and x.dtype in (torch.float32, torch.float64)


class _FrozenMLP(torch.autograd.Function):
    """Keeps the hidden layer before its activation if a gradient is wanted, else nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        keep = ctx.needs_input_grad[0]
        hidden = x.new_empty(len(tokens) if keep else min(len(tokens), TOKENS), len(bias1))
        buffer = x.new_empty(min(len(tokens), TOKENS), len(bias1)) if keep else hidden
        out = x.new_empty(len(tokens), len(bias2))
        for start in range(0, len(tokens), TOKENS):
            part = tokens[start : start + TOKENS]
            before = hidden[start : start + TOKENS] if keep else hidden[: len(part)]
            after = buffer[: len(part)]
            torch.addmm(bias1, part, weight1.T, out=before)
            torch.ops.aten.gelu.out(before, out=after)
            torch.addmm(bias2, after, weight2.T, out=out[start : start + TOKENS])
        if keep:
            ctx.save_for_backward(hidden, weight1, weight2)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor):
        hidden, weight1, weight2 = ctx.saved_tensors
        given = gradient.reshape(-1, gradient.shape[-1])
        change = hidden.new_empty(min(len(hidden), TOKENS), hidden.shape[1])
        out = hidden.new_empty(len(hidden), weight1.shape[1])
        for start in range(0, len(hidden), TOKENS):
            part = given[start : start + TOKENS]
            buffer = change[: len(part)]
            torch.mm(part, weight2, out=buffer)
            torch.ops.aten.gelu_backward.grad_input(buffer, hidden[start : start + TOKENS], grad_input=buffer)
            torch.mm(buffer, weight1, out=out[start : start + TOKENS])
        return out.view(*gradient.shape[:-1], -1), None, None, None, None
