"""Synthetic images of lesions with their true masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lesion_core.acquire.synthetic import artefacts
from lesion_core.acquire.synthetic.lesion import EXTENT, Lesion, make_lesion, render
from lesion_core.acquire.synthetic.noise import field
from lesion_core.acquire.synthetic.skin import BLOOD, DEVICES, MELANIN, Device, base_colour, skin_maps
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES

WHOLE = 0.8  # share of images that frame the whole lesion where it fits


def synthetic_image(
    lesion: Lesion,
    rng: np.random.Generator,
    size: int | tuple[int, int] = 256,
    device: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One image of ``lesion`` with its own pose, zoom, light, skin, hair and camera.

    Args:
        lesion: from ``make_lesion``; the same lesion can have any number of images.
        rng: decides all that may differ between images.
        size: side in pixels, or (height, width).
        device: index into ``skin.DEVICES``; None draws one by its share.

    Returns:
        RGB uint8 (H, W, 3) and mask bool (H, W), the smooth clinical border; the mask is never empty.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shape = (height, width)
    tool = draw_device(rng) if device is None else DEVICES[device]

    area = float(np.clip(lesion.area * np.exp(0.2 * rng.standard_normal()), 0.015, 0.8))
    layers = stamp(lesion, rng, shape, area)
    mask = clinical_outline(layers.inside)
    return render_image([layers], rng, shape, tool), mask


def draw_device(rng: np.random.Generator) -> Device:
    """A dermatoscope, by its share."""
    shares = np.array([one.share for one in DEVICES])
    return DEVICES[int(rng.choice(len(DEVICES), p=shares / shares.sum()))]


@dataclass(frozen=True)
class Layers:
    """One lesion's maps in the image's pixels: ``covers`` float32 (H, W, 4) melanin, blood, veil, white; ``inside`` and
    ``relief`` float32 (H, W), see ``lesion.LesionMaps``."""

    covers: np.ndarray
    inside: np.ndarray
    relief: np.ndarray


def stamp(
    lesion: Lesion,
    rng: np.random.Generator,
    shape: tuple[int, int],
    area: float,
    centre: tuple[float, float] | None = None,
) -> Layers:
    """``lesion`` turned and stretched at random, covering about ``area`` (0..1) of an image of ``shape`` (H, W).

    Args:
        centre: (x, y) in pixels of the lesion's extent; by default near the image's middle.
    """
    height, width = shape
    unit = np.sqrt(area * height * width / np.pi)
    side = int(np.clip(2 * EXTENT * unit, 48, 1.1 * max(shape)))
    maps = render(lesion, side)
    stack_a = np.dstack([maps.melanin, maps.blood, maps.veil, maps.white])
    stack_b = np.dstack([maps.inside, maps.relief])
    pose = _pose(rng, maps.inside, unit, shape, centre)
    flags = cv2.INTER_LINEAR
    covers = cv2.warpAffine(stack_a, pose, (width, height), flags=flags)
    outside = (-1.0, 0.0, 0.0, 0.0)
    inside, relief = cv2.split(cv2.warpAffine(stack_b, pose, (width, height), flags=flags, borderValue=outside))
    return Layers(covers, inside, relief)


def render_image(
    lesions: Sequence[Layers], rng: np.random.Generator, shape: tuple[int, int], tool: Device
) -> np.ndarray:
    """RGB uint8 (H, W, 3) of lesions on one skin under one light, seen through ``tool``, with artefacts."""
    height, width = shape
    melanin, blood, veil, white = cv2.split(np.sum([one.covers for one in lesions], axis=0))
    veil, white = np.minimum(veil, 0.95), np.minimum(white, 0.95)

    skin_melanin, skin_blood, relief = skin_maps(rng, shape)
    melanin += skin_melanin
    blood += skin_blood
    melanin, blood = _distractors(rng, melanin, blood)
    relief += np.sum([one.relief for one in lesions], axis=0)
    colour = base_colour(rng, tool)
    image = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        absorbed = melanin * -MELANIN[channel] - blood * BLOOD[channel]
        image[..., channel] = cv2.exp(absorbed) * colour[channel]
    mean = colour.mean()
    veil_colour = mean * np.array([0.44, 0.47, 0.62], np.float32) * np.float32(rng.uniform(0.8, 1.15))
    white_colour = np.minimum(255, colour * np.array([1.08, 1.16, 1.18], np.float32))
    image += veil[..., None] * (veil_colour - image)
    image += white[..., None] * (white_colour - image)
    image *= ((1 + relief) * artefacts.light(rng, shape))[..., None]
    return _in_front(rng, image, tool.circle)


def _in_front(rng: np.random.Generator, image: np.ndarray, circle: float) -> np.ndarray:
    if rng.random() < 0.08:
        artefacts.ink(rng, image)
    if rng.random() < 0.38:
        artefacts.hair(rng, image)
    if rng.random() < 0.3:
        artefacts.glints(rng, image)
    if rng.random() < 0.12:
        artefacts.bubbles(rng, image)
    if rng.random() < 0.06:
        artefacts.ruler(rng, image)
    if rng.random() < circle:
        artefacts.frame(rng, image, circle=True)
    elif rng.random() < 0.2:
        artefacts.frame(rng, image, circle=False)
    return artefacts.sensor(rng, image)


def _pose(
    rng: np.random.Generator,
    inside: np.ndarray,
    unit: float,
    shape: tuple[int, int],
    place: tuple[float, float] | None = None,
) -> np.ndarray:
    """Affine (2, 3) from canvas pixels to image pixels: turn, stretch, shift to ``place`` (x, y) or near the middle.

    Most lesions are framed whole where they fit; some are cut by the image's border.
    """
    height, width = shape
    side = len(inside)
    turn = rng.uniform(0, 2 * np.pi)
    stretch = np.exp(0.08 * rng.standard_normal(2))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = np.diag(stretch) @ rotation * (2 * EXTENT * unit / side)
    step = max(1, side // 48)
    rows, columns = np.nonzero(inside[::step, ::step] > 0)
    points = linear @ np.stack([columns, rows]).astype(np.float64) * step
    low, high = points.min(1), points.max(1)
    frame = np.array([width, height], np.float64)
    whole = rng.random() < WHOLE
    if whole:
        fit = min(1.0, float((0.93 * frame / np.maximum(high - low, 1)).min()))
        linear, low, high = linear * fit, low * fit, high * fit
    slack = np.maximum(frame * 0.95 - (high - low), 0) / 2 + (0 if whole else 0.12 * frame)
    # Lesions stand near the middle: the user of the dermatoscope aims at them.
    shift = slack * np.clip(0.42 * rng.standard_normal(2), -1, 1)
    centre = frame / 2 + shift if place is None else np.array(place)
    return np.column_stack([linear, centre - (low + high) / 2])


def clinical_outline(inside: np.ndarray) -> np.ndarray:
    """The largest smooth region where ``inside`` > 0, holes filled; bool (H, W), never empty."""
    sigma = max(inside.shape) / 110
    soft = cv2.GaussianBlur(np.clip(inside, -0.5, 0.5), (0, 0), sigma)
    binary = (soft > 0).astype(np.uint8)
    if not binary.any():
        binary = (soft >= soft.max()).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=lambda contour: (cv2.contourArea(contour), len(contour)))
    mask = np.zeros_like(binary)
    cv2.drawContours(mask, [largest], -1, 1, -1)
    return mask.astype(bool)


def _distractors(rng: np.random.Generator, melanin: np.ndarray, blood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Freckles and red spots outside the mask's business."""
    height, width = melanin.shape
    if rng.random() < 0.4:
        layer = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.choice([rng.integers(1, 6), rng.integers(5, 40)], p=[0.6, 0.4]))):
            centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
            radius = max(1, int(max(height, width) * rng.uniform(0.003, 0.028)))
            axes = (radius, max(1, int(radius * rng.uniform(0.5, 1.0))))
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(layer, centre, axes, turn, 0, 360, int(rng.integers(60, 256)), -1, cv2.LINE_AA)
        ragged = np.clip(1 + 0.5 * field(rng, (height, width), 40, 2), 0, 2)
        soft = cv2.GaussianBlur(layer, (0, 0), max(height, width) / 256 * rng.uniform(0.8, 2.5))
        spots = soft.astype(np.float32) * np.float32(rng.uniform(0.15, 0.7) / 255) * ragged
        if rng.random() < 0.75:
            melanin = melanin + spots
        else:
            blood = blood + spots
    return melanin, blood


def draw(
    rng: np.random.Generator,
    label: str,
    size: int | tuple[int, int] = 256,
    device: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A new lesion of class ``label`` and one image of it: uint8 (H, W, 3) RGB and mask bool (H, W)."""
    return synthetic_image(make_lesion(rng, label), rng, size, device)


def draw_batch(seed: int, indices: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of a fixed, endless, made collection; image ``i`` depends on (seed, i, size) alone.

    Returns:
        images uint8 (N, size, size, 3) RGB, masks uint8 0/1 (N, size, size), labels.
    """
    images = np.empty((len(indices), size, size, 3), np.uint8)
    masks = np.empty((len(indices), size, size), np.uint8)
    labels = []
    for row, index in enumerate(indices):
        rng = generator(seed, "synthetic", int(index))
        label = CLASSES[int(rng.integers(len(CLASSES)))]
        image, mask = draw(rng, label, size)
        images[row], masks[row] = image, mask
        labels.append(label)
    return images, masks, labels
