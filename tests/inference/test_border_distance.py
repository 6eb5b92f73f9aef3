"""Distances of outlines: hand-worked masks, scipy's distance transform, images resized without their aspect ratio."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from lesion_core.inference.border_distance import border_distances


def rectangle(shape, top, left, height, width) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_a_shift_by_hand():
    """Two squares of 20, one 3 to the right: each outline's places are 0 to 3 from the other's, its sides 3."""
    mask, truth = rectangle((40, 40), 10, 10, 20, 20), rectangle((40, 40), 10, 13, 20, 20)
    far, mean = border_distances(mask, truth, (30, 40))
    assert far == pytest.approx(3 * 1 / 50, abs=1e-6)
    assert 0 < mean < far
    assert border_distances(mask, mask, (30, 40)) == (0.0, 0.0)


def test_an_empty_mask_is_a_diagonal_away():
    mask, empty = rectangle((40, 40), 10, 10, 20, 20), np.zeros((40, 40), bool)
    assert border_distances(mask, empty, (40, 40)) == border_distances(empty, mask, (40, 40)) == (1.0, 1.0)
    assert border_distances(empty, empty, (40, 40)) == (0.0, 0.0)


def test_specks_that_a_reduction_removes_are_compared_whole():
    speck, other = rectangle((1200, 1600), 600, 800, 1, 1), rectangle((1200, 1600), 600, 820, 1, 1)
    assert border_distances(speck, speck, speck.shape) == (0.0, 0.0)
    assert border_distances(speck, other, speck.shape) == pytest.approx((20 / 2000, 20 / 2000), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_as_scipy_has_it(seed):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    masks = []
    for _ in range(2):
        cy, cx, ry, rx = random.uniform([20, 25, 8, 8], [40, 55, 18, 22])
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1)
    edges = [mask & ~binary_erosion(mask) for mask in masks]
    there, back = (distance_transform_edt(~edges[1 - at])[edges[at]] for at in (0, 1))
    far, mean = border_distances(*masks, (60, 80))
    assert far * 100 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert mean * 100 == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)


def test_large_masks_are_reduced_and_squares_are_seen_in_their_image():
    mask, truth = rectangle((1200, 1600), 300, 400, 600, 800), rectangle((1200, 1600), 300, 480, 600, 800)
    far, mean = border_distances(mask, truth, mask.shape)
    assert far == pytest.approx(80 / 2000, abs=0.003)
    square = [np.ascontiguousarray(part[::3, ::4]) for part in (mask, truth)]
    resized = border_distances(*square, mask.shape)
    assert resized == pytest.approx((far, mean), abs=0.003)
