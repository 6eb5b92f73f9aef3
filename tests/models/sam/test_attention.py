"""SAM's attention beside segment_anything's: values, gradients, padded windows, names, memory; recomputed blocks."""

from __future__ import annotations

import copy

import pytest
import torch
from segment_anything.modeling.image_encoder import Block
from segmentation_runs import shaken_sam

from lesion_core.models.sam import attention, segmenter
from lesion_core.models.sam.attention import use_attention
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.seeding import seed_torch

KINDS = {
    "bottleneck": {"adapter": "bottleneck", "rank": 4, "depth": 2, "gated": True},
    "lora": {"adapter": "lora", "rank": 4, "lora_targets": "qkvo"},
    "gl_med_sa": {"adapter": "gl_med_sa", "rank": 4},
}


def block(window: int, grid: tuple[int, int], dim: int = 24) -> torch.nn.Module:
    """A published block whose biases and tables are far from zero: a forgotten padded key would show."""
    seed_torch(window, "block")
    size = grid if window == 0 else (window, window)
    module = Block(dim, 3, use_rel_pos=True, window_size=window, input_size=size)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


def ours_of(reference: torch.nn.Module) -> torch.nn.Module:
    ours = copy.deepcopy(reference)
    use_attention(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([ours])}))
    return ours


@pytest.mark.parametrize("entries", [1, 400, 1 << 24])  # a row at a time and recomputed; some rows; whole and kept
@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (3, 3)])  # whole windows; padded ones; less than one
@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("unfused", [("cpu",), ()])  # the formula; torch's kernel, which GPUs take
def test_a_block_equals_the_published_one_with_all_its_gradients(grid, window, entries, unfused, monkeypatch):
    monkeypatch.setattr(attention, "UNFUSED", unfused)
    monkeypatch.setattr(attention, "KEPT", entries)
    monkeypatch.setattr(attention, "PIECE", entries)
    reference = block(window, grid)
    results = []
    for module in (reference, ours_of(reference)):
        x = torch.randn(2, *grid, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        y = module(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        results.append({"y": y.detach(), "x": x.grad, **{name: item.grad for name, item in module.named_parameters()}})
    assert results[0].keys() == results[1].keys()
    for name, expected in results[0].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(results[1][name], expected, rtol=0, atol=1e-11 * max(scale, 1.0), msg=name)


def test_padded_keys_matter():
    """The planted fault: keys of zeros instead of the projection's bias would go unnoticed without this."""
    reference = block(4, (5, 7))
    ours = ours_of(reference)
    x = torch.randn(1, 5, 7, 24, dtype=torch.float64)
    with torch.no_grad():
        ours.attn.qkv.bias.zero_()
        assert (reference(x) - ours(x)).abs().max() > 1e-3


@pytest.fixture(scope="module")
def sam() -> torch.nn.Module:
    # 80 pixels: a grid of 5 in windows of 8, so every window is padded
    return shaken_sam(80)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1)) * 255


def adapted(sam, kind: str, *, published: bool = False) -> SamSegmenter:
    """With random adapters, in our attention or in segment_anything's own."""
    seed_torch(5, "adapters")
    with pytest.MonkeyPatch.context() as patch:
        if published:
            patch.setattr(segmenter, "use_attention", lambda encoder: None)
        return SamSegmenter(copy.deepcopy(sam), **KINDS[kind], adapter_init="random")


def gradients(model: SamSegmenter, images: torch.Tensor) -> dict[str, torch.Tensor]:
    model(images).square().mean().backward()
    return {name: item.grad for name, item in model.trainable_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_as_in_segment_anythings_attention(sam, images, kind):
    expected = gradients(adapted(sam, kind, published=True), images)
    found = gradients(adapted(sam, kind), images)
    assert list(expected) == list(found)
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max() / gradient.abs().max().clamp_min(1e-12)) < 1e-4, name


def kept_bytes(model: SamSegmenter, images: torch.Tensor) -> tuple[int, int]:
    """Bytes that the graph of one training pass holds until its backward pass: in all, and of the largest tensor."""
    seen: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(images).square().mean()
    # Kept alive until here, so that no address is counted for two tensors.
    assert loss.requires_grad
    return sum(seen.values()), max(seen.values())


def test_less_is_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(attention, "KEPT", 1 << 18)
    seed_torch(3, "memory")
    sam = build_sam("sam_vit_t", image_size=512)
    images = torch.rand(1, 3, 512, 512) * 255
    matrix = 5 * (32 * 32) ** 2 * 4
    published, largest = kept_bytes(adapted(sam, "lora", published=True), images)
    assert largest >= matrix
    ours = adapted(sam, "lora")
    kept, largest = kept_bytes(ours, images)
    assert largest < matrix / 4, "no attention matrix is kept"
    assert published > 1.5 * kept
    ours.activation_checkpointing = True
    assert published > 6 * kept_bytes(ours, images)[0]


def test_recomputed_blocks_give_the_same_gradients_to_the_bit(sam, images):
    expected = gradients(adapted(sam, "gl_med_sa"), images)
    recomputed = adapted(sam, "gl_med_sa")
    recomputed.activation_checkpointing = True
    found = gradients(recomputed, images)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(("name", "size"), [("sam_vit_b", 1024), ("sam_vit_l", 512), ("sam_vit_h", 1024)])
def test_the_large_variants_learn_adapters(name, size):
    """Shapes alone, on the meta device: forward and backward through all blocks, at SAM's size and at a smaller one."""
    with torch.device("meta"):
        model = SamSegmenter(build_sam(name, image_size=size), adapter="bottleneck", rank=64, depth=2).to("meta")
        embeddings = model.encode(torch.empty(1, 3, size, size))
    assert embeddings.shape == (1, 256, size // 16, size // 16)
    embeddings.sum().backward()
    assert all(parameter.grad is not None for _, parameter in model.trainable_parameters())
