"""What the page shows of an image: its outline, its row of predictions.csv, and a correction by clicks or a box."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lesion_core.acquire.images import encode_image, inspect_image
from lesion_core.errors import ImageError, RunError, SettingsError
from lesion_core.inference.one_image import Classify
from lesion_core.inference.predict import Found, look, row_of
from lesion_core.inference.unlike import Unlikeness
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trained import LoadedSegmenter
from lesion_core.settings import CLASSES

SHOWN_SIDE = 1200  # pixels of the picture's longer side; masks keep the image's own size
MOST_CLICKS = 64


@dataclass(frozen=True)
class Correction:
    """What a person drew on an image.

    Attributes:
        clicks: (x, y, 1 for lesion or 0 for skin), in pixels of the image.
        box: x0, y0, x1, y1 in pixels of the image; or None.
    """

    clicks: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None

    @classmethod
    def read(cls, value: Any) -> Correction:
        """From the page's JSON ``{"clicks": [[x, y, label], ...], "box": [x0, y0, x1, y1] or null}``.

        Raises:
            SettingsError: another form, no prompt at all, or more than 64 clicks.
        """
        try:
            clicks = tuple((float(x), float(y), int(label)) for x, y, label in value["clicks"])
            box = None if value["box"] is None else tuple(map(float, value["box"]))
            numbers = [number for click in clicks for number in click] + list(box or ())
            sound = all(label in (0, 1) for _, _, label in clicks) and np.isfinite(numbers).all()
        except (TypeError, ValueError, KeyError, OverflowError):
            sound = False
        if not sound or len(clicks) > MOST_CLICKS or (box is not None and len(box) != 4) or not (clicks or box):
            raise SettingsError(
                "This is no correction",
                remedy=f"give up to {MOST_CLICKS} clicks [x, y, 0 or 1], or a box [x0, y0, x1, y1], or both",
            )
        return cls(clicks, box)

    def prompts(self, height: int, width: int, size: int) -> Prompts:
        """In pixels of the network's input of side ``size``, within it; pixel centres lie 0.5 further."""
        scale = np.array([size / width, size / height])

        def inside(points: Sequence[Sequence[float]]) -> torch.Tensor:
            placed = ((np.array(points) + 0.5) * scale - 0.5).clip(0, size - 1)
            return torch.from_numpy(placed.astype(np.float32))[None]

        boxes = points = labels = None
        if self.box is not None:
            corners = inside([self.box[:2], self.box[2:]])[0]
            boxes = torch.cat([corners.amin(dim=0), corners.amax(dim=0)])[None]
        if self.clicks:
            points = inside([click[:2] for click in self.clicks])
            labels = torch.tensor([[click[2] for click in self.clicks]])
        return Prompts(boxes=boxes, points=points, point_labels=labels)


@dataclass(frozen=True)
class Outliner:
    """The models behind the page.

    Attributes:
        segmenter: makes the outline.
        corrector: a SAM that is prompted with a person's clicks and boxes; None: none is offered.
        classify: adds classes to a row, or None.
        unlikeness: adds the column of that name, or None.
    """

    segmenter: LoadedSegmenter
    corrector: LoadedSegmenter | None = None
    classify: Classify | None = None
    unlikeness: Unlikeness | None = None

    def __post_init__(self) -> None:
        if self.corrector is not None and self.corrector.settings.kind != "sam":
            raise RunError(
                f"{self.corrector.run.run_id} takes no clicks or boxes",
                remedy="give a run whose model.kind is sam with --corrector",
            )

    def about(self) -> dict[str, Any]:
        """What the page says of the models, and whether outlines can be corrected."""
        return {
            "run": self.segmenter.run.run_id,
            "corrector": None if self.corrector is None else self.corrector.run.run_id,
            "classes": list(CLASSES) if self.classify is not None else [],
        }

    def outline(self, name: str, content: bytes, correction: Correction | None = None) -> dict[str, Any]:
        """The answer to the page for one image file.

        Args:
            name: image id, for the row.
            content: the file's bytes.
            correction: None: the segmenter's own outline.

        Returns:
            ``width``, ``height``; ``row`` as in predictions.csv; ``outline``: closed lines of [x, y] in pixels;
            ``mask``: PNG in base64, 0 or 255 at the image's size; ``picture``: JPEG in base64, at most 1200 pixels.

        Raises:
            ImageError: the file cannot be read.
            SettingsError: a correction where there is no corrector.
        """
        image = inspect_image(name, content=content)
        height, width = image.pixels.shape[:2]
        model, maps = self.segmenter, self.segmenter.maps
        if correction is not None:
            if self.corrector is None:
                raise SettingsError("No outline can be corrected here", remedy="start it with --corrector SAM_RUN")
            model, prompts = self.corrector, correction.prompts(height, width, self.corrector.size)
            maps = partial(model.maps, prompts=prompts)
        found = look(model, image.pixels, maps)
        row = row_of(name, image, found, model.run) | {"corrected": "" if correction is None else "yes"}
        if self.unlikeness is not None and correction is None:
            row["unlikeness"] = round(self.unlikeness.of(found.pixels), 4)
        if self.classify is not None:
            row |= self.classify(name, image.pixels, found.probability)
        return {
            "width": width,
            "height": height,
            "row": row,
            "outline": _lines(found),
            "mask": _base64(encode_image(found.mask.astype(np.uint8) * 255)),
            "picture": _base64(encode_image(_shown(image.pixels), ".jpg")),
        }


def image_id(name: str) -> str:
    """An uploaded file's name without folders and ending, as predictions.csv calls an image.

    Raises:
        ImageError: nothing is left, or a spreadsheet would take it for a formula.
    """
    stem = Path(name.replace("\\", "/")).stem
    if not stem or len(stem) > 200 or not stem.isprintable() or stem.startswith(("=", "+", "-", "@")):
        raise ImageError("This name cannot stand in a table", file=name, remedy="rename the image")
    return stem


def _lines(found: Found) -> list[list[list[int]]]:
    contours, _ = cv2.findContours(found.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].tolist() for contour in contours]


def _shown(pixels: np.ndarray) -> np.ndarray:
    scale = SHOWN_SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
