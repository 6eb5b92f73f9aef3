"""Explanations: maps known by hand, attention known by hand, and the pointing game's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import image_encoder
from torch import nn

from lesion_core.errors import ScoreError, SettingsError
from lesion_core.explain.cam import (
    capture,
    classifier_cam,
    explain_target,
    grad_cam,
    segmenter_cam,
    segmenter_layer,
    tokens_to_map,
)
from lesion_core.explain.frame import to_image_size
from lesion_core.explain.pointing import centre_prior, energy_inside, pointing_hit
from lesion_core.explain.rollout import (
    Flow,
    attention_of,
    classifier_rollout,
    sam_attention,
    segmenter_rollout,
    windowed,
)
from lesion_core.models.otsu import OtsuSegmenter
from lesion_core.models.registry import build_classifier, build_segmenter
from lesion_core.models.sam.attention import Attention
from lesion_core.settings import ClassificationModel, Extraction, SegmentationModel

EXTRACTION = Extraction(threshold=0.5, closing=3, smoothing=2.0, largest_component=True, crop_margin=0.1, blend=0.7)


class LinearCNN(nn.Module):
    """One convolution without bias, global average pooling, one linear layer: its CAM is known in closed form."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        self.features.weight.data = torch.tensor([[[[1.0]]], [[[-2.0]]]])
        self.head.weight.data = torch.tensor([[3.0, 1.0], [0.0, 5.0]])

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))


def test_cam_of_a_linear_network_by_hand():
    model, image = LinearCNN(), torch.tensor([[[[1.0, 0.0], [2.0, -1.0]]]])
    activations, gradients, logits = explain_target(
        model.features, lambda: model(image), lambda logits: logits[:, 0].sum()
    )
    # class 0: weights (3, 1) / 4 on the channels x and -2 x, so the map is relu(x (3 - 2) / 4)
    expected = torch.tensor([[[0.25, 0.0], [0.5, 0.0]]])
    assert torch.allclose(grad_cam(activations, gradients), expected)
    assert torch.allclose(logits[0, 0], torch.tensor(0.5 * (3 * 1.0 + 1 * -2.0)))
    # class 1 sees only the second channel, -2 x with weight 5 / 4
    activations, gradients, _ = explain_target(model.features, lambda: model(image), lambda logits: logits[:, 1].sum())
    assert torch.allclose(grad_cam(activations, gradients), torch.tensor([[[0.0, 0.0], [0.0, 2.5]]]))


def test_maps_do_not_depend_on_their_batch():
    model, images = LinearCNN(), torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    target = lambda logits: logits.max(dim=1).values.sum()  # noqa: E731
    together = grad_cam(*explain_target(model.features, lambda: model(images), target)[:2])
    for place in range(3):
        one = images[place : place + 1]
        alone = grad_cam(*explain_target(model.features, lambda one=one: model(one), target)[:2])
        assert torch.allclose(together[place], alone[0])


def test_hooks_are_gone_afterwards():
    model = LinearCNN()
    with capture(model.features) as caught:
        model(torch.ones(1, 1, 2, 2))
    assert caught.value.requires_grad
    assert not model.features._forward_hooks
    assert not model.features._forward_pre_hooks


def test_tokens_are_laid_out_row_by_row():
    tokens = torch.arange(10.0).view(1, 10, 1)
    assert tokens_to_map(tokens, 3)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def rollout(attentions: list[torch.Tensor]) -> torch.Tensor:
    flow = Flow()
    for attention in attentions:
        flow.add(attention)
    return flow.value


def test_rollout_by_hand():
    first = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    second = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    # half identity: [[.75 .25] [0 1]], then [[.5 .5] [.5 .5]] times it
    assert torch.allclose(rollout([first, second]), torch.tensor([[[0.375, 0.625], [0.375, 0.625]]]))
    assert torch.allclose(rollout([first]), torch.tensor([[[0.75, 0.25], [0.0, 1.0]]]))
    with pytest.raises(SettingsError, match="no layer"):
        rollout([])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_rollout_keeps_all_flow(seed, layers):
    make = torch.Generator().manual_seed(seed)
    attentions = [torch.rand(2, 5, 5, generator=make).softmax(dim=-1) for _ in range(layers)]
    flow = rollout(attentions)
    assert torch.allclose(flow.sum(dim=-1), torch.ones(2, 5))
    assert (flow >= 0).all()


def test_attention_is_what_torch_applies():
    make = torch.Generator().manual_seed(1)
    qkv = torch.randn(2, 6, 3 * 8, generator=make)
    query, key, _ = qkv.view(2, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    identity = torch.eye(6).expand(2, 2, 6, 6)
    applied = nn.functional.scaled_dot_product_attention(query, key, identity)
    assert torch.allclose(attention_of(qkv, 2), applied.mean(dim=1), atol=1e-5)


def tiny_sam(size=128):
    model = SegmentationModel(kind="sam", image_size=size, backbone="sam_vit_t")
    return build_segmenter(model, None, 0)


@pytest.fixture(scope="module")
def sam():
    return tiny_sam()


def images_of(size, count=2):
    return 255 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))


def test_sams_attention_is_the_one_it_applies():
    """With one-hot tokens as values and no projection, the module's own output is its attention."""
    attn = Attention(image_encoder.Attention(64, num_heads=1, use_rel_pos=True, input_size=(8, 8)), window=0)
    make = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        for name, parameter in attn.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=make) * (0.0 if name.endswith("bias") else 0.3))
        attn.qkv.weight[128:] = torch.eye(64)
        attn.proj.weight.copy_(torch.eye(64))
        tokens = torch.eye(64).reshape(1, 8, 8, 64)
        applied = attn(tokens).reshape(1, 64, 64)
        assert torch.allclose(sam_attention(attn, tokens), applied, atol=1e-5)
        assert applied.std() > 1e-3


def test_windows_do_not_see_each_other_and_padding_is_left_out():
    attn = Attention(image_encoder.Attention(160, num_heads=5, use_rel_pos=True, input_size=(5, 5)), window=5)
    tokens = torch.randn(2, 8, 8, 160, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        full = windowed(attn, tokens, 8)
    assert full.shape == (2, 64, 64)
    assert torch.allclose(full.sum(dim=-1), torch.ones(2, 64), atol=1e-5)
    # a grid of 8 in windows of 5: tokens 0 to 4 and 5 to 7 of a row
    assert (full[:, 0, 5:8] == 0).all()
    assert (full[:, 0, :5] > 0).all()
    assert (full[:, 7, 5:8] > 0).all()
    assert full[0, 0, 4 * 8 + 4] > 0
    assert (full[:, 0, 40:] == 0).all()


@pytest.mark.parametrize("kind", ["sam", "unet"])
def test_a_segmenters_maps(kind, sam):
    model = sam
    if kind == "unet":
        model = build_segmenter(SegmentationModel(kind="unet", image_size=64), None, 0)
    images = images_of(128 if kind == "sam" else 64)
    cam, logits = segmenter_cam(model, images)
    assert cam.ndim == 3
    assert (cam >= 0).all()
    assert torch.isfinite(cam).all()
    assert torch.allclose(logits, model(images, None).detach(), atol=1e-4)
    flow = segmenter_rollout(model, images)
    if kind == "unet":
        assert flow is None
    else:
        assert flow.shape == (2, 8, 8)
        assert torch.allclose(flow.flatten(1).sum(dim=1), torch.ones(2), atol=1e-4)


def test_otsu_has_nothing_to_explain():
    with pytest.raises(SettingsError, match=r"explain\.methods"):
        segmenter_layer(OtsuSegmenter())


@pytest.fixture(scope="module")
def classifier():
    model = ClassificationModel(kind="fusion", backbone="vit_t", image_size=32, patch_size=8, fusion="cross_attention")
    return build_classifier(model, EXTRACTION, seed=0).eval()


def test_a_classifiers_maps(classifier):
    images, masks = images_of(32), torch.ones(2, 1, 32, 32)
    cam, logits = classifier_cam(classifier, images, masks)
    assert cam.shape == (2, 4, 4)
    assert (cam >= 0).all()
    assert torch.allclose(logits, classifier(images, masks).detach(), atol=1e-5)
    flow = classifier_rollout(classifier, images, masks)
    assert flow.shape == (2, 4, 4)
    # the class token keeps a share for itself
    assert (flow.flatten(1).sum(dim=1) < 1).all()
    assert (flow > 0).all()


MASK = np.zeros((20, 20), bool)
MASK[5:10, 5:10] = True


def single(row, column):
    values = np.zeros((20, 20), np.float32)
    values[row, column] = 1.0
    return values


def test_pointing_game_by_hand():
    assert pointing_hit(single(7, 7), MASK) == 1.0
    assert pointing_hit(single(12, 7), MASK) == 0.0
    # row 12 is 3 pixels below the lesion's last row; 15 pixels at 512 are 0.6 here, 80 are 3.1
    assert pointing_hit(single(12, 7), MASK, 15.0) == 0.0
    assert pointing_hit(single(12, 7), MASK, 80.0) == 1.0
    assert pointing_hit(single(12, 7), MASK, 76.0) == 0.0
    assert pointing_hit(np.ones((20, 20), np.float32), MASK) == MASK.mean()


def test_energy_by_hand():
    values = single(7, 7) + 3 * single(0, 0)
    assert energy_inside(values, MASK) == 0.25
    assert energy_inside(np.zeros((20, 20), np.float32), MASK) == MASK.mean()
    assert energy_inside(MASK.astype(np.float32), MASK) == 1.0


@pytest.mark.parametrize(
    ("values", "mask", "says"),
    [
        (np.ones((20, 20), np.float32), np.zeros((20, 20), bool), "no lesion"),
        (np.ones((10, 20), np.float32), MASK, "Expected"),
        (np.full((20, 20), np.nan, np.float32), MASK, "not finite"),
        (-np.ones((20, 20), np.float32), MASK, "negative"),
    ],
)
def test_bad_maps_are_refused(values, mask, says):
    with pytest.raises(ScoreError, match=says):
        energy_inside(values, mask)


def test_centre_prior_has_its_maximum_in_the_middle():
    prior = centre_prior(64, 0.25)
    assert {int(place) for place in np.argwhere(prior == prior.max()).ravel()} == {31, 32}
    assert prior[0, 32] == pytest.approx(np.exp(-((0.5 - 0.5 / 64) ** 2) / (2 * 0.25**2)) * prior[32, 32], rel=1e-3)
    assert np.allclose(prior, prior.T)


def test_a_crops_map_goes_back_to_its_place():
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 1.0
    whole = to_image_size(values, (80, 120))
    assert np.unravel_index(whole.argmax(), whole.shape)[0] < 20
    # the crop is the lower right quarter
    placed = to_image_size(values, (80, 120), np.array([0.75, 0.75, 0.5]))
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert 40 <= row < 50
    assert column >= 105
    assert (placed[:40] == 0).all()
    assert (placed[:, :60] == 0).all()
    full = to_image_size(values, (80, 120), np.array([0.5, 0.5, 1.0]))
    assert np.allclose(full, whole, atol=1e-5)
