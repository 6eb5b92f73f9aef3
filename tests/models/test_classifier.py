"""The lesion classifier: what it sees of an image, what flows through the mask, what its weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesion_core.errors import MaskError, SettingsError, WeightsError
from lesion_core.inference.classify import class_probabilities
from lesion_core.models.backbones import ColourStatistics, TinyViT, TransformerLayer, build_encoder
from lesion_core.models.classical import BINS, ColourHistogram, Majority, colour_histogram, load_classical
from lesion_core.models.classifier import crop, lesion_box, prepare_input
from lesion_core.models.registry import build_classifier
from lesion_core.pixels.resize import resize_masks
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import ClassificationModel, Extraction

EXTRACTION = Extraction(threshold=0.5, closing=0, smoothing=0.0, largest_component=True, crop_margin=0.0, blend=0.7)
SIZE = 32
PINNED_NONE = 1_025_047


def model_of(**changes: object) -> ClassificationModel:
    base = {"kind": "fusion", "backbone": "vit_t", "image_size": SIZE, "patch_size": 16}
    return ClassificationModel(**{**base, **changes})


def sample(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    seed_torch(5)
    images = torch.rand(batch, 3, SIZE, SIZE) * 255
    masks = torch.rand(batch, 1, SIZE, SIZE) * 0.4
    masks[:, :, 8:24, 8:24] += 0.5
    return images, masks


def prepare(kind: str, images: torch.Tensor, masks: torch.Tensor, blend: float = 0.7, margin: float = 0.0):
    return prepare_input(images, masks, kind, blend=blend, margin=margin)


def test_masked_and_blend_by_hand():
    image, mask = torch.full((1, 3, 2, 2), 100.0), torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    masked, _ = prepare("masked", image, mask)
    assert masked[0, 1].tolist() == [[0.0, 100.0], [50.0, 25.0]]
    blend, _ = prepare("blend", image, mask)  # 100 * (0.7 m + 0.3)
    torch.testing.assert_close(blend[0, 2], torch.tensor([[30.0, 100.0], [65.0, 47.5]]))
    torch.testing.assert_close(blend, 0.7 * masked + 0.3 * image)
    same, _ = prepare("full", image, mask)
    assert same is image


def test_lesion_box_is_square_inside_the_image_and_follows_x_and_y():
    mask = torch.zeros(4, 1, 16, 16)
    mask[0, 0, 2:6, 8:14] = 1  # rows 2..5, columns 8..13: centre x 11, y 4, longer side 6
    mask[1, 0, 0:2, 0:2] = 1  # a corner: with a margin the box is shifted inside
    mask[3] = 1
    assert lesion_box(mask, 0.0).tolist() == [[11, 4, 6], [1, 1, 2], [8, 8, 16], [8, 8, 16]]
    assert lesion_box(mask, 0.5)[:2].tolist() == [[10, 6, 12], [2, 2, 4]]


def test_crop_of_whole_pixels_enlarges_exactly():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    boxes = torch.tensor([[4.0, 4.0, 8.0]])
    torch.testing.assert_close(crop(image, boxes), image)
    cut = crop(image, torch.tensor([[6.0, 2.0, 4.0]]))  # columns 4..7, rows 0..3
    expected = torch.nn.functional.interpolate(image[:, :, :4, 4:], size=(8, 8), mode="bilinear")
    torch.testing.assert_close(cut[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


def test_crop_input_shows_the_lesion_and_its_mask():
    image = torch.zeros(1, 3, SIZE, SIZE)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    image[:, :, 4:12, 20:28], mask[:, :, 4:12, 20:28] = 200.0, 1.0
    cut, cut_mask = prepare("crop", image, mask)
    assert cut[:, :, 3:-3, 3:-3].min() == 200.0
    assert cut_mask[:, :, 3:-3, 3:-3].min() == 1.0


@pytest.mark.parametrize("fusion", ["none", "concat", "cross_attention", "gated"])
def test_logits_gradients_and_strict_weights(fusion: str):
    settings = model_of(fusion=fusion, input="blend")
    model = build_classifier(settings, EXTRACTION, seed=1).train()
    images, masks = sample()
    masks.requires_grad_()
    logits = model(images, masks)
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    logits[:, 0].sum().backward()
    assert masks.grad.abs().sum() > 0
    assert model.learns_masks
    assert model.needs_masks
    twin = build_classifier(settings, EXTRACTION, seed=2)
    twin.load_trainable_state(model.trainable_state())
    model.eval(), twin.eval()
    with torch.no_grad():
        assert torch.equal(model(images, masks), twin(images, masks))
    state = model.trainable_state()
    state["head.renamed"] = state.pop("head.weight")
    with pytest.raises(WeightsError, match=r"head\.weight"):
        twin.load_trainable_state(state)


def test_one_step_lowers_the_loss_and_moves_every_parameter():
    model = build_classifier(model_of(fusion="gated", input="crop"), EXTRACTION, seed=1).train()
    images, masks = sample(8)
    labels = torch.arange(8) % 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(images, masks), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still in ([], ["fusion.attention.key.bias"])


def test_seed_decides_the_start():
    first, again, other = (build_classifier(model_of(), EXTRACTION, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_without_fusion_the_mask_does_not_matter():
    model = build_classifier(model_of(), EXTRACTION, seed=1).eval()
    images, masks = sample()
    assert not model.needs_masks
    with torch.no_grad():
        assert torch.equal(model(images, masks), model(images, 1 - masks))


def test_parameter_counts_are_pinned():
    counts = {
        kind: sum(p.numel() for p in build_classifier(model_of(fusion=kind), EXTRACTION, seed=0).parameters())
        for kind in ("none", "cross_attention")
    }
    # W_m 256 * 128, positions 4 * 128, shape token 128, norm 256, query, key, value and projection 4 * (128^2 + 128)
    assert counts["cross_attention"] - counts["none"] == 256 * 128 + 4 * 128 + 128 + 256 + 4 * (128**2 + 128)
    assert counts["none"] == PINNED_NONE


@pytest.mark.parametrize(("size", "patch"), [(32, 8), (32, 16), (32, 32), (48, 16)])
def test_tiny_vit_tokens_are_aligned_with_the_patches(size: int, patch: int):
    encoder = build_encoder("vit_t", size, patch)
    assert encoder.grid * encoder.stride == size
    tokens = encoder(torch.zeros(2, 3, size, size))
    assert tokens.shape == (2, 1 + (size // patch) ** 2, encoder.width)


def test_unsuitable_backbones_are_refused_by_name():
    with pytest.raises(SettingsError, match="resnet"):
        build_encoder("resnet", 32, 16)
    with pytest.raises(SettingsError, match="12 px"):
        TinyViT(36, 12)
    with pytest.raises(SettingsError, match="efficientnet_b4"):
        build_encoder("efficientnet_b4", 64, 16)


def test_reader_starts_as_the_identity():
    seed_torch(0)
    tokens = torch.randn(2, 5, 8)
    assert torch.equal(TransformerLayer(8, 2).start_as_identity()(tokens), tokens)


def test_colour_statistics_sum_to_one_per_channel():
    levels = 5
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0], images[:, 1], images[:, 2] = -9.0, 0.0, 0.625
    found = ColourStatistics(levels)(images).square().view(3, levels) - 1e-4
    expected = [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0.5, 0.5, 0]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_class_probabilities_in_batches_equal_those_at_once_and_resize_masks():
    model = build_classifier(model_of(fusion="cross_attention"), EXTRACTION, seed=1).eval()
    rng = generator("classifier test")
    images = rng.integers(256, size=(5, SIZE, SIZE, 3), dtype=np.uint8)
    masks = rng.integers(256, size=(5, 64, 64), dtype=np.uint8)
    whole = class_probabilities(model, images, masks)
    assert whole.shape == (5, 7)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(class_probabilities(model, images, masks, batch_size=2), whole, atol=1e-6)
    small = resize_masks(masks, SIZE)
    np.testing.assert_allclose(class_probabilities(model, images, small), whole, atol=1e-6)
    assert class_probabilities(model, images[:0], masks[:0]).shape == (0, 7)
    with pytest.raises(MaskError, match="5 images"):
        class_probabilities(model, images, masks[:4])


def test_colour_histogram_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 0, 0)  # hue 0, saturation 255, value 255; the other three are black: 0, 0, 0
    squares = colour_histogram(image).reshape(3, BINS) ** 2
    np.testing.assert_allclose(squares[0, 0], 1.0)
    np.testing.assert_allclose(squares[1:, 0], 0.75)
    np.testing.assert_allclose(squares[1:, -1], 0.25, rtol=1e-6)
    mask = np.array([[255, 0], [0, 0]], np.uint8)
    np.testing.assert_allclose(colour_histogram(image, mask).reshape(3, BINS)[1, -1], 1.0)
    np.testing.assert_array_equal(colour_histogram(image, np.zeros((2, 2), np.uint8)), colour_histogram(image))


def test_colour_histogram_model_separates_colours_and_agrees_with_sklearn():
    from sklearn.linear_model import LogisticRegression

    rng = generator("histogram test")
    labels = np.arange(140) % 7
    colours = rng.integers(40, 216, size=(7, 3))
    images = np.clip(colours[labels][:, None, None] + rng.normal(0, 25, (140, 8, 8, 3)), 0, 255).astype(np.uint8)
    features = np.stack([colour_histogram(image) for image in images])
    half = np.arange(140) < 70
    model, rows = ColourHistogram.fit(
        (features[half], labels[half]), (features[~half], labels[~half]), masked=False, strengths=(0.1,)
    )
    assert rows[0]["val_balanced_accuracy"] > 0.8
    peer = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    peer.fit((features[half] - model.mean) / model.scale, labels[half])
    expected = peer.predict_proba((features[~half] - model.mean) / model.scale)
    np.testing.assert_allclose(class_probabilities(model, images[~half], None), expected, atol=1e-5)
    again = load_classical("color_histogram", model.state(), masked=False)
    np.testing.assert_array_equal(again.class_probabilities(images), model.class_probabilities(images))


def test_majority_predicts_the_most_frequent_class():
    model = Majority.fit(np.array([5, 5, 5, 1]))
    found = class_probabilities(model, np.zeros((2, 4, 4, 3), np.uint8), None)
    np.testing.assert_allclose(found, [[0, 0.25, 0, 0, 0, 0.75, 0]] * 2)
    with pytest.raises(WeightsError, match="majority"):
        load_classical("majority", {"frequency": model.frequencies}, masked=False)
