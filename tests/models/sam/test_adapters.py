"""Adapters: formulas, names of what learns, equality with SAM at step 0, gradients, strict state; the registry."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from segmentation_runs import shaken_sam

from lesion_core.errors import WeightsError
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.adapters import Bottleneck, LayerAdapter, LoRAOutput, LoRAProjection, MedSABottleneck
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.seeding import seed_torch
from lesion_core.settings import SegmentationModel

LAYERS = 8
DIM = 160
KINDS = {
    "bottleneck": {"adapter": "bottleneck", "rank": 4, "depth": 2},
    "gated": {"adapter": "bottleneck", "rank": 4, "depth": 2, "gated": True},
    "lora": {"adapter": "lora", "rank": 4},
    "lora_qkvo": {"adapter": "lora", "rank": 4, "lora_targets": "qkvo"},
    "med_sa": {"adapter": "med_sa", "rank": 4},
    "gmed_sa": {"adapter": "gmed_sa", "rank": 4},
    "gl_med_sa": {"adapter": "gl_med_sa", "rank": 4},
}
# Matrices that start at zero, per adapted block.
UPS = {"bottleneck": 2, "gated": 2, "lora": 2, "lora_qkvo": 4, "med_sa": 2, "gmed_sa": 1, "gl_med_sa": 3}


@pytest.fixture(scope="module")
def sam() -> torch.nn.Module:
    return shaken_sam(64)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255


def adapted(sam, kind: str, **change) -> SamSegmenter:
    seed_torch(5, "adapters")
    return SamSegmenter(copy.deepcopy(sam), **{**KINDS[kind], **change})


def loss(segmenter, images) -> torch.Tensor:
    logits = segmenter(images)
    target = torch.zeros_like(logits)
    target[..., 4:12, 4:12] = 1
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target)


def test_bottleneck_is_its_formula():
    adapter = Bottleneck(6, 2, gated=True)
    torch.nn.init.normal_(adapter.up.weight)
    x = torch.randn(3, 4, 6)
    change = torch.nn.functional.gelu(x @ adapter.down.weight.T) @ adapter.up.weight.T
    gate = torch.sigmoid(x @ adapter.gate.weight.T + adapter.gate.bias)
    torch.testing.assert_close(adapter(x), x + gate * change)
    adapter.gate = None
    torch.testing.assert_close(adapter(x), x + change)


def test_depth_is_a_chain():
    layer = LayerAdapter(6, 2, 4, gated=False)
    assert len(layer) == 4
    for one in layer:
        torch.nn.init.normal_(one.up.weight)
    x = torch.randn(5, 6)
    expected = x
    for one in layer:
        expected = expected + one.up(torch.nn.functional.gelu(one.down(expected)))
    torch.testing.assert_close(layer(x), expected)


def test_lora_is_its_formula_on_query_and_value():
    qkv = torch.nn.Linear(6, 18)
    lora = LoRAProjection(qkv, 2, ("query", "value"))
    for part in (lora.query, lora.value):
        torch.nn.init.normal_(part.b)
    merged = qkv.weight.detach().clone()
    merged[:6] += lora.query.b @ lora.query.a
    merged[12:] += lora.value.b @ lora.value.a
    x = torch.randn(4, 6)
    torch.testing.assert_close(lora(x), torch.nn.functional.linear(x, merged, qkv.bias))
    assert torch.equal(lora(x)[:, 6:12], qkv(x)[:, 6:12])


def test_lora_on_all_four_is_its_formula():
    qkv, out = torch.nn.Linear(6, 18), torch.nn.Linear(6, 6)
    lora, output = LoRAProjection(qkv, 2, ("query", "key", "value")), LoRAOutput(out, 2)
    parts = (lora.query, lora.key, lora.value)
    for part in (*parts, output.output):
        torch.nn.init.normal_(part.b)
    merged = qkv.weight + torch.cat([part.b @ part.a for part in parts])
    x = torch.randn(4, 6)
    torch.testing.assert_close(lora(x), torch.nn.functional.linear(x, merged, qkv.bias))
    merged = out.weight + output.output.b @ output.output.a
    torch.testing.assert_close(output(x), torch.nn.functional.linear(x, merged, out.bias))


def test_med_sa_bottleneck_is_its_formula():
    adapter = MedSABottleneck(6, 2, init="random")
    torch.nn.init.normal_(adapter.up.bias)
    x = torch.randn(5, 6)
    hidden = (x @ adapter.down.weight.T + adapter.down.bias).clamp_min(0)
    torch.testing.assert_close(adapter(x), hidden @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("kind", ["med_sa", "gmed_sa", "gl_med_sa"])
def test_med_sa_block_is_the_papers_sum(sam, images, kind):
    """One block by hand: z + A(z) after attention, MLP(h) + A(h), and g around the block (paper B, equation 1)."""
    plain = copy.deepcopy(sam).image_encoder
    segmenter = adapted(sam, kind, adapter_init="random")
    assert plain.blocks[3].window_size == 0
    with torch.no_grad():
        x = plain.patch_embed((images - sam.pixel_mean) / sam.pixel_std) + plain.pos_embed
        block, own = plain.blocks[3], segmenter.sam.image_encoder.blocks[3]
        z, h = block.attn(block.norm1(x)), None
        if kind != "gmed_sa":
            z = z + own.attn.proj.adapter(z)
        y = x + z
        h = block.norm2(y)
        local = y + block.mlp(h) + (own.mlp.adapter(h) if kind != "gmed_sa" else 0)
        expected = local + (segmenter.highway[3](x) if kind != "med_sa" else 0)
        found = own(x) + (segmenter.highway[3](x) if segmenter.highway is not None else 0)
        torch.testing.assert_close(found, expected)
        through = x
        for layer, one in enumerate(segmenter.sam.image_encoder.blocks):
            through = one(through) + (segmenter.highway[layer](through) if segmenter.highway is not None else 0)
        embedding = segmenter.sam.image_encoder.neck(through.permute(0, 3, 1, 2))
        torch.testing.assert_close(segmenter.encode(images), embedding)


@pytest.mark.parametrize(
    ("kind", "trainable"), [("med_sa", 13_194_240), ("gmed_sa", 6_597_120), ("gl_med_sa", 19_791_360)]
)
def test_vit_h_has_the_papers_counts(kind, trainable):
    """Paper B, Table I: 636 M frozen (the image encoder), 13 M and 20 M trainable."""
    with torch.device("meta"):
        segmenter = SamSegmenter(build_sam("sam_vit_h"), adapter=kind, rank=80)
    assert sum(parameter.numel() for _, parameter in segmenter.trainable_parameters()) == trainable
    frozen = [parameter for parameter in segmenter.parameters() if not parameter.requires_grad]
    assert sum(parameter.numel() for parameter in frozen) == 641_090_608
    encoder = sum(
        parameter.numel() for parameter in segmenter.sam.image_encoder.parameters() if not parameter.requires_grad
    )
    assert encoder == 637_026_048


@pytest.mark.parametrize("kind", ["none", *KINDS, "decoder"])
@pytest.mark.parametrize("prompt", ["none", "box", "click"])
def test_step_0_equals_segment_anything_itself(sam, images, kind, prompt):
    """The published Sam.forward beside ours, image by image, in fp32 on the CPU: one mask and all of them."""
    segmenter = adapted(sam, kind) if kind in KINDS else SamSegmenter(copy.deepcopy(sam), adapter=kind)
    given = {
        "none": None,
        "box": Prompts(boxes=torch.tensor([[1.0, 2, 30, 40]])),
        "click": Prompts(points=torch.tensor([[[3.0, 9.0]]]), point_labels=torch.ones(1, 1, dtype=torch.int64)),
    }[prompt]
    record = {"image": images[0], "original_size": (64, 64)}
    if prompt == "box":
        record["boxes"] = given.boxes
    if prompt == "click":
        record |= {"point_coords": given.points, "point_labels": given.point_labels}
    with torch.no_grad():
        nested = sam([record], multimask_output=True)[0]
        single = sam([record], multimask_output=False)[0]
        masks, iou = segmenter.decode_all(segmenter.encode(images[:1]), given)
        found = segmenter(images[:1], given)
    close = {"rtol": 1e-4, "atol": 1e-4 * float(nested["low_res_logits"].abs().max())}
    torch.testing.assert_close(masks[:, 1:], nested["low_res_logits"], **close)
    torch.testing.assert_close(iou[:, 1:], nested["iou_predictions"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, single["low_res_logits"], **close)


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_start_does_not_equal_sam(sam, images, kind):
    plain = SamSegmenter(copy.deepcopy(sam), adapter="none")
    started = adapted(sam, kind, adapter_init="random")
    with torch.no_grad():
        assert not torch.equal(started(images), plain(images))
    ups = [p for name, p in started.trainable_parameters() if name.endswith(("up.weight", ".b"))]
    assert len(ups) == UPS[kind] * LAYERS
    assert all(abs(float(up.detach().std()) - 0.02) < 0.005 for up in ups)


def expected_names(kind: str) -> set[str]:
    blocks = [f"sam.image_encoder.blocks.{layer}" for layer in range(LAYERS)]
    if kind.startswith("lora"):
        parts = ("query", "value") if kind == "lora" else ("query", "key", "value")
        names = {f"{block}.attn.qkv.{part}.{matrix}" for block in blocks for part in parts for matrix in "ab"}
        return names | {f"{block}.attn.proj.output.{m}" for block in blocks for m in "ab" if kind == "lora_qkvo"}
    if kind.endswith("med_sa"):
        places = [f"highway.{layer}" for layer in range(LAYERS) if kind != "med_sa"]
        if kind != "gmed_sa":
            places += [f"{block}.{place}.adapter" for block in blocks for place in ("attn.proj", "mlp")]
        return {f"{place}.{part}.{what}" for place in places for part in ("down", "up") for what in ("weight", "bias")}
    parts = ["down.weight", "up.weight"] + (["gate.weight", "gate.bias"] if kind == "gated" else [])
    return {f"adapters.{layer}.{block}.{part}" for layer in range(LAYERS) for block in range(2) for part in parts}


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_learn(sam, kind):
    segmenter = adapted(sam, kind)
    names = [name for name, _ in segmenter.trainable_parameters()]
    assert set(names) == expected_names(kind)
    assert names == sorted(names)
    assert {name for name, parameter in segmenter.named_parameters() if parameter.requires_grad} == set(names)
    assert set(segmenter.trainable_state()) == set(names)


@pytest.mark.parametrize(
    ("kind", "change", "count"),
    [
        ("bottleneck", {"rank": 64, "depth": 1}, LAYERS * 2 * DIM * 64),
        ("bottleneck", {"rank": 64, "depth": 2}, LAYERS * 2 * 2 * DIM * 64),
        ("bottleneck", {"rank": 64, "depth": 4}, LAYERS * 4 * 2 * DIM * 64),
        ("gated", {"rank": 64, "depth": 1}, LAYERS * (2 * DIM * 64 + DIM * DIM + DIM)),
        ("lora", {"rank": 4}, LAYERS * 2 * 2 * DIM * 4),
        ("lora_qkvo", {"rank": 4}, LAYERS * 4 * 2 * DIM * 4),
        ("med_sa", {"rank": 8}, LAYERS * 2 * (2 * DIM * 8 + DIM + 8)),
        ("gmed_sa", {"rank": 8}, LAYERS * (2 * DIM * 8 + DIM + 8)),
        ("gl_med_sa", {"rank": 8}, LAYERS * 3 * (2 * DIM * 8 + DIM + 8)),
    ],
)
def test_trainable_counts(sam, kind, change, count):
    segmenter = adapted(sam, kind, **change)
    assert sum(parameter.numel() for _, parameter in segmenter.trainable_parameters()) == count


DECODER = "sam.mask_decoder"


def test_the_decoder_alone_learns(sam, images):
    """Paper E. What mask 0 does not pass through would get no gradient, so it stays frozen; all the rest is named."""
    segmenter = SamSegmenter(copy.deepcopy(sam), adapter="decoder")
    names = {name for name, _ in segmenter.trainable_parameters()}
    idle = (f"{DECODER}.iou_prediction_head", *(f"{DECODER}.output_hypernetworks_mlps.{mask}" for mask in (1, 2, 3)))
    decoder = {name for name, _ in segmenter.named_parameters() if name.startswith(f"{DECODER}.")}
    assert names == {name for name in decoder if not name.startswith(idle)}
    box = Prompts(boxes=torch.tensor([[1.0, 2, 30, 40], [5, 6, 60, 50]]))
    segmenter(images, box).square().mean().backward()
    for name, parameter in segmenter.named_parameters():
        assert (parameter.grad is not None) == (name in names), name


def test_the_decoder_of_vit_b_has_its_published_size():
    with torch.device("meta"):
        segmenter = SamSegmenter(build_sam("medsam"), adapter="decoder")
    assert sum(parameter.numel() for _, parameter in segmenter.trainable_parameters()) == 3_506_304
    assert sum(parameter.numel() for parameter in segmenter.sam.mask_decoder.parameters()) == 4_058_340


def test_frozen_sam_learns_nothing(sam, images):
    frozen = SamSegmenter(copy.deepcopy(sam), adapter="none")
    assert list(frozen.trainable_parameters()) == []
    assert frozen.trainable_state() == {}
    frozen.load_trainable_state({})
    assert not frozen(images).requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_adapter_and_training_helps(sam, images, kind):
    segmenter = adapted(sam, kind)
    before = {name: parameter.clone() for name, parameter in segmenter.named_parameters()}
    optimizer = torch.optim.AdamW([p for _, p in segmenter.trainable_parameters()], lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        value = loss(segmenter, images)
        value.backward()
        losses.append(float(value.detach()))
        for name, parameter in segmenter.trainable_parameters():
            # W_up (LoRA: B) is zero at the start, so the other matrices feel it from the second step on.
            if step > 0 or name.endswith(("up.weight", "up.bias", ".b")):
                assert parameter.grad.abs().max() > 0, name
        optimizer.step()
    assert losses[-1] < losses[0]
    learnt = dict(segmenter.trainable_parameters())
    for name, parameter in segmenter.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in learnt), name


@pytest.mark.parametrize("kind", KINDS)
def test_state_comes_back_to_the_bit(sam, images, kind):
    trained = adapted(sam, kind)
    with torch.no_grad():
        for _, parameter in trained.trainable_parameters():
            parameter.normal_(std=0.1)
    fresh = adapted(sam, kind)
    with torch.no_grad():
        assert not torch.equal(fresh(images), trained(images))
        fresh.load_trainable_state(trained.trainable_state())
        assert torch.equal(fresh(images), trained(images))


def test_state_is_strict_and_all_or_nothing(sam):
    segmenter = adapted(sam, "bottleneck")
    before = segmenter.trainable_state()
    good = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    name = "adapters.3.1.up.weight"
    missing = {key: value for key, value in good.items() if key != name}
    for bad in (
        missing,
        {**missing, "adapters.3.1.upp.weight": good[name]},
        {**good, name: good[name][:, :2]},
        {**good, name: good[name] * float("inf")},
    ):
        with pytest.raises(WeightsError, match=r"adapters\.3\.1\.up"):
            segmenter.load_trainable_state(bad)
    with pytest.raises(WeightsError):
        segmenter.load_trainable_state(adapted(sam, "lora").trainable_state())
    after = segmenter.trainable_state()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_freezing_later_does_not_change_what_is_saved(sam):
    segmenter = adapted(sam, "gated")
    names = set(segmenter.trainable_state())
    segmenter.requires_grad_(False)
    assert set(segmenter.trainable_state()) == names


def test_returned_state_is_a_copy(sam):
    segmenter = adapted(sam, "bottleneck")
    state = segmenter.trainable_state()
    with torch.no_grad():
        for _, parameter in segmenter.trainable_parameters():
            parameter.add_(1)
    assert all(not torch.equal(state[name], p) for name, p in segmenter.trainable_parameters())


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    seed_torch(11, "weights")
    path = tmp_path_factory.mktemp("weights") / "sam_vit_t.safetensors"
    save_file(build_sam("sam_vit_t").state_dict(), path)
    return path


def settings(**change) -> SegmentationModel:
    base = {"kind": "sam", "image_size": 64, "backbone": "sam_vit_t", "adapter": "bottleneck", "rank": 4}
    return SegmentationModel(**{**base, **change})


def test_registry_depends_on_the_seed_alone(weights):
    torch.manual_seed(1)
    one = build_segmenter(settings(), weights, 0).trainable_state()
    torch.manual_seed(2)
    same = build_segmenter(settings(), weights, 0).trainable_state()
    other = build_segmenter(settings(), weights, 1).trainable_state()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["adapters.0.0.down.weight"], other["adapters.0.0.down.weight"])


def test_registry_gives_the_adapters_asked_for(weights):
    for kind, change in KINDS.items():
        segmenter = build_segmenter(settings(**change), weights, 0)
        assert {name for name, _ in segmenter.trainable_parameters()} == expected_names(kind)
        assert not segmenter.training


def test_registry_passes_the_random_start_on(weights):
    state = build_segmenter(settings(adapter_init="random"), weights, 0).trainable_state()
    assert state["adapters.0.0.up.weight"].abs().max() > 0


def test_registry_never_takes_a_random_foundation_model():
    with pytest.raises(WeightsError, match="sam_vit_b"):
        build_segmenter(settings(backbone="sam_vit_b", image_size=1024), None, 0)
