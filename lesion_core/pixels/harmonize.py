"""Harmonize one image: colour, hair, size and histogram (paper A, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lesion_core.acquire.images import read_image
from lesion_core.errors import ImageError, RunError
from lesion_core.pixels import histogram
from lesion_core.pixels.colour import grey_world, remove_hair, shades_of_grey
from lesion_core.pixels.resize import resize_square
from lesion_core.settings import Harmonization


def read_original(path: str | Path, size: int, settings: Harmonization) -> np.ndarray:
    """Read an image for harmonization at ``size``: whole, or scaled while it is decoded if the settings ask for it.

    Returns:
        uint8 (H, W, 3) RGB; with ``scaled_decoding`` a JPEG is reduced by 2, 4 or 8 while both sides stay >= ``size``.

    Raises:
        ImageError: see ``read_image``.
    """
    return read_image(path, at_least=size if settings.scaled_decoding else None)


def prepare_image(image: np.ndarray, size: int, settings: Harmonization, datasets: Sequence[str]) -> np.ndarray:
    """All steps before the histogram: colour constancy, hair removal, resizing.

    Args:
        image: uint8 (H, W, 3) RGB.
        size: side of the result, in pixels.
        settings: ``colour``, ``colour_for`` and ``hair_removal``.
        datasets: the image's dataset; for an image of unknown origin those that its model was trained on.

    Returns:
        uint8 (size, size, 3).
    """
    correction = settings.correction(datasets)
    if correction == "grey_world":
        image = grey_world(image)
    elif correction == "shades_of_grey":
        image = shades_of_grey(image)
    if settings.hair_removal:
        image = remove_hair(image)
    return resize_square(image, size)


def harmonize_image(
    image: np.ndarray,
    size: int,
    reference: np.ndarray | None,
    settings: Harmonization,
    datasets: Sequence[str],
) -> np.ndarray:
    """Harmonize one image: the stage and ``lesion predict`` both call this.

    Args:
        image: uint8 (H, W, 3) RGB.
        size: side of the result, in pixels.
        reference: (3, 256) as made by ``reference_histogram``; may be None if ``settings.histogram`` is ``none``.
        settings: all keys but those of masks.
        datasets: see ``prepare_image``.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ImageError: the image is not uint8 (H, W, 3) or has no pixels.
        RunError: a histogram is to be specified and there is no reference.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    prepared = prepare_image(image, size, settings, datasets)
    if settings.histogram == "none":
        return prepared
    if reference is None:
        raise RunError(
            "histogram specification needs a reference histogram",
            remedy="give the reference the model was trained with, or set harmonization.histogram to none",
        )
    return histogram.specify_histogram(prepared, reference)
