"""Networks of segmentation-models-pytorch: sizes, state, and the smallest batch that each takes in training."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import SettingsError
from lesion_core.models.networks import build_network
from lesion_core.models.registry import build_segmenter
from lesion_core.settings import SegmentationModel

SIZES = {
    ("unet", "resnet18"): 14_328_209,
    ("unet", "resnet34"): 24_436_369,
    ("unet_plus_plus", "resnet34"): 26_078_609,
    ("deeplabv3_plus", "resnet50"): 26_677_585,
    ("segformer", "mit_b2"): 24_722_369,
    ("deep_unet", "efficientnet-b3"): 20_530_661,
    ("unet_plus_plus", "tu-mobilenetv3_small_050"): 2_277_489,
    ("deeplabv3_plus", "tu-mobilenetv3_small_050"): 1_129_617,
    ("segformer", "mit_b0"): 3_714_401,
}


@pytest.mark.parametrize(("kind", "encoder"), SIZES)
def test_size_and_shape(kind, encoder):
    model = build_network(kind, encoder)
    assert sum(item.numel() for _, item in model.trainable_parameters()) == SIZES[kind, encoder]
    assert len(list(model.trainable_parameters())) == len(list(model.parameters()))
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 96) * 255).shape == (1, 1, 64, 96)


@pytest.mark.parametrize(("kind", "encoder"), [key for key, count in SIZES.items() if count < 4_000_000])
def test_a_step_moves_what_the_loss_feels_and_its_state_comes_back(kind, encoder):
    model = build_network(kind, encoder).train()
    model(torch.rand(2, 3, 64, 64) * 255).square().mean().backward()
    assert all(item.grad is not None and item.grad.isfinite().all() for _, item in model.trainable_parameters())
    with torch.no_grad():
        for _, item in model.trainable_parameters():
            item.sub_(0.1 * item.grad)
    again = build_network(kind, encoder)
    again.load_trainable_state(model.trainable_state())
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("kind", "encoder", "size"),
    [
        ("deeplabv3_plus", "resnet18", 64),
        *((kind, "resnet18", size) for kind in ("unet", "unet_plus_plus", "deep_unet") for size in (32, 64)),
        ("segformer", "mit_b0", 32),
        ("deep_unet", None, 32),
        ("unet", None, 32),
    ],
)
def test_the_smallest_batch_is_the_one_declared(kind, encoder, size):
    settings = SegmentationModel(kind=kind, encoder=encoder, image_size=size)
    model = build_segmenter(settings, None, 0).train()
    assert model.smallest_batch == settings.smallest_batch
    assert model(torch.rand(2, 3, size, size) * 255).shape[0] == 2
    if model.smallest_batch == 2:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.rand(1, 3, size, size) * 255)
    else:
        model(torch.rand(1, 3, size, size) * 255)


def test_an_unknown_encoder_is_told():
    with pytest.raises(SettingsError, match="does not know this encoder"):
        build_network("unet", "resnet-none")
