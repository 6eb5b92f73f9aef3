"""Pixels as a SAM's weights expect them: SAM's rule is segment_anything's to the bit, MedSAM's is its published one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.network import VARIANTS, build_sam, normalisation_of, normalise
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import to_input
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import load as config
from lesion_core.training.checkpoint import write_safetensors

SIZE = 64
# SAM by its paper's code; sam_vit_t was pretrained under SAM's rule; MedSAM by its published inference.
RULES = dict.fromkeys(("sam_vit_t", "sam_vit_b", "sam_vit_l", "sam_vit_h"), "mean_std") | {"medsam": "min_max"}


def published(image: np.ndarray) -> np.ndarray:
    """MedSAM's rule for uint8 (S, S, 3): in float64, as NumPy computes it, then the float32 that its encoder gets."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) / np.clip(high - low, 1e-8, None)).astype(np.float32)


def expected(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([published(image) for image in images])).permute(0, 3, 1, 2)


def drawn(low: int = 0, high: int = 256) -> np.ndarray:
    return generator("test_sam_input", low, high).integers(low, high, (SIZE, SIZE, 3)).astype(np.uint8)


def speck() -> np.ndarray:
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    image[5, 9, 1] = 199
    return image


IMAGES = {
    "any": drawn(),
    "pale": drawn(180, 221),
    "a value apart": speck(),
    "channels of other ranges": np.concatenate(
        [drawn(*span)[..., :1] for span in ((150, 240), (90, 130), (3, 40))], axis=2
    ),
    "black": np.zeros((SIZE, SIZE, 3), np.uint8),
    "white": np.full((SIZE, SIZE, 3), 255, np.uint8),
    "one grey": np.full((SIZE, SIZE, 3), 137, np.uint8),
}
CONSTANT = ("black", "white", "one grey")


@pytest.fixture
def medsam_twin(monkeypatch) -> None:
    """MedSAM with the sizes of the tiny SAM."""
    rule = VARIANTS["medsam"].normalisation
    monkeypatch.setitem(VARIANTS, "medsam", replace(VARIANTS["sam_vit_t"], normalisation=rule))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    seed_torch(11, "test_sam_input")
    path = tmp_path_factory.mktemp("weights") / "foundation.safetensors"
    write_safetensors(path, dict(build_sam("sam_vit_t").state_dict()))
    return path


@pytest.fixture
def medsam(medsam_twin, weights) -> torch.nn.Module:
    return build_sam("medsam", image_size=SIZE, weights=weights)


@pytest.fixture
def sam(weights) -> torch.nn.Module:
    return build_sam("sam_vit_t", image_size=SIZE, weights=weights)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_rule_that_its_weights_were_trained_under(name):
    with torch.device("meta"):
        model = build_sam(name)
    assert model.normalisation == RULES[name]
    assert copy.deepcopy(model).normalisation == RULES[name]


@pytest.mark.parametrize("kind", IMAGES)
def test_medsam_is_given_what_its_published_code_gives_it(medsam, kind):
    images = IMAGES[kind][None]
    found = normalise(medsam, to_input(images, "cpu"))
    assert found.dtype == torch.float32
    assert_close(found, expected(images))
    assert (float(found.min()), float(found.max())) == (0.0, 0.0 if kind in CONSTANT else 1.0)


def test_each_image_of_a_batch_has_a_range_of_its_own(medsam):
    images = np.stack(list(IMAGES.values()))
    assert_close(normalise(medsam, to_input(images, "cpu")), expected(images))


@given(arrays(np.uint8, (1, 4, 4, 3), elements=st.integers(0, 200)), st.integers(0, 55))
def test_a_brighter_exposure_changes_nothing_for_medsam(image, more):
    sam = torch.nn.Module()
    sam.normalisation = "min_max"
    found = normalise(sam, to_input(image, "cpu"))
    assert_close(found, expected(image))
    assert torch.equal(found, normalise(sam, to_input(image + np.uint8(more), "cpu")))


def test_sams_own_rule_is_segment_anythings(sam):
    # Contiguous, as what they are compared with: the convolution sums pixels of another layout in another order.
    images = to_input(np.stack(list(IMAGES.values())), "cpu").contiguous()
    given = torch.stack([sam.preprocess(image) for image in images])
    assert_close(normalise(sam, images), given)
    segmenter = SamSegmenter(copy.deepcopy(sam), adapter="none")
    with torch.no_grad():
        assert_close(segmenter.encode(images), sam.image_encoder(given), rtol=1e-4, atol=1e-4)


def test_half_precision_normalises_in_full(medsam, sam):
    images = to_input(IMAGES["pale"][None], "cpu")
    for model in (medsam, sam):
        exact = normalise(model, images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(normalise(model, images), exact)


def test_the_description_tells_the_rules_apart(medsam, sam):
    assert normalisation_of(medsam) == {"rule": "min_max", "least_range": 1e-8}
    found = normalisation_of(sam)
    assert found["rule"] == "mean_std"
    assert found["mean"] == pytest.approx([123.675, 116.28, 103.53], rel=1e-6)
    assert found["std"] == pytest.approx([58.395, 57.12, 57.375], rel=1e-6)


def test_every_method_on_medsam_takes_its_rule_and_no_other_does(medsam_twin, weights):
    """The paper profile's own settings, through the registry, with tiny weights: what the patch embedding is given."""
    runs = {
        run.method: run.spec.model
        for run in config.expand(config.load("paper")).values()
        if run.spec.task == "segmentation"
    }
    on_medsam = {name for name, model in runs.items() if model.backbone == "medsam"}
    assert {"medsam_zero_shot", "peft_medsam"} <= on_medsam
    assert {runs[name].adapter for name in on_medsam} == {"none", "decoder"}
    images = np.stack([IMAGES["pale"], IMAGES["any"]])
    for name in sorted({*on_medsam, "sam_frozen"}):
        backbone = "medsam" if name in on_medsam else "sam_vit_t"
        model = runs[name].model_copy(update={"image_size": SIZE, "backbone": backbone})
        segmenter, seen = build_segmenter(model, weights, 0), []
        segmenter.sam.image_encoder.patch_embed.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(*given)
        )
        with torch.no_grad():
            segmenter(to_input(images, "cpu"))
        assert len(seen) == 1
        assert all(torch.allclose(one, expected(images), atol=1e-5) == (name in on_medsam) for one in seen), name
