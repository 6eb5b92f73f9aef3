"""The scaled-down U-Net and Deep-UNet: shapes, pinned sizes, training, strict state; Deep-UNet's parts by hand."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.deep_unet import ASPP, RATES, DualAttentionGate
from lesion_core.models.networks import build_network
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.prompts import Prompts
from lesion_core.seeding import seed_torch
from lesion_core.settings import SegmentationModel

PARAMETERS = {"unet": 490_321, "deep_unet": 314_804}


@pytest.fixture(params=PARAMETERS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def tiny(kind):
    return build_segmenter(SegmentationModel(kind=kind, image_size=64), None, 0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def test_shape_size_and_normalisation(kind, tiny, images):
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    scaled = (images / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.no_grad():
        logits = tiny(images)
        torch.testing.assert_close(logits, tiny.network(scaled), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[:1], tiny(images[:1]), rtol=1e-5, atol=1e-5)
    assert (logits.shape, logits.dtype) == ((2, 1, 64, 96), torch.float32)
    assert sum(parameter.numel() for parameter in tiny.parameters()) == PARAMETERS[kind]
    assert len(list(tiny.trainable_parameters())) == len(list(tiny.parameters()))


def test_training_learns_a_disc(tiny):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((x - 40) ** 2 + (y - 20) ** 2) < 144).float()[None, None]
    image = 200 - 120 * disc.expand(1, 3, -1, -1)
    before = {name: parameter.detach().clone() for name, parameter in tiny.trainable_parameters()}
    optimizer = torch.optim.AdamW([parameter for _, parameter in tiny.trainable_parameters()], lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(tiny(image), disc).backward()
        optimizer.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in tiny.trainable_parameters())
    found = (tiny(image) > 0).float()
    assert 2 * (found * disc).sum() / (found.sum() + disc.sum()) > 0.9


def test_state_is_strict_and_the_seed_decides_the_start(kind, tiny, images):
    model, state = SegmentationModel(kind=kind, image_size=64), tiny.trainable_state()
    assert set(state) == set(tiny.state_dict())
    same, other = (build_segmenter(model, None, seed) for seed in (0, 1))
    assert all(torch.equal(state[name], value) for name, value in same.trainable_state().items())
    assert not torch.equal(state["network.head.weight"], other.trainable_state()["network.head.weight"])
    other.load_trainable_state(state)
    with torch.no_grad():
        assert torch.equal(other(images), tiny(images))
    state.pop("network.head.bias")
    with pytest.raises(WeightsError, match=r"network\.head\.bias"):
        other.load_trainable_state(state)


def test_wrong_input_is_refused(tiny, images):
    with pytest.raises(ImageError, match="multiples of 16"):
        tiny(images[..., :40, :])
    with pytest.raises(ImageError, match="no prompts"):
        tiny(images, Prompts(boxes=torch.zeros(2, 4)))


def test_what_is_not_scaled_down_needs_an_encoder():
    with pytest.raises(SettingsError, match="segformer needs an encoder"):
        build_network("segformer", None)
    with pytest.raises(ValueError, match="segformer needs an encoder"):
        SegmentationModel(kind="segformer", image_size=64)


def test_the_gate_is_its_formula():
    """skip * sigmoid(channel weight) * sigmoid(place weight), both from skip and coarse features together."""
    seed_torch(1, "gate")
    gate = DualAttentionGate(16, 8)
    skip, coarse = torch.randn(2, 16, 5, 7), torch.randn(2, 8, 5, 7)
    together = gate.depthwise(torch.relu(gate.of_skip(skip) + gate.of_coarse(coarse)))
    by_channel = torch.sigmoid(together.mean((2, 3)) @ gate.channel.weight[:, :, 0, 0].T + gate.channel.bias)
    by_place = torch.sigmoid((together * gate.place.weight[0][None]).sum(1) + gate.place.bias)
    torch.testing.assert_close(gate(skip, coarse), skip * by_channel[:, :, None, None] * by_place[:, None])
    assert gate.depthwise[0].groups == gate.depthwise[0].in_channels, "depthwise"


def test_without_gates_skips_pass_as_they_are():
    def build(gates: bool):
        return build_segmenter(SegmentationModel(kind="deep_unet", image_size=64, attention_gates=gates), None, 0)

    gated, open_ = build(True), build(False)
    gone = {name for name, _ in gated.trainable_parameters()} - {name for name, _ in open_.trainable_parameters()}
    assert gone
    assert all(".gates." in name for name in gone)
    skip = torch.randn(1, 8, 4, 4)
    assert open_.network.gates[0](skip, skip) is skip


def test_aspp_sees_as_far_as_its_rates_and_the_whole_image():
    seed_torch(2, "aspp")
    aspp = ASPP(8, 16)
    assert [branch[0].dilation[0] for branch in aspp.branches] == [1, *RATES]
    x = torch.randn(1, 8, 17, 17, requires_grad=True)
    aspp.branches[-1][0](x)[0, 0, 8, 8].backward()
    touched = x.grad.abs().sum((0, 1)).nonzero()
    assert sorted({int(place[0]) for place in touched}) == [8 - RATES[-1], 8, 8 + RATES[-1]]
    assert aspp(x).shape == (1, 16, 17, 17)
