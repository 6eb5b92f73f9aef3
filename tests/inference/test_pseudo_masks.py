"""Pseudo-masks: borders without stairs, and what stands in their table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import HOME, SIZE, root, segmenter  # noqa: F401

from lesion_core.files import read_csv
from lesion_core.inference.pseudo_masks import write_pseudo_masks
from lesion_core.inference.refine import refine_mask, upsample
from lesion_core.metrics.border import border_turning
from lesion_core.settings import Extraction

PLAIN = Extraction(threshold=0.5, closing=0, smoothing=0.0, largest_component=True, crop_margin=0.0, blend=0.7)


def ellipse(size: int, a: float, b: float, angle: float = 0.3) -> np.ndarray:
    """Signed-distance-like map, positive inside, (size, size)."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return 1.0 - np.sqrt((u / a) ** 2 + (v / b) ** 2)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.12, 0.4), st.floats(0.12, 0.4), st.floats(0, 3.1), st.sampled_from([128, 256, 400]))
def test_a_convex_outline_turns_once(a, b, angle, size):
    # where its axes are the grid's, a flat ellipse leaves long stairs: 1.43 is the most that 6,000 drawn ones gave
    assert border_turning(ellipse(size, a, b, angle) > 0) == pytest.approx(1.0, abs=0.5)


def test_turning_of_a_notched_outline_counts_the_notch():
    square = np.zeros((256, 256), bool)
    square[48:208, 48:208] = True
    assert border_turning(square) == pytest.approx(1.0, abs=0.02)
    square[48:128, 108:148] = False
    # the notch turns by a quarter in, twice back out at its bottom, a quarter again: two turns more in all
    assert border_turning(square) == pytest.approx(2.0, abs=0.05)


def test_nothing_to_walk_is_not_a_number():
    assert math.isnan(border_turning(np.zeros((64, 64), bool)))
    dot = np.zeros((64, 64), bool)
    dot[3, 3] = True
    assert math.isnan(border_turning(dot))


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.9, 1.4])
def test_thresholding_before_upsampling_leaves_stairs_that_the_measure_sees(angle: float):
    small = (1 / (1 + np.exp(-12 * ellipse(64, 0.33, 0.24, angle)))).astype(np.float32)
    after = refine_mask(upsample(small, 512, 512), PLAIN)
    before = np.kron(small >= 0.5, np.ones((8, 8), bool))
    assert border_turning(after) < 1.3
    assert border_turning(before) > 2.5
    # the extraction's smoothing mends stairs, but needs none of them to begin with
    smoothed = refine_mask(before.astype(np.float32), PLAIN.model_copy(update={"smoothing": 4.0}))
    assert border_turning(smoothed) < border_turning(before)


def test_lines_of_the_table(root, segmenter, tmp_path):  # noqa: F811
    write_pseudo_masks(segmenter, root / "protocols" / HOME / "pixels" / "ph2" / str(SIZE), tmp_path / "out")
    rows, masks = read_csv(tmp_path / "out" / "masks.csv"), np.load(tmp_path / "out" / "masks.npy")
    for row, mask in zip(rows, masks, strict=True):
        turning = border_turning(mask > 0)
        assert row["border_turning"] == ("" if math.isnan(turning) else f"{turning:.4f}")
        assert int(row["components"]) >= 1
        assert 0.5 <= float(row["confidence"]) <= 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")) == [
        "masks.csv",
        "masks.npy",
        "probabilities.npy",
    ]
