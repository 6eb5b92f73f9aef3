"""Prompts: coordinate order, boxes by hand, determinism, and what an empty mask gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.errors import MaskError, SettingsError
from lesion_core.models.sam.prompts import (
    Prompts,
    automatic_box,
    automatic_prompts,
    box_of,
    click_draws,
    click_session,
    oracle_box,
    oracle_clicks,
    oracle_correction,
    oracle_prompts,
)
from lesion_core.seeding import generator

# Rows 2..3, columns 5..9 of a 12 x 20 image: nothing about it is symmetric.
MASK = np.zeros((12, 20), dtype=np.uint8)
MASK[2:4, 5:10] = 255


def test_box_is_x0_y0_x1_y1_of_the_outermost_pixels():
    assert box_of(MASK).tolist() == [5, 2, 9, 3]
    assert box_of(np.ones((4, 6), bool)).tolist() == [0, 0, 5, 3]
    assert box_of(np.zeros((4, 6), bool)).tolist() == [0, 0, 5, 3]


def test_automatic_box_is_that_of_the_largest_component():
    probability = np.full((12, 20), 0.1, dtype=np.float32)
    probability[2:4, 5:10] = 0.5
    probability[10:12, 0:3] = 0.99
    assert automatic_box(probability, threshold=0.5, margin=0.0).tolist() == [5, 2, 9, 3]
    # 10 % of a width of 5 and a height of 2.
    np.testing.assert_allclose(automatic_box(probability, threshold=0.5, margin=0.1), [4.5, 1.8, 9.5, 3.2], rtol=1e-6)
    assert automatic_box(probability, threshold=0.9, margin=0.0).tolist() == [0, 10, 2, 11]
    assert automatic_box(probability, threshold=0.5, margin=5.0).tolist() == [0, 0, 19, 11]
    assert automatic_box(np.zeros((12, 20), np.float32), threshold=0.5).tolist() == [0, 0, 19, 11]


def test_oracle_box_without_jitter_is_the_box():
    assert oracle_box(MASK, 0.0, generator(0)).tolist() == [5, 2, 9, 3]
    assert oracle_box(np.zeros((4, 6)), 0.5, generator(0)).tolist() == [0, 0, 5, 3]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), jitter=st.floats(0, 1))
def test_oracle_box_stays_near_and_within(seed, jitter):
    x0, y0, x1, y1 = oracle_box(MASK, jitter, generator(seed))
    assert 0 <= x0 <= x1 <= 19
    assert 0 <= y0 <= y1 <= 11
    if jitter < 0.5:
        assert abs(x0 - 5) <= 5 * jitter + 1e-4
        assert abs(x1 - 9) <= 5 * jitter + 1e-4
        assert abs(y0 - 2) <= 2 * jitter + 1e-4
        assert abs(y1 - 3) <= 2 * jitter + 1e-4


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_clicks_are_x_y_inside_the_lesion(seed, count):
    points, labels = oracle_clicks(MASK, count, generator(seed))
    assert points.shape == (count, 2)
    assert points.dtype == np.float32
    assert labels.tolist() == [1] * count
    for x, y in points.astype(int):
        assert MASK[y, x]
    if count <= 10:
        assert len({tuple(point) for point in points}) == count


def test_clicks_of_an_empty_mask_are_no_clicks():
    points, labels = oracle_clicks(np.zeros((4, 6)), 3, generator(0))
    assert points.shape == (3, 2)
    assert labels.tolist() == [-1, -1, -1]


def test_a_correction_falls_on_a_wrong_pixel():
    point, label = oracle_correction(MASK, np.zeros_like(MASK), generator(0))
    assert MASK[int(point[1]), int(point[0])]
    assert label == 1
    grown = MASK.copy()
    grown[7, 15] = 255
    point, label = oracle_correction(MASK, grown, generator(0))
    assert point.tolist() == [15, 7]
    assert label == 0
    assert oracle_correction(MASK, MASK > 0, generator(0))[1] == -1


def test_masks_stay_as_they_are():
    before = MASK.copy()
    oracle_box(MASK, 0.3, generator(0))
    oracle_clicks(MASK, 3, generator(0))
    oracle_correction(MASK, 0 * MASK, generator(0))
    assert np.array_equal(MASK, before)


@pytest.mark.parametrize("kind", ["oracle_box", "oracle_click_1", "oracle_click_3"])
def test_an_images_prompt_depends_on_its_key_alone(kind):
    masks = np.stack([MASK, np.flip(MASK), MASK])
    together = oracle_prompts(masks, kind, jitter=0.2, seed=1, keys=["a", "b", "c"])
    alone = oracle_prompts(masks[1:2], kind, jitter=0.2, seed=1, keys=["b"])
    other = oracle_prompts(masks, kind, jitter=0.2, seed=2, keys=["a", "b", "c"])
    assert len(together) == 3
    chosen = together.select([1])
    if kind == "oracle_box":
        assert together.boxes.shape == (3, 4)
        assert together.boxes.dtype == torch.float32
        assert torch.equal(chosen.boxes, alone.boxes)
        assert not torch.equal(together.boxes, other.boxes)
        assert not torch.equal(together.boxes[0], together.boxes[2])
    else:
        assert together.points.shape == (3, 1, 2), "of a session, the first click"
        assert together.point_labels.shape == (3, 1)
        assert together.point_labels.dtype == torch.int64
        assert torch.equal(chosen.points, alone.points)
        assert not torch.equal(together.points, other.points)


def test_automatic_prompts_of_a_batch():
    probabilities = np.stack([MASK / 255.0, np.flip(MASK) / 255.0]).astype(np.float32)
    assert automatic_prompts(probabilities, threshold=0.5, margin=0.0).boxes.tolist() == [[5, 2, 9, 3], [10, 8, 14, 9]]


def test_wrong_kinds_and_counts_are_refused():
    with pytest.raises(SettingsError, match="automatic"):
        oracle_prompts(MASK[None], "automatic", jitter=0.0, seed=0, keys=["a"])
    with pytest.raises(MaskError):
        oracle_prompts(MASK[None], "oracle_box", jitter=0.0, seed=0, keys=["a", "b"])


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"points": torch.zeros(2, 1, 2)},
        {"boxes": torch.zeros(2, 2)},
        {"points": torch.zeros(2, 2), "point_labels": torch.zeros(2)},
        {"points": torch.zeros(2, 1, 2), "point_labels": torch.zeros(2, 2)},
        {"boxes": torch.zeros(3, 4), "points": torch.zeros(2, 1, 2), "point_labels": torch.zeros(2, 1)},
    ],
)
def test_impossible_prompts_are_refused(parts):
    with pytest.raises(ValueError, match=r"prompt|point|box"):
        Prompts(**parts)


def test_select_and_to_keep_what_is_there():
    prompts = Prompts(points=torch.arange(12.0).view(3, 2, 2), point_labels=torch.ones(3, 2, dtype=torch.int64))
    chosen = prompts.select(np.array([2, 0])).to("cpu")
    assert chosen.boxes is None
    assert chosen.points[:, 0].tolist() == [[8, 9], [0, 1]]
    assert len(prompts.select(slice(1, 3))) == 2


def session(predict, draws, first=(0.0, 0.0)):
    start = Prompts(points=torch.tensor([[first]]), point_labels=torch.ones(1, 1, dtype=torch.int64))
    return click_session(start, MASK[None], np.array([draws]), predict)


def test_later_clicks_lie_where_lesion_was_missed():
    """By hand: the mask is columns 5..9 of rows 2..3; each round predicts more of it."""
    seen = []
    answers = [np.zeros((12, 20), bool), MASK > 0]
    answers[0][:, :9] = True

    def predict(prompts):
        seen.append(prompts.points.shape[1])
        return answers[len(seen) - 1][None]

    done = session(predict, [0.99, 0.5])
    # round 1: (9, 2) and (9, 3) are missed, the second is taken; round 2: nothing is missed, so no click
    assert done.points[0].tolist() == [[0, 0], [9, 3], [0, 0]]
    assert done.point_labels[0].tolist() == [1, 1, -1]
    assert seen == [1, 2], "each round is asked with the clicks so far"


def test_a_session_never_clicks_on_what_is_no_lesion():
    everything = session(lambda prompts: np.ones((1, 12, 20), bool), [0.1, 0.9])
    assert everything.point_labels[0].tolist() == [1, -1, -1]
    for draw in np.linspace(0, 0.999, 17):
        nothing = session(lambda prompts: np.zeros((1, 12, 20), bool), [draw])
        x, y = nothing.points[0, 1].long().tolist()
        assert MASK[y, x]
        assert nothing.point_labels[0, 1] == 1


def test_draws_depend_on_the_key_alone_and_only_sessions_have_any():
    together = click_draws("oracle_click_3", seed=1, keys=["a", "b"])
    assert together.shape == (2, 2)
    assert np.array_equal(click_draws("oracle_click_3", seed=1, keys=["b"])[0], together[1])
    for kind in ("oracle_click_1", "oracle_box"):
        assert click_draws(kind, seed=1, keys=["a", "b"]).shape == (2, 0)
