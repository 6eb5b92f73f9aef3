"""The same random changes as a plain albumentations chain: what ``augment`` is checked against and timed beside.

Training uses ``augment``, which draws from a keyed generator and interpolates once; this chain interpolates twice
and draws from its own state. The two have the same distribution as far as a test can tell.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING

from lesion_core.settings import Augmentation

if TYPE_CHECKING:
    from albumentations import Compose

# albumentations blurs uniform noise where we interpolate a coarse grid. With these its displacements have, away from
# the frame, the size (root mean square) and the smoothness of a 5 x 5 grid's; a test compares them. At the frame its
# blur repeats the outermost noise, and displacements there are twice as large.
ELASTIC_SIGMA = 20.0  # pixels at 256
ELASTIC_FACTOR = 3.1  # times sigma times elastic_alpha
SETTINGS_SIZE = 256


def plain_chain(settings: Augmentation, size: int, seed: int = 0, elastic_sigma: float = ELASTIC_SIGMA) -> Compose:
    """A Compose that takes image uint8 (size, size, 3) and mask uint8 (size, size), each step with chance 1.

    Args:
        settings: amounts as ``augment`` reads them; all parts must be switched on.
        size: side of the images in pixels.
        seed: of the chain's own random state.
        elastic_sigma: of the blur that makes the elastic field smooth, pixels at 256; a smaller one is faster and
            rougher, its displacements keep their size.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # albumentations 2.0.8 announces its end of support at import
        import albumentations as chain
        import cv2

    border = cv2.BORDER_REFLECT_101
    reach = settings.affine
    shear = math.degrees(math.atan(reach))
    scale = size / SETTINGS_SIZE
    return chain.Compose(
        [
            chain.HorizontalFlip(p=settings.flip_horizontal),
            chain.VerticalFlip(p=settings.flip_vertical),
            chain.Affine(
                scale={"x": (1 - reach, 1 + reach), "y": (1 - reach, 1 + reach)},
                shear={"x": (-shear, shear), "y": (-shear, shear)},
                rotate=(-settings.rotation_degrees, settings.rotation_degrees),
                translate_percent=(-settings.translation, settings.translation),
                border_mode=border,
                mask_interpolation=cv2.INTER_LINEAR,
                p=1.0,
            ),
            chain.ElasticTransform(
                alpha=ELASTIC_FACTOR * elastic_sigma * scale * settings.elastic_alpha * scale,
                sigma=elastic_sigma * scale,
                noise_distribution="uniform",
                border_mode=border,
                mask_interpolation=cv2.INTER_LINEAR,
                p=1.0,
            ),
            chain.RandomBrightnessContrast(
                brightness_limit=settings.brightness,
                contrast_limit=settings.contrast,
                brightness_by_max=True,
                p=1.0,
            ),
            chain.ColorJitter(
                brightness=(1, 1),
                contrast=(1, 1),
                saturation=(1 - settings.saturation, 1 + settings.saturation),
                hue=(0, 0),
                p=1.0,
            ),
            chain.GaussNoise(std_range=(settings.noise_std / 255, settings.noise_std / 255), p=1.0),
        ],
        seed=seed,
    )
