"""The dual network: metadata, query and value from the image and key from the lesion, ablations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.catalog.metadata import NO_AGE, MetadataVocabulary
from lesion_core.errors import WeightsError
from lesion_core.inference.classify import class_probabilities
from lesion_core.models.dual_network import DualNetwork, LesionAttention, MetadataEncoder
from lesion_core.models.registry import build_classifier
from lesion_core.seeding import seed_torch
from lesion_core.settings import ClassificationModel, Extraction

EXTRACTION = Extraction(threshold=0.5, closing=0, smoothing=0.0, largest_component=True, crop_margin=0.0, blend=0.7)
VOCABULARY = MetadataVocabulary(("female", "male"), ("back", "face"), 50.0, 10.0)
UNKNOWN = torch.tensor([[NO_AGE, 0.0, 0.0]])


def record(split: str = "train", **known: object) -> dict[str, object]:
    return {"image_id": "im", "split": split, "age": None, "sex": None, "site": None, **known}


def model_of(**changes: object) -> DualNetwork:
    base = {"kind": "dual", "backbone": "vit_t", "image_size": 32, "patch_size": 16, "input": "masked"}
    described = ClassificationModel(**{**base, "fusion": "cross_attention", "metadata": "binned", **changes})
    return build_classifier(described, EXTRACTION, seed=1, vocabulary=VOCABULARY).eval()


def sample(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    seed_torch(5)
    masks = torch.zeros(batch, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1.0
    return torch.rand(batch, 3, 32, 32) * 255, masks, torch.tensor([[35.0, 1.0, 2.0], [70.0, 2.0, 1.0]])[:batch]


def encoder(age: str) -> MetadataEncoder:
    seed_torch(3)
    return MetadataEncoder(VOCABULARY, age=age, width=16, heads=2, layers=1).eval()


def test_vocabulary_by_hand():
    found = MetadataVocabulary.fit(
        [record(age=40.0, sex="male", site="face"), record(age=60.0, site="back"), record(sex="female")]
    )
    assert found == MetadataVocabulary(("female", "male"), ("back", "face"), 50.0, 10.0)
    codes = found.encode([record(age=0.0, sex="female"), record(site="face"), record(age=31.5, site="foot")])
    assert codes.tolist() == [[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [31.5, 0.0, 0.0]]
    assert codes.dtype == np.float32


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_images_than_training_images_teach_nothing(split: str):
    with pytest.raises(ValueError, match="training images"):
        MetadataVocabulary.fit([record(age=40.0), record(split, age=80.0)])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "ü"]), st.none() | st.floats(0, 120)), max_size=6))
def test_a_vocabulary_survives_its_bytes(rows):
    found = MetadataVocabulary.fit([record(site=site, age=age) for site, age in rows])
    assert MetadataVocabulary.from_bytes(found.to_bytes()) == found


def test_a_broken_vocabulary_is_refused():
    with pytest.raises(WeightsError, match="vocabulary"):
        MetadataVocabulary.from_bytes(np.frombuffer(b'{"sexes": 3', np.uint8))


@pytest.mark.parametrize("age", ["binned", "continuous"])
def test_not_known_is_a_value_of_its_own(age: str):
    model = encoder(age)
    known = torch.tensor([[45.0, 1.0, 1.0]])
    outputs = [model(known)]
    for field in range(3):
        missing = known.clone()
        missing[0, field] = UNKNOWN[0, field]
        outputs.append(model(missing))
    for first in range(4):
        for second in range(first):
            assert not torch.allclose(outputs[first], outputs[second], atol=1e-4)
    # a newborn is no missing age
    assert not torch.allclose(model(torch.tensor([[0.0, 1.0, 1.0]])), outputs[1], atol=1e-4)


def test_ages_of_a_decade_share_a_token_and_only_continuous_ages_tell_years_apart():
    young, old, next_decade = (torch.tensor([[age, 1.0, 1.0]]) for age in (40.0, 49.0, 50.0))
    binned, continuous = encoder("binned"), encoder("continuous")
    assert torch.equal(binned(young), binned(old))
    assert not torch.allclose(binned(old), binned(next_decade), atol=1e-4)
    assert not torch.allclose(continuous(young), continuous(old), atol=1e-4)
    assert torch.isfinite(binned(torch.tensor([[120.0, 2.0, 2.0]]))).all()


def test_every_metadata_parameter_learns():
    for age in ("binned", "continuous"):
        model = encoder(age).train()
        rows = torch.tensor([[a, s, p] for a in (*range(5, 125, 10), -1.0) for s in range(3) for p in range(3)])
        (model(rows) * torch.linspace(-1, 1, 16)).pow(2).sum().backward()
        assert all(item.grad is not None and item.grad.abs().sum() > 0 for item in model.parameters())


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_query_and_value_come_from_the_image_and_the_key_from_the_lesion(heads: int):
    seed_torch(1)
    attention = LesionAttention(16, heads).eval()
    image, lesion = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    normal, normal_lesion = attention.norm_image(image), attention.norm_lesion(lesion)
    query, key, value = attention.query(normal), attention.key(normal_lesion), attention.value(normal)
    size = 16 // heads
    parts = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        weight = torch.softmax(query[..., own] @ key[..., own].transpose(1, 2) / math.sqrt(size), dim=-1)
        parts.append(weight @ value[..., own])
    expected = attention.project(torch.cat(parts, dim=-1))
    torch.testing.assert_close(attention(image, lesion), expected)


def test_ablations_take_away_exactly_their_part():
    images, masks, metadata = sample()
    other = torch.zeros_like(masks)
    other[:, :, :16] = 1.0
    whole, full = model_of(), model_of(input="full")
    assert whole.needs_masks
    assert whole.needs_metadata
    assert not torch.allclose(whole(images, masks, metadata), whole(images, other, metadata), atol=1e-5)
    assert not full.needs_masks
    assert torch.equal(full(images, masks, metadata), full(images, other, metadata))
    blind = model_of(metadata="none")
    assert not blind.needs_metadata
    assert torch.equal(blind(images, masks, metadata), blind(images, masks, metadata.flip(0)))
    assert not torch.allclose(whole(images, masks, metadata), whole(images, masks, metadata.flip(0)), atol=1e-5)
    without = model_of(fusion="none")
    assert without.attention is None
    assert not torch.allclose(without(images, masks, metadata), without(images, other, metadata), atol=1e-5)


def test_fusions_by_their_formulas():
    seed_torch(4)
    image, lesion = torch.randn(2, 4, 128), torch.randn(2, 4, 128)
    both = torch.cat([image, lesion], dim=-1)
    concat, gated = model_of(fusion="concat"), model_of(fusion="gated")
    torch.testing.assert_close(concat._joined(image, lesion), both @ concat.mix.weight.T + concat.mix.bias)
    gate = torch.sigmoid(both @ gated.mix.weight.T + gated.mix.bias)
    torch.testing.assert_close(gated._joined(image, lesion), gate * lesion + (1 - gate) * image)
    images, masks, metadata = sample()
    answers = [
        model_of(fusion=name)(images, masks, metadata) for name in ("none", "concat", "gated", "cross_attention")
    ]
    assert all(not torch.allclose(a, b, atol=1e-5) for i, a in enumerate(answers) for b in answers[:i])


def test_nothing_known_is_what_a_image_without_metadata_gets():
    images, masks, _ = sample()
    model = model_of()
    torch.testing.assert_close(model(images, masks), model(images, masks, UNKNOWN.expand(2, 3)))


def test_gradients_reach_every_parameter_and_the_mask():
    images, masks, metadata = sample()
    model = model_of(metadata="continuous").train()
    masks = (masks * 0.9).requires_grad_()
    metadata = torch.cat([metadata[:1], UNKNOWN])
    model(images, masks, metadata).square().sum().backward()
    silent = {name for name, item in model.named_parameters() if item.grad is None or not item.grad.abs().sum() > 0}
    # residual branches of the stem start at zero: their inner weights wait one step
    assert {name for name in silent if ".first." not in name and ".second.0." not in name} == set()
    assert masks.grad.abs().sum() > 0


def test_batches_hand_metadata_on():
    images, masks, metadata = sample()
    model = model_of()
    pixels = images.permute(0, 2, 3, 1).round().byte().numpy()
    soft = (masks[:, 0] * 255).byte().numpy()
    whole = class_probabilities(model, pixels, soft, metadata.numpy())
    halves = class_probabilities(model, pixels, soft, metadata.numpy(), batch_size=1)
    np.testing.assert_allclose(whole, halves, atol=1e-5)
    assert not np.allclose(whole, class_probabilities(model, pixels, soft), atol=1e-5)


def test_settings_refuse_what_cannot_stand_together():
    with pytest.raises(ValueError, match="metadata belongs to kind dual"):
        ClassificationModel(kind="fusion", backbone="vit_t", metadata="binned")


def test_parameter_counts_are_pinned():
    counts = {
        name: sum(item.numel() for item in model_of(**changes).parameters())
        for name, changes in {
            "proposed": {},
            "no cross-attention": {"fusion": "none"},
            "no metadata": {"metadata": "none"},
            "concat": {"fusion": "concat"},
            "gated": {"fusion": "gated"},
        }.items()
    }
    width = 128
    mix = 2 * width * width + width
    assert counts["gated"] - counts["proposed"] == counts["concat"] - counts["no cross-attention"] == mix
    attention = 4 * (width * width + width) + 4 * width
    layer = 4 * width * width + 4 * width + 4 * width + 2 * (2 * width * width) + 3 * width
    metadata = (13 + 3 + 3 + 3 + 1) * width + 2 * layer + 2 * width + width * width + width
    assert counts["proposed"] - counts["no cross-attention"] == attention
    assert counts["proposed"] - counts["no metadata"] == metadata
