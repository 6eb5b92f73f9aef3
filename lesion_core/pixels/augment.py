"""Random changes of a training sample (paper A, section 3.2): an albumentations pipeline, its randomness keyed."""

from __future__ import annotations

import math
import random
import threading
from typing import Annotated, Any

import albumentations
import cv2
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema
from albumentations.core.type_definitions import Targets
from pydantic import Field, JsonValue

from lesion_core.errors import SettingsError
from lesion_core.seeding import generator, key_to_int
from lesion_core.settings import Augmentation

ELASTIC_SIZE = 256  # elastic_alpha is in pixels of an image of this size


class Warp(albumentations.DualTransform):
    """Flips, rotation, affine map, translation and elastic deformation in one map, and so one interpolation.

    Beyond the frame the image is mirrored. Without rotation and all that follows it flips alone, bit for bit.

    Args:
        flip_horizontal, flip_vertical: probabilities.
        rotation_degrees: the angle is uniform in +- this.
        affine: bounds the entries of A - I.
        translation: bounds the shift, as a share of the side.
        elastic_alpha: bounds the displacement of the nodes of a coarse grid, in pixels at 256; between them bicubic.
        elastic_grid: nodes per side.
        p: probability of the whole.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    class InitSchema(BaseTransformInitSchema):
        """Ranges of the parameters; albumentations checks them."""

        flip_horizontal: Annotated[float, Field(ge=0.0, le=1.0)]
        flip_vertical: Annotated[float, Field(ge=0.0, le=1.0)]
        rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)]
        affine: Annotated[float, Field(ge=0.0, le=0.5)]
        translation: Annotated[float, Field(ge=0.0, le=0.5)]
        elastic_alpha: Annotated[float, Field(ge=0.0)]
        elastic_grid: Annotated[int, Field(ge=2)]

    def __init__(
        self,
        flip_horizontal: float = 0.0,
        flip_vertical: float = 0.0,
        rotation_degrees: float = 0.0,
        affine: float = 0.0,
        translation: float = 0.0,
        elastic_alpha: float = 0.0,
        elastic_grid: int = 5,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.flip_horizontal, self.flip_vertical = flip_horizontal, flip_vertical
        self.rotation_degrees, self.affine, self.translation = rotation_degrees, affine, translation
        self.elastic_alpha, self.elastic_grid = elastic_alpha, elastic_grid

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the map: ``axes`` of a flip alone, or ``where`` each pixel is taken from.

        The same numbers are drawn whatever is switched off.
        """
        height, width = params["shape"][:2]
        draws = self.random_generator.random(9)
        nodes = self.random_generator.random((self.elastic_grid, self.elastic_grid, 2), dtype=np.float32)
        if self.rotation_degrees == self.affine == self.translation == self.elastic_alpha == 0:
            flips = (draws[1] < self.flip_vertical, draws[0] < self.flip_horizontal)
            return {"axes": tuple(axis for axis, flipped in enumerate(flips) if flipped), "where": None}
        (a, b, left), (c, d, top) = self.source_matrix(height, width, draws).tolist()
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        where_x, where_y = a * x + (b * y + left), c * x + (d * y + top)
        if self.elastic_alpha > 0:
            reach = self.elastic_alpha * min(height, width) / ELASTIC_SIZE
            moved = displacement((2.0 * nodes - 1.0) * np.float32(reach), height, width)
            where_x, where_y = where_x + moved[..., 0], where_y + moved[..., 1]
        return {"axes": (), "where": cv2.convertMaps(where_x, where_y, cv2.CV_16SC2)}

    def source_matrix(self, height: int, width: int, draws: np.ndarray) -> np.ndarray:
        """The affine part of the map, from a pixel of the result to the place in the source it is taken from.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.
            draws: (9,) in [0, 1): two flips, angle, four entries of A - I, translation in x and y.

        Returns:
            float64 (2, 3), acting on (x, y, 1); pixel centres lie at whole numbers.
        """
        signed = 2.0 * draws - 1.0
        angle = math.radians(self.rotation_degrees * signed[2])
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        near_identity = np.eye(2) + self.affine * signed[3:7].reshape(2, 2)
        flips = draws[:2] < (self.flip_horizontal, self.flip_vertical)
        linear = np.diag(np.where(flips, -1.0, 1.0)) @ rotation @ near_identity
        centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
        shift = self.translation * signed[7:9] * (width, height)
        return np.column_stack([linear, centre - linear @ centre + shift])

    def apply(
        self,
        img: np.ndarray,
        axes: tuple[int, ...] = (),
        where: tuple[np.ndarray, np.ndarray] | None = None,
        **params: Any,
    ) -> np.ndarray:
        """Move uint8 (H, W) or (H, W, 3); albumentations calls it for the image and for the mask."""
        if where is None:
            return np.flip(img, axes)
        return cv2.remap(img, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def displacement(nodes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The elastic field: displacements of a coarse grid's nodes, between them bicubic.

    Args:
        nodes: float32 (G, G, 2), displacement in x and y in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        float32 (height, width, 2).
    """
    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC)


def build_transform(entry: dict[str, JsonValue]) -> albumentations.BasicTransform | albumentations.BaseCompose:
    """Make the transform that an entry of the settings names.

    Raises:
        SettingsError: a parameter has a value that the transform refuses.
    """
    parameters: dict[str, Any] = {key: value for key, value in entry.items() if key != "transform"}
    if "transforms" in parameters:
        parameters["transforms"] = [build_transform(part) for part in parameters["transforms"]]
    name = str(entry["transform"])
    try:
        return (Warp if name == "Warp" else getattr(albumentations, name))(**parameters)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"augmentation: {name} refuses its parameters: {error}", remedy="see albumentations' documentation"
        ) from error


class Augmenter(threading.local):
    """A pipeline of which an image's changes depend on keys alone, whatever was changed before and by which worker.

    Each thread has a pipeline of its own, since albumentations' transforms hold their random state.

    Args:
        augmentation: transforms with their parameters, in order; none leaves samples as they are.

    Raises:
        SettingsError: a parameter has a value that its transform refuses.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        # Soft masks are interpolated as the image is, not to the nearest pixel.
        self.pipeline = albumentations.Compose(
            [build_transform(entry) for entry in augmentation], mask_interpolation=cv2.INTER_LINEAR
        )

    def __call__(self, image: np.ndarray, mask: np.ndarray, *keys: int | str) -> tuple[np.ndarray, np.ndarray]:
        """Change a sample.

        Args:
            image: uint8 (H, W, 3) RGB, 0..255; not changed itself.
            mask: uint8 (H, W), 0..255, soft or binary; not changed itself.
            keys: of the randomness, e.g. seed, "augment", epoch, row.

        Returns:
            uint8 image and mask of the same shapes.

        Raises:
            SettingsError: a transform changes the shape or the type.
        """
        self.pipeline.set_random_state(generator(*keys), random.Random(key_to_int(*keys)))
        changed = self.pipeline(image=np.array(image), mask=np.array(mask))
        for before, after in ((image, changed["image"]), (mask, changed["mask"])):
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                raise SettingsError(
                    f"augmentation turned {before.dtype} {before.shape} into {after.dtype} {after.shape}",
                    remedy="take out of it what crops, resizes or converts",
                )
        return changed["image"], changed["mask"]
