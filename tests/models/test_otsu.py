"""Otsu's method: parity with scikit-image, the darker side, the largest component, holes, the segmenter protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from lesion_core.errors import ImageError
from lesion_core.models.otsu import OtsuSegmenter, otsu_mask
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.prompts import Prompts
from lesion_core.settings import SegmentationModel

SKIN = (220, 180, 160)
LESION = (110, 70, 50)


def synthetic_image() -> tuple[np.ndarray, np.ndarray]:
    """A dark ellipse with a bright hole, and a smaller dark square; skin with noise."""
    y, x = np.mgrid[:80, :120]
    lesion = ((x - 70) / 30) ** 2 + ((y - 40) / 20) ** 2 < 1
    image = np.where(lesion[..., None], LESION, SKIN).astype(np.int64)
    image[36:44, 66:74] = SKIN
    image[2:12, 2:12] = LESION
    image += np.random.default_rng(0).integers(-6, 7, size=image.shape)
    return image.clip(0, 255).astype(np.uint8), lesion


def test_largest_dark_component_with_its_hole_filled():
    image, lesion = synthetic_image()
    found = otsu_mask(image)
    assert found.dtype == bool
    assert (found != lesion).mean() < 0.01
    assert found[40, 70]
    assert not found[5, 5]


def test_threshold_is_that_of_scikit_image():
    import cv2

    image, _ = synthetic_image()
    blurred = cv2.GaussianBlur(np.ascontiguousarray(image[..., 2]), (5, 5), 0)
    ours, _ = cv2.threshold(blurred, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    theirs = threshold_otsu(blurred)
    assert np.array_equal(blurred <= ours, blurred <= theirs)


def test_a_flat_image_has_no_lesion():
    assert not otsu_mask(np.full((16, 16, 3), 90, np.uint8)).any()


def test_segmenter_protocol():
    image, _ = synthetic_image()
    model = build_segmenter(SegmentationModel(kind="otsu", image_size=80), None, 0)
    images = torch.from_numpy(np.stack([image, image[::-1].copy()])).permute(0, 3, 1, 2).float()
    before = images.clone()
    logits = model(images)
    assert logits.shape == (2, 1, 80, 120)
    assert logits.dtype == torch.float32
    assert set(logits.unique().tolist()) == {-10.0, 10.0}
    assert np.array_equal(logits[0, 0].numpy() > 0, otsu_mask(image))
    assert torch.equal(images, before)
    assert list(model.trainable_parameters()) == []
    assert model.trainable_state() == {}
    model.load_trainable_state({})


def test_wrong_input_is_refused():
    with pytest.raises(ImageError, match="no prompts"):
        OtsuSegmenter()(torch.zeros(1, 3, 32, 32), Prompts(boxes=torch.zeros(1, 4)))
    with pytest.raises(ImageError):
        OtsuSegmenter()(torch.zeros(1, 1, 32, 32))
