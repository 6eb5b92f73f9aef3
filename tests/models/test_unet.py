"""U-Nets: shapes, pinned size, one-step training, strict state, and the lazy import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.networks import build_network
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.prompts import Prompts
from lesion_core.seeding import seed_torch
from lesion_core.settings import SegmentationModel

TINY_PARAMETERS = 490_321


@pytest.fixture
def tiny():
    seed_torch(0, "unet")
    return build_network("unet", None)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def test_tiny_twin_shape_and_size(tiny, images):
    with torch.no_grad():
        logits = tiny(images)
    assert logits.shape == (2, 1, 64, 96)
    assert logits.dtype == torch.float32
    assert sum(parameter.numel() for parameter in tiny.parameters()) == TINY_PARAMETERS
    assert len(list(tiny.trainable_parameters())) == len(list(tiny.parameters()))


def test_batch_equals_image_by_image(tiny, images):
    with torch.no_grad():
        alone = torch.cat([tiny(image[None]) for image in images])
        torch.testing.assert_close(tiny(images), alone, rtol=1e-5, atol=1e-5)


def test_normalisation_is_inside(tiny, images):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(tiny(images), tiny.network((images / 255 - mean) / std), rtol=1e-4, atol=1e-4)


def test_training_learns_a_disc(tiny):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((x - 40) ** 2 + (y - 20) ** 2) < 144).float()[None, None]
    image = 200 - 120 * disc.expand(1, 3, -1, -1)
    optimizer = torch.optim.AdamW([p for _, p in tiny.trainable_parameters()], lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(tiny(image), disc)
        value.backward()
        optimizer.step()
    found = (tiny(image) > 0).float()
    assert 2 * (found * disc).sum() / (found.sum() + disc.sum()) > 0.9


def test_state_is_strict(tiny, images):
    state = tiny.trainable_state()
    assert set(state) == set(tiny.state_dict())
    other = build_network("unet", None)
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
    with pytest.raises(SettingsError, match="encoder"):
        build_network("segformer", None)


def test_registry_builds_the_tiny_twin_by_seed():
    model = SegmentationModel(kind="unet", image_size=64)
    one, same, other = (build_segmenter(model, None, seed).trainable_state() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["network.head.weight"], other["network.head.weight"])


SMP = """
import warnings; warnings.simplefilter("error")
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from lesion_core.errors import SettingsError, WeightsError
from lesion_core.models.networks import build_network
from lesion_core.models.registry import build_segmenter
from lesion_core.settings import SegmentationModel

def refused(error, *arguments, **keywords):
    try:
        build_network("unet", *arguments, **keywords)
    except error as caught:
        return caught
    raise AssertionError(arguments)

torch.set_num_threads(1)
unet = build_network("unet", "resnet18")
count = sum(p.numel() for p in unet.parameters())
assert count == 14_328_209, count
assert unet(torch.rand(1, 3, 64, 64) * 255).shape == (1, 1, 64, 64)
kept = unet.trainable_state()
assert set(kept) == set(unet.state_dict()) and "network.encoder.bn1.running_mean" in kept
path = Path(sys.argv[1])
state = unet.network.encoder.state_dict()
save_file({name: tensor.fill_(0.25) if tensor.is_floating_point() else tensor for name, tensor in state.items()}, path)
other = build_network("unet", "resnet18", path).network.encoder.state_dict()
assert all((tensor == 0.25).all() for tensor in other.values() if tensor.is_floating_point())
assert "resnet34" in str(refused(WeightsError, "resnet34", path))
for kind, encoder, parameters in (
    ("unet", "resnet34", 24_436_369),
    ("unet_plus_plus", "resnet34", 26_078_609),
    ("deeplabv3_plus", "resnet50", 26_677_585),
    ("segformer", "mit_b2", 24_722_369),
    ("deep_unet", "efficientnet-b3", 20_530_661),
    ("unet_plus_plus", "tu-mobilenetv3_small_050", 2_277_489),
    ("deeplabv3_plus", "tu-mobilenetv3_small_050", 1_129_617),
    ("segformer", "mit_b0", 3_714_401),
):
    model = build_network(kind, encoder)
    count = sum(p.numel() for _, p in model.trainable_parameters())
    assert count == parameters, (kind, encoder, count)
    assert len(list(model.trainable_parameters())) == len(list(model.parameters()))
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 96) * 255).shape == (1, 1, 64, 96)
    if parameters < 4_000_000:  # one step moves every tensor that the loss can feel
        before = {name: p.detach().clone() for name, p in model.trainable_parameters()}
        model.train()
        model(torch.rand(2, 3, 64, 64) * 255).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for _, p in model.trainable_parameters()), kind
        with torch.no_grad():
            [p.sub_(0.1 * p.grad) for _, p in model.trainable_parameters()]
        assert any(not torch.equal(before[name], p) for name, p in model.trainable_parameters())
        state = model.trainable_state()
        again = build_network(kind, encoder)
        again.load_trainable_state(state)
        again.eval(), model.eval()
        x = torch.rand(1, 3, 64, 64) * 255
        with torch.no_grad():
            assert torch.equal(again(x), model(x)), kind
for kind, encoder, size in (
    ("deeplabv3_plus", "resnet18", 64),
    ("unet", "resnet18", 32),
    ("unet", "resnet18", 64),
    ("unet_plus_plus", "resnet18", 32),
    ("unet_plus_plus", "resnet18", 64),
    ("deep_unet", "resnet18", 32),
    ("deep_unet", "resnet18", 64),
    ("segformer", "mit_b0", 32),
    ("deep_unet", None, 32),
    ("unet", None, 32),
):
    settings = SegmentationModel(kind=kind, encoder=encoder, image_size=size)
    model = build_segmenter(settings, None, 0).train()
    assert model.smallest_batch == settings.smallest_batch
    for samples in (1, 2):
        try:
            model(torch.rand(samples, 3, size, size) * 255)
            assert samples >= model.smallest_batch, ("declared 2, takes 1", kind, size)
        except ValueError as error:
            assert "more than 1 value per channel" in str(error), error
            assert samples < model.smallest_batch, ("declared 1, takes 2", kind, size)
refused(SettingsError, "resnet-none")
print("fine")
"""


def test_smp_unet_is_strict(tmp_path):
    """In a process of its own: this import would make every later start-up test meaningless."""
    command = [sys.executable, "-c", SMP, str(tmp_path / "encoder.safetensors")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=offline)
    assert done.stdout.strip() == "fine", done.stderr
