"""Mask refinement: hand cases, parity with SciPy, and what must never happen to a lesion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesion_core.pixels import masks
from lesion_core.settings import Harmonization


def _settings(**changes: object) -> Harmonization:
    values: dict = {
        "histogram": "none",
        "colour": "none",
        "hair_removal": False,
        "mask_closing": 0,
        "mask_min_component": 0.0,
        "mask_smoothing": 0.0,
        "soft_mask_sigma": 0.0,
    }
    return Harmonization(**{**values, **changes})


def _disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def test_nothing_set_changes_nothing() -> None:
    mask = np.random.default_rng(0).random((64, 64)) > 0.5
    np.testing.assert_array_equal(masks.refine(mask, _settings()), mask)
    soft = masks.soften(mask, _settings())
    assert soft.dtype == np.uint8
    np.testing.assert_array_equal(soft, np.where(mask, 255, 0))


def test_resize_keeps_position_and_halves_exactly() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:6, 4:8] = True
    expected = np.zeros((4, 4), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(masks.resize_mask(mask, 4), expected)
    np.testing.assert_array_equal(masks.resize_mask(expected, 8), mask)


def test_resize_of_another_aspect_ratio_keeps_the_share() -> None:
    mask = np.zeros((450, 600), bool)
    mask[90:270, 150:450] = True
    small = masks.resize_mask(mask, 128)
    ys, xs = np.nonzero(small)
    assert abs(small.mean() - mask.mean()) < 0.01
    assert abs(xs.mean() + 0.5 - 300 / 600 * 128) < 0.6
    assert abs(ys.mean() + 0.5 - 180 / 450 * 128) < 0.6


def test_a_lesion_of_one_pixel_survives() -> None:
    mask = np.zeros((600, 600), bool)
    mask[301, 299] = True
    strict = _settings(mask_closing=5, mask_min_component=0.5, mask_smoothing=6.0, soft_mask_sigma=4.0)
    soft = masks.harmonize_mask(mask, 64, strict)
    assert (soft >= 128).sum() >= 1
    assert soft[32, 31] >= 128


def test_empty_and_full_masks_stay() -> None:
    every = _settings(mask_closing=9, mask_min_component=0.01, mask_smoothing=3.0, soft_mask_sigma=2.0)
    assert not masks.harmonize_mask(np.zeros((50, 70), bool), 64, every).any()
    assert (masks.harmonize_mask(np.ones((50, 70), bool), 64, every) == 255).all()


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_closing_and_opening_equal_scipy(radius: int) -> None:
    import cv2

    mask = ndimage.gaussian_filter(np.random.default_rng(radius).random((60, 60)), 1.5) > 0.5
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(bool)
    wide = np.pad(mask, 4 * radius)  # background around the frame
    closed = ndimage.binary_closing(wide, disc)[4 * radius : -4 * radius, 4 * radius : -4 * radius]
    expected = ndimage.binary_dilation(ndimage.binary_erosion(closed, disc, border_value=1), disc)
    assert expected.any()
    np.testing.assert_array_equal(masks.refine(mask, _settings(mask_closing=round(radius * 512 / 60))), expected)


def test_opening_cuts_a_hair_off_and_spares_a_thin_lesion() -> None:
    mask = _disc(256, 128, 128, 50)
    mask[128, 178:240] = True
    assert not masks.refine(mask, _settings(mask_closing=4))[128, 190:].any()
    thin = np.zeros((256, 256), bool)
    thin[100, 50:200] = True
    np.testing.assert_array_equal(masks.refine(thin, _settings(mask_closing=4)), thin)


def test_closing_does_not_glue_a_lesion_to_the_frame() -> None:
    mask = np.zeros((128, 128), bool)
    mask[3:60, 40:90] = True
    closed = masks.refine(mask, _settings(mask_closing=20))
    assert not closed[:3].any()


def test_closing_fills_a_narrow_cleft_and_pixels_scale_with_size() -> None:
    for size in (128, 512):
        mask = np.zeros((size, size), bool)
        unit = size // 128
        mask[20 * unit : 100 * unit, 20 * unit : 100 * unit] = True
        mask[40 * unit : 42 * unit, 20 * unit : 100 * unit] = False
        assert masks.refine(mask, _settings(mask_closing=8))[41 * unit, 60 * unit]
        assert not masks.refine(mask, _settings(mask_closing=1))[41 * unit, 60 * unit]


def test_small_components_go_and_the_largest_stays() -> None:
    mask = _disc(100, 30, 30, 15) | _disc(100, 80, 80, 3)
    kept = masks.drop_small_components(mask, 0.01)  # 100 pixels
    np.testing.assert_array_equal(kept, _disc(100, 30, 30, 15))
    np.testing.assert_array_equal(masks.drop_small_components(mask, 0.0), mask)
    np.testing.assert_array_equal(masks.drop_small_components(mask, 1.0), _disc(100, 30, 30, 15))


@given(seed=st.integers(0, 10_000), share=st.floats(0.2, 0.8), side=st.integers(3, 40))
@settings(max_examples=80, deadline=None)
def test_components_are_scipys_also_within_holes_and_over_corners(seed: int, share: float, side: int) -> None:
    mask = np.random.default_rng(seed).random((side, side + 2)) < share
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = ndimage.sum_labels(mask, labels, np.arange(count + 1))
    areas[0] = 0
    keep = areas >= 0.03 * mask.size
    keep[areas.argmax()] = True
    keep[0] = False
    np.testing.assert_array_equal(masks.drop_small_components(mask, 0.03), keep[labels])


def test_an_island_in_a_hole_is_a_component() -> None:
    ring = _disc(100, 50, 50, 40) & ~_disc(100, 50, 50, 20)
    np.testing.assert_array_equal(masks.drop_small_components(ring | _disc(100, 50, 50, 3), 0.01), ring)


def test_exact_threshold_of_the_component_size() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0:2, 0:5] = True  # 10 pixels
    mask[5, 0:4] = True  # 4 pixels
    assert masks.drop_small_components(mask, 0.04).sum() == 14
    assert masks.drop_small_components(mask, 0.0401).sum() == 10


def test_smoothing_rounds_a_serrated_edge_and_keeps_the_area() -> None:
    mask = np.zeros((256, 256), bool)
    mask[64:192, 64:192] = True
    mask[60:64, 64:192:8] = True  # teeth of one pixel
    smooth = masks.refine(mask, _settings(mask_smoothing=6.0))
    assert not smooth[:63].any()
    assert abs(int(smooth.sum()) - 128 * 128) < 0.02 * 128 * 128


def test_a_lesion_cut_by_the_frame_keeps_its_edge() -> None:
    mask = np.zeros((128, 128), bool)
    mask[:, :50] = True
    every = _settings(mask_closing=5, mask_smoothing=5.0, soft_mask_sigma=4.0)
    np.testing.assert_array_equal(masks.refine(mask, every), mask)
    assert (masks.soften(mask, every)[:, 0] == 255).all()


def test_soft_mask_equals_scipy_blur_away_from_the_clamp() -> None:
    mask = _disc(512, 250, 260, 120)
    soft = masks.soften(mask, _settings(soft_mask_sigma=2.0)).astype(float)
    expected = ndimage.gaussian_filter(mask * 255.0, 2.0, mode="nearest")
    held = (expected >= 127.5) != mask  # corners of the staircase, kept on the mask's side
    assert held.mean() < 0.002
    assert np.abs(soft - expected)[~held].max() < 3


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.01, 0.99),
    closing=st.integers(0, 40),
    smoothing=st.floats(0, 12),
    sigma=st.floats(0, 12),
    minimum=st.floats(0, 0.3),
)
@settings(max_examples=60, deadline=None)
def test_a_lesion_never_vanishes_and_soft_agrees_with_refined(
    seed: int, share: float, closing: int, smoothing: float, sigma: float, minimum: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = ndimage.zoom(rng.random((8, 8)), 8, order=1) < share
    every = _settings(mask_closing=closing, mask_smoothing=smoothing, soft_mask_sigma=sigma, mask_min_component=minimum)
    before = mask.copy()
    refined = masks.refine(mask, every)
    np.testing.assert_array_equal(mask, before)
    assert refined.any() == mask.any()
    np.testing.assert_array_equal(masks.soften(refined, every) >= 128, refined)
