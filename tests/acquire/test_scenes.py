"""Synthetic scenes: the first lesion is the largest, the others lie apart or within it, all of it by key."""

from __future__ import annotations

import numpy as np

from lesion_core.acquire.synthetic.scenes import SMALLEST, draw_scene, draw_scenes
from lesion_core.seeding import generator


def test_objects_lie_apart_or_within_the_first():
    counts, nested = [0] * 5, 0
    for number in range(60):
        image, masks = draw_scene(generator("scenes", number), 96)
        assert (image.shape, image.dtype, masks.shape[1:], masks.dtype) == ((96, 96, 3), np.uint8, (96, 96), bool)
        counts[len(masks)] += 1
        first = masks[0]
        assert masks.sum(axis=(1, 2)).min() >= SMALLEST * 96 * 96
        for k, mask in enumerate(masks[1:], start=1):
            assert mask.sum() < first.sum()
            within = (mask & first).sum()
            assert within in (0, mask.sum())
            nested += within > 0
            assert not (mask & masks[1:k].any(axis=0)).any()
    assert min(counts[1:4]) >= 5
    assert nested >= 5


def test_a_scene_depends_on_seed_and_number_alone():
    images, objects = draw_scenes(3, [5, 2], 64)
    alone = draw_scenes(3, [2], 64)
    assert np.array_equal(images[1], alone[0][0])
    assert np.array_equal(objects[1], alone[1][0])
    assert not np.array_equal(alone[0], draw_scenes(4, [2], 64)[0])
