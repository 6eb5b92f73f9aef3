"""Images for the timings, from the repository's own generator."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.acquire.synthetic.lesion import make_lesion
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES

JPEG_QUALITY = 92
GRAIN = 2.0  # grey levels of sensor noise: without it an enlarged image would compress too well


def drawn(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic image uint8 (H, W, 3) RGB and its mask bool (H, W)."""
    rng = generator("benchmark", number)
    return synthetic_image(make_lesion(rng, CLASSES[number % len(CLASSES)]), rng, (height, width))


def enlarged(number: int, height: int, width: int, factor: int) -> np.ndarray:
    """A synthetic image drawn at 1 / ``factor`` of its size, enlarged, with grain: uint8 (H, W, 3) RGB."""
    import cv2

    small, _ = drawn(number, height // factor, width // factor)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = generator("benchmark grain", number).standard_normal(large.shape, dtype=np.float32)
    return np.clip(np.rint(large + GRAIN * grain), 0, 255).astype(np.uint8)


def save_jpeg(image: np.ndarray, path: Path) -> Path:
    """Write uint8 (H, W, 3) RGB as JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    path.write_bytes(buffer.getvalue())
    return path
