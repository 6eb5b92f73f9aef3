"""The fast attention beside segment_anything's: values, gradients, padded windows, names, memory; recomputed blocks."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.models import fast_attention
from lesion_core.models.fast_attention import FastAttention, attend, attend_fused, use_fast_attention
from lesion_core.models.sam import build_sam, sam_modeling
from lesion_core.models.sam_segmenter import SamSegmenter
from lesion_core.seeding import seed_torch
from lesion_core.training.updater import checkpoint_activations

KINDS = {
    "bottleneck": {"adapter": "bottleneck", "rank": 4, "depth": 2, "gated": True},
    "lora": {"adapter": "lora", "rank": 4, "lora_targets": "qkvo"},
    "gl_med_sa": {"adapter": "gl_med_sa", "rank": 4},
}


def inputs(windows: int, length: int, down: int, across: int, channels: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    keys = down * across
    shapes = [(windows, length, channels), (windows, keys, channels), (windows, keys, channels)]
    shapes += [(windows, length, down), (windows, length, across)]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes]


def plain(query, key, value, bias_h, bias_w, scale):
    """The definition, by two loops over the keys' grid."""
    scores = torch.empty(*query.shape[:2], key.shape[1], dtype=query.dtype)
    for i in range(bias_h.shape[-1]):
        for j in range(bias_w.shape[-1]):
            place = i * bias_w.shape[-1] + j
            product = scale * (query * key[:, None, place]).sum(dim=-1)
            scores[..., place] = product + bias_h[..., i] + bias_w[..., j]
    return scores.softmax(dim=-1) @ value


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 20, 70, 1 << 18])
)
def test_both_kernels_are_the_definition(windows, length, down, across, piece):
    given_ = inputs(windows, length, down, across, 3, seed=windows * length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_attention, "PIECE", piece)
        expected = plain(*given_, 0.7)
        torch.testing.assert_close(attend(*given_, 0.7), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(attend_fused(*given_, 0.7), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("piece", [1 << 18, 60, 13])
def test_gradients_against_finite_differences(piece, monkeypatch):
    monkeypatch.setattr(fast_attention, "PIECE", piece)
    given_ = [part.requires_grad_() for part in inputs(2, 4, 2, 3, 2, seed=5)]
    assert torch.autograd.gradcheck(lambda *parts: attend(*parts, 0.4), given_)
    assert torch.autograd.gradcheck(lambda *parts: attend_fused(*parts, 0.4), given_)


def block(window: int, grid: tuple[int, int], dim: int = 24) -> torch.nn.Module:
    """A published block whose biases and tables are far from zero: a forgotten padded key would show."""
    seed_torch(window, "block")
    size = grid if window == 0 else (window, window)
    module = sam_modeling().image_encoder.Block(dim, 3, use_rel_pos=True, window_size=window, input_size=size)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (9, 4), (3, 3), (12, 8)])
@pytest.mark.parametrize("window", [0, 4])
def test_a_block_equals_the_published_one_with_all_its_gradients(grid, window):
    reference = block(window, grid)
    fast = copy.deepcopy(reference)
    use_fast_attention(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([fast])}))
    assert isinstance(fast.attn, FastAttention)
    results = []
    for module in (reference, fast):
        x = torch.randn(2, *grid, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        y = module(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        results.append({"y": y.detach(), "x": x.grad, **{name: item.grad for name, item in module.named_parameters()}})
    assert results[0].keys() == results[1].keys()
    for name, expected in results[0].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(results[1][name], expected, rtol=0, atol=1e-11 * max(scale, 1.0), msg=name)


def test_padded_keys_matter(monkeypatch):
    """The planted fault: keys of zeros instead of the projection's bias would go unnoticed without this."""
    reference = block(4, (5, 7))
    fast = copy.deepcopy(reference)
    use_fast_attention(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([fast])}))
    x = torch.randn(1, 5, 7, 24, dtype=torch.float64)
    with torch.no_grad():
        fast.attn.qkv.bias.zero_()
        assert (reference(x) - fast(x)).abs().max() > 1e-3


@pytest.fixture(scope="module")
def sam() -> torch.nn.Module:
    # 80 pixels: a grid of 5 in windows of 8, so every window is padded.
    seed_torch(3, "test_fast_attention")
    sam = build_sam("sam_vit_t", image_size=80)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return sam


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1)) * 255


def adapted(sam, kind: str, **change) -> SamSegmenter:
    seed_torch(5, "adapters")
    return SamSegmenter(copy.deepcopy(sam), **{**KINDS[kind], "adapter_init": "random", **change})


def test_the_encoder_equals_segment_anything_within_1e_4(sam, images):
    normalised = torch.stack([sam.preprocess(image) for image in images])
    fast = SamSegmenter(copy.deepcopy(sam), adapter="none", attention="fast")
    with torch.no_grad():
        # The first forward pass of a process once differed in its last bits.
        sam.image_encoder(normalised)
        expected = sam.image_encoder(normalised)
        ours = fast.encode(images)
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_the_same_under_both(sam, images, kind):
    gradients = []
    for attention in ("reference", "fast"):
        segmenter = adapted(sam, kind, attention=attention)
        segmenter(images).square().mean().backward()
        gradients.append({name: item.grad for name, item in segmenter.trainable_parameters()})
    assert list(gradients[0]) == list(gradients[1]), "names of what is learnt do not depend on the attention"
    for name, expected in gradients[0].items():
        error = (gradients[1][name] - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        assert float(error) < 1e-4, name


def test_states_move_between_both(sam, images):
    one, other = adapted(sam, "lora", attention="fast"), adapted(sam, "lora", attention="reference")
    assert one.state_dict().keys() == other.state_dict().keys()
    with torch.no_grad():
        for _, parameter in one.trainable_parameters():
            parameter.normal_(std=0.1)
        other.load_trainable_state(one.trainable_state())
        torch.testing.assert_close(one(images), other(images), rtol=1e-4, atol=1e-4)


def kept_bytes(segmenter, images) -> tuple[int, int]:
    """Bytes that the graph of one training pass holds until its backward pass: in all, and of the largest tensor."""
    seen: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in segmenter.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = segmenter(images).square().mean()
    # Kept alive until here, so that no address is counted for two tensors.
    assert loss.requires_grad
    return sum(seen.values()), max(seen.values())


def test_less_is_kept_for_the_backward_pass():
    seed_torch(3, "memory")
    sam = build_sam("sam_vit_t", image_size=512)
    images = torch.rand(1, 3, 512, 512) * 255
    matrix = 5 * (32 * 32) ** 2 * 4
    reference, largest = kept_bytes(adapted(sam, "lora", attention="reference"), images)
    assert largest >= matrix
    segmenter = adapted(sam, "lora", attention="fast")
    fast, largest = kept_bytes(segmenter, images)
    assert largest < matrix / 4, "no attention matrix is kept"
    assert reference > 1.5 * fast
    checkpoint_activations(segmenter)
    assert reference > 6 * kept_bytes(segmenter, images)[0]


@pytest.mark.parametrize("attention", ["reference", "fast"])
def test_recomputed_blocks_give_the_same_gradients_to_the_bit(sam, images, attention):
    gradients = []
    for recompute in (False, True):
        segmenter = adapted(sam, "gl_med_sa", attention=attention)
        if recompute:
            checkpoint_activations(segmenter)
        segmenter(images).square().mean().backward()
        gradients.append({name: item.grad for name, item in segmenter.trainable_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_half_types_on_a_cpu_are_computed_in_float32(sam, images):
    fast = adapted(sam, "lora", attention="fast")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = fast(images)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
