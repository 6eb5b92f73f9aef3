"""Random changes of a training sample (paper A, section 3.2), fast enough to run beside the training step.

Flips, rotation, affine map, translation and elastic deformation are one map and so one interpolation; brightness,
contrast and saturation are one 3 x 4 colour transform; noise comes from a fixed bank. Image and mask share the map.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from lesion_core.seeding import generator
from lesion_core.settings import Augmentation

# settings.Augmentation.elastic_alpha is in pixels of an image of this size.
SETTINGS_SIZE = 256
# Rec. 601 luma, the grey towards which saturation moves.
LUMA = (0.299, 0.587, 0.114)
# Longer than one 1024 x 1024 x 3 image, so that offsets differ; 4 MiB of int8.
NOISE_BANK = 1 << 22
NOISE_LIMIT = 127
SCALARS = 12


def augment(
    image: np.ndarray,
    mask: np.ndarray | None,
    settings: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Change a sample at random; equal ``rng`` states give equal results.

    The same numbers are drawn whatever is switched off, so that two settings with one rng differ only in the parts
    that differ. With everything switched off the result is the input, bit for bit.

    Args:
        image: uint8 (H, W, 3) RGB, 0..255.
        mask: uint8 (H, W), 0..255 (soft or binary), or None.
        settings: flips are probabilities; rotation within +-``rotation_degrees``; ``affine`` bounds the entries of
            A - I; ``translation`` is a fraction of the side; ``elastic_alpha`` bounds the displacement of the nodes
            of an ``elastic_grid`` x ``elastic_grid`` grid, in pixels at 256; ``noise_std`` is in grey levels;
            ``brightness`` bounds the bias as a fraction of 255; ``contrast`` and ``saturation`` bound gain - 1.
        rng: the source of randomness.

    Returns:
        uint8 image and mask of the same shapes; they may be the inputs themselves.
    """
    scalars = rng.random(SCALARS)
    nodes = rng.random((settings.elastic_grid, settings.elastic_grid, 2), dtype=np.float32)
    image, mask = _move(image, mask, settings, scalars[:9], nodes)
    image = _recolour(image, settings, scalars[9:12])
    return _add_noise(image, settings.noise_std, rng), mask


def source_matrix(height: int, width: int, settings: Augmentation, draws: np.ndarray) -> np.ndarray:
    """The affine part of the map, from a pixel of the result to the place in the source it is taken from.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        settings: see ``augment``.
        draws: (9,) in [0, 1): two flips, angle, four entries of A - I, translation in x and y.

    Returns:
        float64 (2, 3), acting on (x, y, 1); pixel centres lie at whole numbers.
    """
    signed = 2.0 * draws - 1.0
    angle = math.radians(settings.rotation_degrees * signed[2])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    near_identity = np.eye(2) + settings.affine * signed[3:7].reshape(2, 2)
    flip = np.diag(
        [
            -1.0 if draws[0] < settings.flip_horizontal else 1.0,
            -1.0 if draws[1] < settings.flip_vertical else 1.0,
        ]
    )
    linear = flip @ rotation @ near_identity
    centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    shift = settings.translation * signed[7:9] * (width, height)
    return np.column_stack([linear, centre - linear @ centre + shift])


def displacement(nodes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The elastic field: displacements of a coarse grid's nodes, between them bicubic.

    Args:
        nodes: float32 (G, G, 2), displacement in x and y in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        float32 (height, width, 2).
    """
    import cv2

    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC)


def _move(
    image: np.ndarray,
    mask: np.ndarray | None,
    settings: Augmentation,
    draws: np.ndarray,
    nodes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    import cv2

    height, width = image.shape[:2]
    if settings.rotation_degrees == settings.affine == settings.translation == settings.elastic_alpha == 0:
        code = {(True, True): -1, (True, False): 1, (False, True): 0}.get(
            (bool(draws[0] < settings.flip_horizontal), bool(draws[1] < settings.flip_vertical))
        )
        if code is None:
            return image, mask
        return cv2.flip(image, code), None if mask is None else cv2.flip(mask, code)
    matrix = source_matrix(height, width, settings, draws)
    where = cv2.transform(_pixel_grid(height, width), matrix)
    if settings.elastic_alpha > 0:
        reach = settings.elastic_alpha * min(height, width) / SETTINGS_SIZE
        where += displacement((2.0 * nodes - 1.0) * np.float32(reach), height, width)
    whole, fraction = cv2.convertMaps(where, None, cv2.CV_16SC2)
    border = cv2.BORDER_REFLECT_101
    moved = cv2.remap(image, whole, fraction, cv2.INTER_LINEAR, borderMode=border)
    if mask is None:
        return moved, None
    return moved, cv2.remap(mask, whole, fraction, cv2.INTER_LINEAR, borderMode=border)


def _recolour(image: np.ndarray, settings: Augmentation, draws: np.ndarray) -> np.ndarray:
    """I' = gain * (s I + (1 - s) grey(I)) + bias, rounded and clipped once."""
    import cv2

    signed = 2.0 * draws - 1.0
    bias = 255.0 * settings.brightness * signed[0]
    gain = 1.0 + settings.contrast * signed[1]
    saturation = 1.0 + settings.saturation * signed[2]
    if bias == 0.0 and gain == 1.0 and saturation == 1.0:
        return image
    mix = gain * (saturation * np.eye(3) + (1.0 - saturation) * np.tile(LUMA, (3, 1)))
    return cv2.transform(image, np.column_stack([mix, np.full(3, bias)]))


def _add_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise; rounding it before adding changes nothing, since pixels are whole numbers."""
    import cv2

    draw = rng.integers(NOISE_BANK)
    if std == 0:
        return image
    bank = _noise_bank(std)
    if image.size < NOISE_BANK:
        offset = int(draw) % (NOISE_BANK - image.size)
        noise = bank[offset : offset + image.size]
    else:
        noise = np.resize(bank, image.size)
    return cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U)


@lru_cache(maxsize=4)
def _noise_bank(std: float) -> np.ndarray:
    noise = generator("augment", "noise bank").standard_normal(NOISE_BANK, dtype=np.float32) * np.float32(std)
    return np.clip(np.rint(noise), -NOISE_LIMIT, NOISE_LIMIT).astype(np.int8)


@lru_cache(maxsize=4)
def _pixel_grid(height: int, width: int) -> np.ndarray:
    """float32 (H, W, 2): x and y of each pixel."""
    y, x = np.mgrid[:height, :width]
    return np.ascontiguousarray(np.stack([x, y], axis=-1).astype(np.float32))
