"""What goes wrong between skin and file: blur, noise, JPEG, brightness, hair and colour casts of given strength.

A stronger corruption of an image is the same one, further on: equal generators give equal directions, signs and
first hairs, so that a curve over strengths shows strength alone.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

LUMA = (0.299, 0.587, 0.114)  # Rec. 601
REFERENCE_SIDE = 512.0  # pixel amounts are given for this longer side
HAIR_POINTS = 12


def blur(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur; ``amount``: sigma in pixels at 512."""
    sigma = amount * max(image.shape[:2]) / REFERENCE_SIDE
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image.copy()


def noise(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise; ``amount``: standard deviation in grey levels."""
    return _bytes(image + amount * rng.standard_normal(image.shape, dtype=np.float32))


def jpeg(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Compression and back; ``amount``: quality is 100 - amount."""
    _, content = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, round(100 - amount)])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB))


def brightness(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Exposure: pixels times 1 + amount, or divided by it, at random."""
    gain = 1.0 + amount
    return _bytes(image * np.float32(gain if rng.random() < 0.5 else 1.0 / gain))


def hair(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Dark curved hairs across the image; ``amount``: how many."""
    height, width = image.shape[:2]
    scale = max(height, width)
    layer = np.zeros((height, width), np.uint8)
    along = np.linspace(-1.0, 1.0, HAIR_POINTS)[:, None]
    for _ in range(round(amount)):
        angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.25)
        middle = rng.uniform(0, 1, 2) * (width, height)
        reach, thick = scale * rng.uniform(0.25, 0.6), max(1, round(scale / 256 * rng.uniform(0.6, 1.6)))
        direction = np.array([np.cos(angle), np.sin(angle)])
        path = middle + reach * (along * direction + bend * along**2 * direction[::-1] * (-1.0, 1.0))
        cv2.polylines(layer, [np.rint(path).astype(np.int32)], False, 255, thick, cv2.LINE_AA)
    cover = cv2.GaussianBlur(layer, (0, 0), 0.6).astype(np.float32)[..., None] * np.float32(0.85 / 255)
    return _bytes(image + cover * (np.array([45.0, 30.0, 25.0], np.float32) - image))


def colour_cast(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Another illuminant: channel gains 1 + amount * d, d a random direction that keeps grey's luma."""
    direction = rng.standard_normal(3)
    direction -= np.dot(direction, LUMA)  # luma weights sum to 1
    direction /= np.abs(direction).max()
    return _bytes(image * (1.0 + amount * direction).astype(np.float32))


CORRUPTIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "brightness": brightness,
    "hair": hair,
    "colour_cast": colour_cast,
}


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
