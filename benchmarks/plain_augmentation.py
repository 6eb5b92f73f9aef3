"""The same random changes as a plain albumentations chain: what ``Warp`` is checked against and timed beside.

``Warp`` interpolates once; this chain interpolates twice. The two have the same distribution as far as a test can tell.
"""

from __future__ import annotations

import math

import albumentations
import cv2

from lesion_core.pixels.augment import ELASTIC_SIZE, Warp, build_transform
from lesion_core.settings import Augmentation

# albumentations blurs uniform noise where we interpolate a coarse grid. With these its displacements have, away from
# the frame, the size (root mean square) and the smoothness of a 5 x 5 grid's; a test compares them. At the frame its
# blur repeats the outermost noise, and displacements there are twice as large.
ELASTIC_SIGMA = 20.0  # pixels at 256
ELASTIC_FACTOR = 3.1  # times sigma times elastic_alpha


def plain_chain(
    augmentation: Augmentation, size: int, seed: int = 0, elastic_sigma: float = ELASTIC_SIGMA
) -> albumentations.Compose:
    """A Compose that takes image uint8 (size, size, 3) and mask uint8 (size, size).

    Args:
        augmentation: as the settings hold it; in place of ``Warp`` stand transforms of albumentations.
        size: side of the images in pixels.
        seed: of the chain's own random state.
        elastic_sigma: of the blur that makes the elastic field smooth, pixels at 256; a smaller one is faster and
            rougher, its displacements keep their size.
    """
    steps: list[albumentations.BasicTransform] = []
    for entry in augmentation:
        step = build_transform(entry)
        steps += _plain_steps(step, size / ELASTIC_SIZE, elastic_sigma) if isinstance(step, Warp) else [step]
    return albumentations.Compose(steps, seed=seed)


def _plain_steps(warp: Warp, scale: float, sigma: float) -> list[albumentations.BasicTransform]:
    reach = warp.affine
    shear = math.degrees(math.atan(reach))
    everywhere = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": cv2.INTER_LINEAR, "p": 1.0}
    return [
        albumentations.HorizontalFlip(p=warp.flip_horizontal),
        albumentations.VerticalFlip(p=warp.flip_vertical),
        albumentations.Affine(
            scale={"x": (1 - reach, 1 + reach), "y": (1 - reach, 1 + reach)},
            shear={"x": (-shear, shear), "y": (-shear, shear)},
            rotate=(-warp.rotation_degrees, warp.rotation_degrees),
            translate_percent=(-warp.translation, warp.translation),
            **everywhere,
        ),
        albumentations.ElasticTransform(
            alpha=ELASTIC_FACTOR * sigma * scale * warp.elastic_alpha * scale,
            sigma=sigma * scale,
            noise_distribution="uniform",
            **everywhere,
        ),
    ]
