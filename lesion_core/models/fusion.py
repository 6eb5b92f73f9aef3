"""Fusion of image tokens with mask tokens (paper A, section 3.6).

Z, (B, 1 + N, d): class token and image tokens. M, (B, 1 + N, d): shape token and mask tokens, aligned with Z,
since mask patch i covers the pixels of image token i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lesion_core.errors import SettingsError


class MaskTokens(nn.Module):
    """m_i = W_m vec(mask patch i) + position i, and a learnable shape token before them.

    Masks (B, 1, S, S) in 0..1 with S = grid * stride -> (B, 1 + grid^2, d). Differentiable in the mask.
    Positions are added because attention without them would see a bag of mask patches, not a shape.
    """

    def __init__(self, stride: int, grid: int, width: int) -> None:
        super().__init__()
        self.stride, self.grid = stride, grid
        self.embed = nn.Linear(stride * stride, width, bias=False)
        self.position = nn.Parameter(torch.randn(1, grid * grid, width) * 0.02)
        self.shape_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def patches(self, masks: Tensor) -> Tensor:
        """The vectors vec(mask patch i), (B, N, stride^2), row-major in the grid and in the patch."""
        return nn.functional.unfold(masks, self.stride, stride=self.stride).transpose(1, 2)

    def forward(self, masks: Tensor) -> Tensor:
        # masks centred at 0, so that "skin" and "lesion" differ in sign and not in length alone
        tokens = self.embed(2.0 * self.patches(masks) - 1.0) + self.position
        return torch.cat([self.shape_token.expand(len(masks), -1, -1), tokens], dim=1)


class HeadedAttention(nn.Module):
    """softmax(Q K' / sqrt(d_head)) V; heads side by side, then a linear map. Tokens (B, T, d) -> (B, T, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise SettingsError(
                f"A token length of {width} does not divide into {heads} heads",
                remedy="choose model.heads that divide the backbone's token length",
            )
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of three sequences of tokens; keys and values are of one length."""
        parts = (self.query(queries), self.key(keys), self.value(values))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(attended.transpose(1, 2).flatten(2))


class CrossAttention(HeadedAttention):
    """Q from the image's tokens Z, K and V from the mask's M."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, image_tokens: Tensor, mask_tokens: Tensor) -> Tensor:
        return self.attend(self.norm(image_tokens), mask_tokens, mask_tokens)


class Fusion(nn.Module):
    """Z and masks -> fused tokens (B, 1 + N, d).

    none: Z. concat: W [Z ; M] + b along the features. cross_attention: Z + F; the residual is our choice,
    since V holds the mask alone and F by itself would forget the image, and F starts small, as M does in
    concat: fusion departs from what no fusion knows. gated: g * F + (1 - g) * Z with
    g = sigmoid(W_g [Z ; F] + b_g).
    """

    def __init__(self, kind: str, *, width: int, stride: int, grid: int, heads: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "none":
            return
        self.mask_tokens = MaskTokens(stride, grid, width)
        if kind == "concat":
            self.mix = nn.Linear(2 * width, width)
            with torch.no_grad():  # starts as Z plus a little of M: fine-tuning keeps what the encoder knows
                self.mix.weight[:, :width] = torch.eye(width)
                self.mix.weight[:, width:] *= 0.1
                self.mix.bias.zero_()
            return
        self.attention = CrossAttention(width, heads)
        if kind == "gated":
            self.gate = nn.Linear(2 * width, width)
        else:
            with torch.no_grad():  # small, not zero: at zero no gradient would reach the mask
                self.attention.project.weight *= 0.1
                self.attention.project.bias.zero_()

    def forward(self, image_tokens: Tensor, masks: Tensor) -> Tensor:
        if self.kind == "none":
            return image_tokens
        mask_tokens = self.mask_tokens(masks)
        if self.kind == "concat":
            return self.mix(torch.cat([image_tokens, mask_tokens], dim=-1))
        attended = self.attention(image_tokens, mask_tokens)
        if self.kind == "cross_attention":
            return image_tokens + attended
        gate = torch.sigmoid(self.gate(torch.cat([image_tokens, attended], dim=-1)))
        return gate * attended + (1.0 - gate) * image_tokens
