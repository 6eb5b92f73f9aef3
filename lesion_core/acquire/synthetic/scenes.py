"""Scenes of several lesions, in which a prompt decides which one is meant: what a promptable segmenter learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from lesion_core.acquire.synthetic.draw import Layers, clinical_outline, draw_device, render_image, stamp
from lesion_core.acquire.synthetic.lesion import Lesion, make_lesion
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES

OBJECTS = 4
OTHERS = (0.35, 0.3, 0.2, 0.15)  # chances of 0, 1, 2, 3 lesions beside the first
NESTED = 0.35  # chance that a further lesion lies within the first
REACH = 0.4  # of the side, from the middle to a further lesion's centre: beyond it a dermatoscope's rim could hide it
SMALLEST = 1 / 800  # of the image: a smaller object is left out
CROWDED_AREA = 0.22  # the first lesion's greatest area where others stand beside it


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene.

    Args:
        rng: decides everything.
        size: S, the side in pixels.

    Returns:
        RGB uint8 (S, S, 3) and masks bool (K, S, S), 1 <= K <= 4. The first lesion is what the image is of: near the
        middle, and larger than the others. Each of the others lies apart from all before it or within the first.
    """
    shape, tool = (size, size), draw_device(rng)
    others = int(rng.choice(len(OTHERS), p=OTHERS))
    first = _lesion(rng)
    if others:
        first = replace(first, area=min(first.area, CROWDED_AREA))
    layers = [stamp(first, rng, shape, float(np.clip(first.area * np.exp(0.2 * rng.standard_normal()), 0.015, 0.8)))]
    masks = [clinical_outline(layers[0].inside)]
    for _ in range(others):
        further = _nested(rng, masks) if rng.random() < NESTED else _apart(rng, masks)
        if further is not None:
            layers.append(further[0])
            masks.append(further[1])
    return render_image(layers, rng, shape, tool), np.stack(masks)


def _lesion(rng: np.random.Generator) -> Lesion:
    return make_lesion(rng, CLASSES[int(rng.integers(len(CLASSES)))])


def _nested(rng: np.random.Generator, masks: list[np.ndarray]) -> tuple[Layers, np.ndarray] | None:
    """A lesion within the first, in no other; None where there is no room."""
    free = masks[0] & ~np.any(masks[1:], axis=0) if len(masks) > 1 else masks[0]
    return _place(rng, free, float(masks[0].mean() * rng.uniform(0.08, 0.35)), reach=0.7)


def _apart(rng: np.random.Generator, masks: list[np.ndarray]) -> tuple[Layers, np.ndarray] | None:
    """A lesion beside all others; None where there is no room."""
    area = float(np.clip(masks[0].mean() * rng.uniform(0.15, 0.8), 0.006, 0.12))
    return _place(rng, ~np.any(masks, axis=0), area, reach=1.2)


def _place(rng: np.random.Generator, free: np.ndarray, area: float, reach: float) -> tuple[Layers, np.ndarray] | None:
    """A new lesion whose centre is ``reach`` radii from all that is not ``free``; its mask is cut to what is free."""
    lesion, radius = _lesion(rng), np.sqrt(area * free.size / np.pi)
    distance = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 5)
    middle = (np.arange(len(free)) + 0.5) / len(free) - 0.5
    rows, columns = np.nonzero((distance >= reach * radius) & (np.hypot(middle[:, None], middle) <= REACH))
    if not len(rows):
        return None
    chosen = int(rng.integers(len(rows)))
    layers = stamp(lesion, rng, free.shape, area, (float(columns[chosen]), float(rows[chosen])))
    mask = clinical_outline(layers.inside)
    within = mask & free
    if within.mean() < SMALLEST or within.sum() < 0.8 * mask.sum():
        return None
    return layers, within


def draw_scenes(seed: int, indices: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes of a fixed, endless collection; scene ``i`` depends on (seed, i, size) alone.

    Returns:
        RGB uint8 (N, size, size, 3) and objects uint8 (N, size, size): bit k is set on the pixels of object k.
    """
    images = np.empty((len(indices), size, size, 3), np.uint8)
    objects = np.zeros((len(indices), size, size), np.uint8)
    for row, index in enumerate(indices):
        images[row], masks = draw_scene(generator(seed, "scene", int(index)), size)
        for bit, mask in enumerate(masks):
            objects[row] |= mask.astype(np.uint8) << bit
    return images, objects
