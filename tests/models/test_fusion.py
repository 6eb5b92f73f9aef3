"""Fusion of image and mask tokens: against formulas written out by hand and torch's own attention."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import SettingsError
from lesion_core.models.fusion import CrossAttention, Fusion, MaskTokens
from lesion_core.seeding import seed_torch

WIDTH, STRIDE, GRID, HEADS = 8, 4, 3, 2


def fusion(kind: str) -> Fusion:
    seed_torch(1, kind)
    return Fusion(kind, width=WIDTH, stride=STRIDE, grid=GRID, heads=HEADS)


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    seed_torch(2)
    return torch.randn(2, 1 + GRID**2, WIDTH), torch.rand(2, 1, STRIDE * GRID, STRIDE * GRID)


def test_mask_patch_i_is_the_pixels_of_image_token_i():
    tokens = MaskTokens(STRIDE, GRID, WIDTH)
    mask = torch.zeros(1, 1, 12, 12)
    mask[0, 0, 4:8, 8:12] = torch.arange(16.0).view(4, 4)  # grid row 1, column 2: token 1 * 3 + 2
    patches = tokens.patches(mask)
    assert patches.shape == (1, 9, 16)
    assert torch.equal(patches[0, 5], torch.arange(16.0))
    assert patches[0, [0, 1, 2, 3, 4, 6, 7, 8]].abs().sum() == 0


def test_mask_tokens_follow_the_formula_and_start_with_the_shape_token():
    tokens = MaskTokens(STRIDE, GRID, WIDTH)
    _, masks = sample()
    made = tokens(masks)
    assert made.shape == (2, 10, WIDTH)
    assert torch.equal(made[1, 0], tokens.shape_token[0, 0])
    patch = masks[1, 0, 8:12, 4:8].reshape(-1)  # token 2 * 3 + 1
    expected = tokens.embed.weight @ (2 * patch - 1) + tokens.position[0, 7]
    torch.testing.assert_close(made[1, 8], expected)


def test_none_passes_the_image_tokens_on():
    image_tokens, masks = sample()
    assert fusion("none")(image_tokens, masks) is image_tokens
    assert not list(fusion("none").parameters())


def test_concat_is_a_linear_map_of_both_streams():
    module = fusion("concat")
    image_tokens, masks = sample()
    both = torch.cat([image_tokens, module.mask_tokens(masks)], dim=-1)
    expected = both @ module.mix.weight.T + module.mix.bias
    torch.testing.assert_close(module(image_tokens, masks), expected)


def test_cross_attention_agrees_with_torch():
    seed_torch(4)
    module = CrossAttention(WIDTH, HEADS)
    other = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        parts = [module.query, module.key, module.value]
        other.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        other.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        other.out_proj.weight.copy_(module.project.weight)
        other.out_proj.bias.copy_(module.project.bias)
    image_tokens, mask_tokens = torch.randn(2, 5, WIDTH), torch.randn(2, 4, WIDTH)
    expected, _ = other(module.norm(image_tokens), mask_tokens, mask_tokens, need_weights=False)
    torch.testing.assert_close(module(image_tokens, mask_tokens), expected)


def test_cross_attention_keeps_the_image():
    module = fusion("cross_attention")
    image_tokens, masks = sample()
    attended = module.attention(image_tokens, module.mask_tokens(masks))
    torch.testing.assert_close(module(image_tokens, masks), image_tokens + attended)


@pytest.mark.parametrize("kind", ["concat", "cross_attention"])
def test_fusion_starts_near_no_fusion(kind: str):
    image_tokens, masks = sample()
    change = fusion(kind)(image_tokens, masks) - image_tokens
    assert 0 < change.norm() < 0.1 * image_tokens.norm()


def test_gate_mixes_attention_and_image_tokens_as_published():
    module = fusion("gated")
    image_tokens, masks = sample()
    attended = module.attention(image_tokens, module.mask_tokens(masks))
    both = torch.cat([image_tokens, attended], dim=-1)
    gate = 1 / (1 + torch.exp(-(both @ module.gate.weight.T + module.gate.bias)))
    torch.testing.assert_close(module(image_tokens, masks), gate * attended + (1 - gate) * image_tokens)


@pytest.mark.parametrize("kind", ["concat", "cross_attention", "gated"])
def test_gradients_reach_mask_and_every_parameter(kind: str):
    module = fusion(kind)
    image_tokens, masks = sample()
    masks.requires_grad_()
    module(image_tokens, masks).square().sum().backward()
    assert masks.grad.abs().min() > 0
    # a key's bias shifts all scores of a query alike, so softmax gives it no gradient
    silent = [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent in ([], ["attention.key.bias"])


def test_fused_tokens_do_not_depend_on_the_rest_of_the_batch():
    image_tokens, masks = sample()
    for kind in ("concat", "cross_attention", "gated"):
        module = fusion(kind)
        torch.testing.assert_close(module(image_tokens, masks)[:1], module(image_tokens[:1], masks[:1]))


def test_refusals():
    with pytest.raises(SettingsError, match="heads"):
        Fusion("gated", width=8, stride=4, grid=3, heads=3)
