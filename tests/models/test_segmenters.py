"""What every segmenter promises, whatever its network: pinned sizes, logits, strict state, inputs that it refuses."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.networks import build_network
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import Segmenter
from lesion_core.settings import SegmentationModel

# kind, what else is set -> parameters, at the image size of the paper's method
FULL = [
    ("unet", {"encoder": "resnet18"}, 14_328_209),
    ("unet", {"encoder": "resnet34"}, 24_436_369),
    ("unet_plus_plus", {"encoder": "resnet34"}, 26_078_609),
    ("deeplabv3_plus", {"encoder": "resnet50"}, 26_677_585),
    ("segformer", {"encoder": "mit_b2"}, 24_722_369),
    ("deep_unet", {"encoder": "efficientnet-b3"}, 20_530_661),
    ("attention_unet", {}, 31_740_337),
    ("res_unet", {"image_size": 512}, 25_971_932),
    ("unetr", {"image_size": 512}, 88_317_169),
    ("swin_unetr", {"image_size": 512}, 25_139_275),
    ("segmae", {"encoder": "vit_b_16"}, 119_121_265),
    ("segmae", {"encoder": "vit_b_16", "mae_decoder": False}, 93_012_593),
    ("segmae", {"encoder": "vit_b_16", "stem": False, "mae_decoder": False}, 90_895_537),
    # 105 million in print; one class in place of the nine of the paper's main table
    ("trans_unet", {"encoder": "r50_vit_b_16"}, 105_277_457),
]
# Small enough to run, and their parameters where they are pinned.
SMALL = {
    "unet": ({}, 490_321),
    "deep_unet": ({}, 314_804),
    "unet_plus_plus": ({"encoder": "tu-mobilenetv3_small_050"}, 2_277_489),
    "deeplabv3_plus": ({"encoder": "tu-mobilenetv3_small_050"}, 1_129_617),
    "segformer": ({"encoder": "mit_b0"}, 3_714_401),
    "attention_unet": ({"width": 2}, None),
    "res_unet": ({"width": 2}, None),
    "unetr": ({"width": 4}, None),
    "swin_unetr": ({"width": 12}, None),
    "segmae": ({}, 149_537),
    "trans_unet": ({}, None),
}
OF_ONE_SIZE = ("unetr", "segmae", "trans_unet")
# Of its parameters some feel no loss: a bias in front of a norm, a last norm that nothing reads, another branch.
PARTLY = ("attention_unet", "res_unet", "unetr", "swin_unetr", "segmae")


def small(kind: str, size: int = 64, **change) -> SegmentationModel:
    return SegmentationModel(kind=kind, image_size=size, **SMALL[kind][0] | change)


def images_of(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture(params=SMALL)
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind) -> Segmenter:
    return build_segmenter(small(kind), None, 0)


@pytest.mark.parametrize(("kind", "change", "count"), FULL)
def test_size_at_full_width(kind, change, count):
    place = "cpu" if kind in ("segformer", "swin_unetr") else "meta"  # these ask for numbers while they are built
    with torch.device(place):
        model = build_segmenter(SegmentationModel(kind=kind, **{"image_size": 224} | change), None, 0)
    assert sum(item.numel() for item in model.parameters()) == count


def test_logits_of_an_image_whatever_its_batch(kind, model):
    images = images_of(2, 3, 64, 64 if kind in OF_ONE_SIZE else 96)
    scaled = (images / 255 - torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(-1, 1, 1)
    with torch.inference_mode():
        logits = model(images)
        torch.testing.assert_close(logits[:1], model(images[:1]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.normalised(images, None), scaled, rtol=1e-4, atol=1e-4)
    assert (logits.shape, logits.dtype) == ((2, 1, *images.shape[2:]), torch.float32)
    expected = SMALL[kind][1]
    assert expected in (None, sum(item.numel() for item in model.parameters()))
    assert len(list(model.trainable_parameters())) == len(list(model.parameters()))


def test_the_seed_decides_the_start_and_state_is_strict(kind, model):
    images, state = images_of(1, 3, 64, 64), model.trainable_state()
    same, other = (build_segmenter(small(kind), None, seed) for seed in (0, 1))
    with torch.inference_mode():
        logits = model(images)
        assert torch.equal(logits, same(images))
        assert not torch.equal(logits, other(images))
        other.load_trainable_state(state)
        assert torch.equal(logits, other(images))
    lost = sorted(state)[0]
    del state[lost]
    with pytest.raises(WeightsError, match=lost.replace(".", r"\.")):
        other.load_trainable_state(state)


def test_a_step_moves_what_the_loss_feels_and_its_state_comes_back(kind, model):
    images = images_of(2, 3, 64, 64)
    model.train()(images).square().mean().backward()
    felt = [item for _, item in model.trainable_parameters() if item.grad is not None]
    assert all(item.grad.isfinite().all() for item in felt)
    assert kind in PARTLY or len(felt) == len(list(model.trainable_parameters()))
    with torch.no_grad():
        for item in felt:
            item.sub_(0.1 * item.grad)
    again = build_segmenter(small(kind), None, 0)
    again.load_trainable_state(model.trainable_state())
    with torch.inference_mode():
        assert torch.equal(again(images), model.eval()(images))


@pytest.mark.parametrize(
    ("kind", "encoder", "size"),
    [
        ("deeplabv3_plus", "resnet18", 64),
        *((kind, "resnet18", size) for kind in ("unet", "unet_plus_plus", "deep_unet") for size in (32, 64)),
        ("segformer", "mit_b0", 32),
        *((kind, None, 32) for kind in ("deep_unet", "unet", "attention_unet", "res_unet", "unetr")),
        ("swin_unetr", None, 64),
    ],
)
def test_the_smallest_batch_is_the_one_declared(kind, encoder, size):
    settings = small(kind, size, **{"encoder": encoder} if encoder else {})
    model = build_segmenter(settings, None, 0).train()
    assert model.smallest_batch == settings.smallest_batch
    assert model(images_of(2, 3, size, size)).shape[0] == 2
    if model.smallest_batch == 2:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(images_of(1, 3, size, size))
    else:
        assert model(images_of(1, 3, size, size)).isfinite().all()


def test_inputs_that_it_does_not_take_are_refused(kind, model):
    with pytest.raises(ImageError, match="no prompts"):
        model(images_of(2, 3, 64, 64), Prompts(boxes=torch.zeros(2, 4)))
    with pytest.raises(ImageError, match="multiples of"):
        model(images_of(2, 3, 40, 96))
    if kind in OF_ONE_SIZE:
        with pytest.raises(ImageError, match="64"):
            model(images_of(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "swin_unetr", "image_size": 80}, "multiple of 32, the total stride of swin_unetr"),
        ({"kind": "swin_unetr", "image_size": 32}, "at least 64"),
        ({"kind": "attention_unet", "image_size": 72}, "multiple of 16"),
        ({"kind": "swin_unetr", "width": 16}, "width must be a multiple of 12"),
        ({"kind": "unet", "width": 16}, "kind unet does not use width"),
        ({"kind": "segformer"}, "segformer needs an encoder"),
        ({"kind": "trans_unet", "encoder": "resnet34"}, "the encoder of kind trans_unet is r50_vit_b_16"),
    ],
)
def test_impossible_settings_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        SegmentationModel(**{"image_size": 64} | settings)


def test_an_encoder_must_be_known_and_there():
    with pytest.raises(SettingsError, match="does not know this encoder"):
        build_network("unet", "resnet-none")
    with pytest.raises(SettingsError, match="segformer needs an encoder"):
        build_network("segformer", None)


def test_training_learns_a_disc():
    model = build_segmenter(small("unet"), None, 0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((x - 40) ** 2 + (y - 20) ** 2) < 144).float()[None, None]
    image = 200 - 120 * disc.expand(1, 3, -1, -1)
    optimizer = torch.optim.AdamW([parameter for _, parameter in model.trainable_parameters()], lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(image), disc).backward()
        optimizer.step()
    found = (model(image) > 0).float()
    assert 2 * (found * disc).sum() / (found.sum() + disc.sum()) > 0.9
