"""SAM's automatic masks: grid and stability as segment_anything has them, and the rule that picks the lesion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils.amg import build_point_grid, calculate_stability_score

from lesion_core.models.automatic_masks import automatic_lesions, darkness, point_grid, stability
from lesion_core.settings import AutomaticMasks

STRICT = AutomaticMasks(points_per_side=2, predicted_iou=0.8, stability=0.9, stability_offset=1.0)


def test_grid_and_stability_are_segment_anythings():
    for side in (1, 4, 32):
        np.testing.assert_allclose(point_grid(side, 1024), build_point_grid(side) * 1024, rtol=1e-6)
    logits = torch.randn(7, 40, 30, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(stability(logits, 1.0), calculate_stability_score(logits, 0.0, 1.0))


def test_stability_of_an_empty_mask_is_zero():
    assert stability(torch.full((1, 4, 4), -9.0), 1.0).tolist() == [0]


def test_darkness_by_hand():
    """Half the image at 40, half at 200: w (1 - w) (m1 - m0)^2 = 1/4 * 160^2; the bright half scores 0."""
    luminance = torch.full((4, 4), 200.0)
    luminance[:2] = 40.0
    dark, bright = luminance < 100, luminance > 100
    quarter = torch.zeros(4, 4, dtype=torch.bool)
    quarter[0] = True
    empty, full = torch.zeros_like(dark), torch.ones_like(dark)
    scores = darkness(torch.stack([dark, bright, quarter, empty, full]), luminance)
    # the quarter: inside 40, outside (40 * 4 + 200 * 8) / 12
    expected = [6400.0, 0.0, 0.25 * 0.75 * ((40 * 4 + 200 * 8) / 12 - 40) ** 2, 0.0, 0.0]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


class Answers:
    """Stands for a SAM of 64 pixels whose decoder always gives the same four masks."""

    image_size = 64

    def __init__(self, masks: torch.Tensor, iou: list[float]) -> None:
        self.masks, self.iou, self.asked = masks, torch.tensor(iou), []

    def decode_all(self, embeddings, prompts):
        self.asked.append(prompts)
        count = len(embeddings)
        return self.masks.expand(count, -1, -1, -1), self.iou.expand(count, -1)


@pytest.fixture
def scene():
    image = torch.full((1, 3, 64, 64), 200.0)
    image[..., 16:32, 16:40] = 60.0
    masks = torch.full((4, 16, 16), -8.0)
    masks[0, 4:8, 4:10] = 8.0
    masks[1, 4:8, 4:10] = 8.0  # the lesion
    masks[2, 4:8, 4:6] = 8.0  # a part of it
    masks[3, :3] = 8.0  # skin
    return image, masks


def lesion(scene, iou, settings=STRICT, masks=None):
    image, own = scene
    model = Answers(own if masks is None else masks, iou)
    found = automatic_lesions(model, torch.zeros(1, 8, 4, 4), image, settings)
    assert found.shape == (1, 1, 16, 16)
    return found[0, 0], model


def test_the_darkest_of_the_kept_masks_is_the_lesion(scene):
    found, model = lesion(scene, [0.0, 0.9, 0.9, 0.9])
    assert torch.equal(found, scene[1][1])
    assert torch.cat([prompts.points for prompts in model.asked])[:, 0].tolist() == point_grid(2, 64).tolist()


def test_a_mask_that_is_not_trusted_is_not_taken(scene):
    found, _ = lesion(scene, [0.99, 0.5, 0.9, 0.9])
    assert torch.equal(found, scene[1][2]), "mask 1 is better, but its estimated IoU is below the threshold"
    unstable = scene[1].clone()
    unstable[1] = unstable[1].sign() * 0.5
    found, _ = lesion(scene, [0.99, 0.9, 0.9, 0.9], masks=unstable)
    assert torch.equal(found, unstable[2])


def test_without_a_trusted_mask_all_take_part(scene):
    found, _ = lesion(scene, [0.0, 0.1, 0.1, 0.1])
    assert torch.equal(found, scene[1][1])


def test_nothing_darker_than_its_outside_is_no_lesion(scene):
    image, masks = scene
    found, _ = lesion((255 - image, masks), [0.0, 0.9, 0.0, 0.0])
    assert (found < 0).all()
