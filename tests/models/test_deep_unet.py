"""Deep-UNet's parts by hand."""

from __future__ import annotations

import torch

from lesion_core.models.deep_unet import ASPP, RATES, DualAttentionGate
from lesion_core.models.registry import build_segmenter
from lesion_core.seeding import seed_torch
from lesion_core.settings import SegmentationModel


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
