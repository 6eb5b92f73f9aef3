"""MONAI's networks in 2D: pinned sizes, the images that they take, strict state."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import ImageError, WeightsError
from lesion_core.models.registry import build_segmenter
from lesion_core.settings import SegmentationModel

# kind -> (image size of the paper's method, parameters at full width, a small width)
EXPECTED = {
    "attention_unet": (224, 31_740_337, 2),
    "res_unet": (512, 25_971_932, 2),
    "unetr": (512, 88_317_169, 4),
    "swin_unetr": (512, 25_139_275, 12),
}


def small(kind: str, size: int = 64) -> SegmentationModel:
    return SegmentationModel(kind=kind, image_size=size, width=EXPECTED[kind][2])


@pytest.mark.parametrize("kind", EXPECTED)
def test_size_at_full_width(kind: str):
    size, count, _ = EXPECTED[kind]
    model = build_segmenter(SegmentationModel(kind=kind, image_size=size), None, 0)
    assert sum(item.numel() for item in model.parameters()) == count


@pytest.mark.parametrize("kind", EXPECTED)
def test_logits_seed_and_strict_state(kind: str):
    one, same, other = (build_segmenter(small(kind), None, seed) for seed in (0, 0, 1))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        logits = one(images)
        assert torch.equal(logits, same(images))
        assert not torch.equal(logits, other(images))
        alone = torch.cat([one(image[None]) for image in images])
    assert (logits.shape, logits.dtype) == ((2, 1, 64, 64), torch.float32)
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)
    state = one.trainable_state()
    lost = sorted(state)[0]
    del state[lost]
    with pytest.raises(WeightsError, match=lost.replace(".", r"\.")):
        other.load_trainable_state(state)


@pytest.mark.parametrize("kind", EXPECTED)
def test_one_sample_is_a_batch_at_the_smallest_size(kind: str):
    size = 64 if kind == "swin_unetr" else 32
    model = build_segmenter(small(kind, size), None, 0).train()
    assert model.smallest_batch == small(kind, size).smallest_batch == 1
    assert model(torch.rand(1, 3, size, size) * 255).isfinite().all()


def test_images_that_they_do_not_take_are_refused():
    with pytest.raises(ValueError, match="multiple of 32, the total stride of swin_unetr"):
        small("swin_unetr", 80)
    with pytest.raises(ValueError, match="at least 64"):
        small("swin_unetr", 32)
    with pytest.raises(ValueError, match="multiple of 16"):
        small("attention_unet", 72)
    with pytest.raises(ValueError, match="width must be a multiple of 12"):
        SegmentationModel(kind="swin_unetr", image_size=64, width=16)
    with pytest.raises(ValueError, match="kind unet does not use width"):
        SegmentationModel(kind="unet", image_size=64, width=16)
    with pytest.raises(ImageError, match="64 x 64"):
        build_segmenter(small("unetr"), None, 0)(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ImageError, match="multiples of 32"):
        build_segmenter(small("swin_unetr"), None, 0)(torch.zeros(1, 3, 80, 80))
