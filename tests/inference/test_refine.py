"""Lesion extraction: hand-made masks, degenerate cases, borders."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesion_core.inference.refine import largest_component, refine_mask, upsample
from lesion_core.settings import load as config

EXTRACTION = config.load("paper").extraction
PLAIN = EXTRACTION.model_copy(update={"closing": 0, "smoothing": 0.0, "largest_component": False})


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    return ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2).astype(np.float32)


def test_without_refinement_it_is_the_threshold():
    probability = np.array([[0.49, 0.5], [0.51, 0.0]], np.float32)
    assert refine_mask(probability, PLAIN).tolist() == [[False, True], [True, False]]


def test_empty_stays_empty_and_full_stays_full():
    assert not refine_mask(np.zeros((64, 48), np.float32), EXTRACTION).any()
    assert refine_mask(np.ones((64, 48), np.float32), EXTRACTION).all()


def test_largest_component_is_kept_and_holes_are_closed():
    probability = np.maximum(disc(512, 200, 200, 90), disc(512, 440, 440, 25))
    probability[199:202, 199:202] = 0.0
    mask = refine_mask(probability, EXTRACTION)
    assert mask[200, 200]
    assert not mask[440, 440]
    truth = disc(512, 200, 200, 90).astype(bool)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.995


def test_a_lesion_at_the_image_border_keeps_it():
    mask = refine_mask(disc(512, 0, 256, 120), EXTRACTION)
    assert mask[:, 0].sum() >= 238


def test_ties_go_to_the_first():
    mask = np.zeros((4, 9), np.uint8)
    mask[1:3, 1:3] = mask[1:3, 6:8] = 1
    assert largest_component(mask)[:, :4].sum() == 4
    assert largest_component(mask)[:, 5:].sum() == 0


@given(arrays(np.float32, (9, 7), elements=st.floats(0, 1, width=32)), st.integers(1, 40), st.integers(1, 40))
def test_upsampling_stays_in_range(probability, height, width):
    result = upsample(probability, height, width)
    assert result.shape == (height, width)
    assert result.min() >= probability.min() - 1e-6
    assert result.max() <= probability.max() + 1e-6


def test_scale_follows_the_longer_side():
    speck = np.zeros((1024, 1024), np.float32)
    speck[500:503, 500:503] = 1.0
    assert not refine_mask(speck, EXTRACTION).any()
