"""The fast attention beside segment_anything's: values, gradients, padded windows, names, memory; recomputed blocks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.models.sam import fast_mlp, windowed_attention
from lesion_core.models.sam.fast_attention import FastAttention, attend_fused, attend_in_pieces, use_fast_attention
from lesion_core.models.sam.fast_mlp import FastMLP
from lesion_core.models.sam.network import build_sam, sam_modeling
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.seeding import seed_torch
from lesion_core.training.step import checkpoint_activations

KINDS = {
    "bottleneck": {"adapter": "bottleneck", "rank": 4, "depth": 2, "gated": True},
    "lora": {"adapter": "lora", "rank": 4, "lora_targets": "qkvo"},
    "gl_med_sa": {"adapter": "gl_med_sa", "rank": 4},
}


def inputs(batch: int, grid: tuple[int, int], sides: tuple[int, int], heads: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    channels = 3
    shapes = [(batch, *grid, 3 * heads * channels), (3 * heads * channels,)]
    shapes += [(side, side, channels) for side in sides]
    return [torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes]


def plain(qkv, padding, table_h, table_w, heads, scale):
    """The definition, token by token."""
    batch, height, width = qkv.shape[:3]
    sides = len(table_h), len(table_w)
    split = qkv.view(batch, height, width, 3, heads, -1)
    outside = padding.view(3, heads, -1)
    out = torch.empty(batch, height, width, heads, split.shape[-1], dtype=qkv.dtype)
    for b, i, j, head in itertools.product(range(batch), range(height), range(width), range(heads)):
        query = split[b, i, j, 0, head]
        top, left = i // sides[0] * sides[0], j // sides[1] * sides[1]
        scores, values = [], []
        for row, column in itertools.product(range(sides[0]), range(sides[1])):
            inside = top + row < height and left + column < width
            token = split[b, top + row, left + column] if inside else outside
            bias = query @ table_h[i - top, row] + query @ table_w[j - left, column]
            scores.append(scale * (query @ token[1, head]) + bias)
            values.append(token[2, head])
        out[b, i, j, head] = torch.stack(scores).softmax(dim=0) @ torch.stack(values)
    return out.flatten(3)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 2),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 2),
    st.sampled_from([1, 20, 70, 1 << 18]),
)
def test_both_kernels_are_the_definition(batch, grid, sides, heads, piece):
    given_ = inputs(batch, grid, sides, heads, seed=heads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windowed_attention, "PIECE", piece)
        expected = plain(*given_, heads, 0.7)
        torch.testing.assert_close(attend_in_pieces(*given_, heads, 0.7), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(attend_fused(*given_, heads, 0.7), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("piece", [1 << 18, 30, 5])
@pytest.mark.parametrize("grid", [(3, 4), (2, 3)])
def test_gradients_against_finite_differences(piece, grid, monkeypatch):
    monkeypatch.setattr(windowed_attention, "PIECE", piece)
    given_ = [part.requires_grad_() for part in inputs(1, grid, (2, 3), 2, seed=5)]
    for kernel in (attend_in_pieces, attend_fused):
        assert torch.autograd.gradcheck(lambda *parts, kernel=kernel: kernel(*parts, 2, 0.4), given_)


@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [1, 3]])
def test_each_gradient_comes_alone_too(wanted):
    gradients = []
    for kernel in (attend_in_pieces, attend_fused):
        given_ = [part.requires_grad_(place in wanted) for place, part in enumerate(inputs(2, (3, 4), (2, 3), 2, 6))]
        kernel(*given_, 2, 0.4).square().sum().backward()
        gradients.append([part.grad for part in given_])
    for place, (one, other) in enumerate(zip(*gradients, strict=True)):
        assert (one is not None) == (place in wanted)
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


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


def mlp() -> tuple[torch.nn.Module, FastMLP]:
    seed_torch("mlp")
    published = sam_modeling().common.MLPBlock(6, 24).double()
    return published, FastMLP(copy.deepcopy(published))


@pytest.mark.parametrize("tokens", [1, 4, 1000])
def test_the_mlp_in_pieces_is_the_published_one_with_its_gradient(tokens, monkeypatch):
    monkeypatch.setattr(fast_mlp, "TOKENS", tokens)
    published, fast = mlp()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), published(x), rtol=1e-12, atol=1e-12)
    for module in (published, fast):
        module.requires_grad_(False)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast(ours).square().sum().backward()
    published(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(fast, [ours])


def test_an_mlp_that_learns_gets_its_gradients():
    published, fast = mlp()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    for module in (published, fast):
        module(x).square().sum().backward()
    for (name, expected), (_, found) in zip(published.named_parameters(), fast.named_parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)


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


@pytest.mark.parametrize(("name", "size"), [("sam_vit_b", 1024), ("sam_vit_l", 512), ("sam_vit_h", 1024)])
def test_the_large_variants_learn_adapters_under_both(name, size, monkeypatch):
    """Shapes alone, on the meta device: forward and backward through all blocks, at SAM's size and at a smaller one."""
    monkeypatch.setattr(windowed_attention, "PIECE", 1 << 40)
    for attention in ("reference", "fast"):
        with torch.device("meta"):
            sam = build_sam(name, image_size=size)
            segmenter = SamSegmenter(sam, adapter="bottleneck", rank=64, depth=2, attention=attention).to("meta")
            embeddings = segmenter.encode(torch.empty(1, 3, size, size))
        assert embeddings.shape == (1, 256, size // 16, size // 16)
        embeddings.sum().backward()
        assert all(parameter.grad is not None for _, parameter in segmenter.trainable_parameters())
