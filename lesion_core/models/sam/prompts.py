"""Prompts: boxes and clicks, where they come from, and in which order their coordinates stand.

Coordinates are pixel indexes of the S x S network input, (x, y) with x to the right and y down, as SAM expects;
SAM itself adds the half pixel. A prompt taken from the true mask is an oracle and is named so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from lesion_core.errors import MaskError, SettingsError
from lesion_core.seeding import generator

IGNORED_POINT = -1
# Clicks of a session; those after the first are placed where the prediction missed lesion (paper B, section IV.B).
CLICKS = {"oracle_click_1": 1, "oracle_click_3": 3}


@dataclass(frozen=True)
class Prompts:
    """One prompt per image of a batch of B.

    Attributes:
        boxes: (B, 4) float, x0 y0 x1 y1 in pixels, corners included; or None.
        points: (B, K, 2) float, (x, y) in pixels; or None.
        point_labels: (B, K) int: 1 lesion, 0 not lesion, -1 no point; given if and only if points are.
    """

    boxes: Tensor | None = None
    points: Tensor | None = None
    point_labels: Tensor | None = None

    def __post_init__(self) -> None:
        labels = self.point_labels
        if (self.points is None) != (labels is None):
            raise ValueError("points and point_labels go together")
        if self.boxes is None and self.points is None:
            raise ValueError("no prompt is None, not an empty Prompts")
        if self.boxes is not None and (self.boxes.ndim != 2 or self.boxes.shape[1] != 4):
            raise ValueError(f"boxes must be (B, 4), not {tuple(self.boxes.shape)}")
        if self.points is not None and labels is not None:
            if self.points.ndim != 3 or self.points.shape[2] != 2:
                raise ValueError(f"points must be (B, K, 2), not {tuple(self.points.shape)}")
            if labels.shape != self.points.shape[:2]:
                raise ValueError("point_labels must be (B, K), as points")
            if self.boxes is not None and len(self.boxes) != len(self.points):
                raise ValueError("as many boxes as rows of points, one prompt per image")

    def __len__(self) -> int:
        return next(len(part) for part in (self.boxes, self.points) if part is not None)

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return Prompts(*(None if part is None else part.to(device) for part in self._parts()))

    def select(self, rows: slice | Sequence[int] | np.ndarray) -> Prompts:
        """Prompts of some images, in that order."""
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return Prompts(*(None if part is None else part[chosen] for part in self._parts()))

    def clicks(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (B, K, 2) and their labels (B, K) of prompts that have some."""
        assert self.points is not None
        assert self.point_labels is not None
        return self.points, self.point_labels

    def _parts(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.boxes, self.points, self.point_labels


def box_of(mask: np.ndarray) -> np.ndarray:
    """(4,) float32 x0 y0 x1 y1, the lesion's outermost pixel indexes; the whole image if the mask is empty.

    Args:
        mask: (H, W), nonzero is lesion.
    """
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return np.array([0, 0, width - 1, height - 1], dtype=np.float32)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float32)


def automatic_box(probability: np.ndarray, *, threshold: float, margin: float = 0.05) -> np.ndarray:
    """A box from a probability map, no truth involved: that of the largest component, widened by ``margin``.

    Args:
        probability: (H, W) float in 0..1, e.g. of the same model without a prompt.
        threshold: at or above it a pixel is lesion; the run's own, so that the box is that of its mask.
        margin: fraction of the box's width (height) added on each side; our choice, keeps cut-off rims inside.

    Returns:
        (4,) float32 x0 y0 x1 y1 within the image; the whole image if no pixel reaches the threshold.
    """
    lesion = (probability >= threshold).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(lesion, connectivity=8)
    if count > 1:
        lesion = labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    box = box_of(lesion)
    sides = np.array([box[2] - box[0] + 1, box[3] - box[1] + 1], dtype=np.float32)
    shift = margin * np.concatenate([-sides, sides])
    return _within(box + shift, probability.shape)


def oracle_box(mask: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """A box from the true mask; each side moves by a uniform fraction in [-jitter, jitter] of the box's side.

    Args:
        mask: (H, W), nonzero is lesion.
        jitter: 0..1; 0 gives the exact box.

    Returns:
        (4,) float32 x0 y0 x1 y1 within the image; the whole image if the mask is empty.
    """
    box = box_of(mask)
    shift = rng.uniform(-1.0, 1.0, size=4).astype(np.float32) * np.float32(jitter)
    if not mask.any():
        return box
    sides = np.array([box[2] - box[0] + 1, box[3] - box[1] + 1], dtype=np.float32)
    moved = _within(box + shift * np.tile(sides, 2), mask.shape)
    # A jitter above one half could turn the box inside out.
    return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])])


def oracle_clicks(mask: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positive clicks drawn uniformly from the true mask, without repetition while it has pixels enough.

    Returns:
        points (count, 2) float32 (x, y), labels (count,) int64, all 1; an empty mask gives labels -1 (no point).
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.zeros((count, 2), np.float32), np.full(count, IGNORED_POINT, np.int64)
    chosen = rng.choice(len(rows), size=count, replace=len(rows) < count)
    return np.stack([columns[chosen], rows[chosen]], axis=1).astype(np.float32), np.ones(count, np.int64)


def oracle_correction(mask: np.ndarray, predicted: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """The next click of an iterative session (paper B): drawn uniformly from the wrongly predicted pixels.

    Args:
        mask, predicted: (H, W), nonzero is lesion.

    Returns:
        point (2,) float32 (x, y), and its label: 1 where lesion was missed, 0 where skin was taken, -1 if all is right.
    """
    wrong = mask.astype(bool) != predicted.astype(bool)
    (x, y), label = (part[0] for part in oracle_clicks(wrong, 1, rng))
    if label == IGNORED_POINT:
        return np.zeros(2, np.float32), IGNORED_POINT
    return np.array([x, y], np.float32), int(bool(mask[int(y), int(x)]))


def oracle_prompts(masks: np.ndarray, kind: str, *, jitter: float, seed: int, keys: Sequence[int | str]) -> Prompts:
    """Oracle prompts of a batch; an image's prompt depends on (seed, kind, its key) alone.

    Of a session of several clicks this is the first click; ``click_session`` adds the others.

    Args:
        masks: (B, S, S), nonzero is lesion.
        kind: ``oracle_box``, ``oracle_click_1`` or ``oracle_click_3``.
        jitter: of boxes, see ``oracle_box``.
        keys: one per image, e.g. its id.

    Raises:
        SettingsError: another kind. MaskError: not one key per mask.
    """
    if len(keys) != len(masks):
        raise MaskError(f"{len(masks)} masks but {len(keys)} keys", remedy="give one key per mask")
    rngs = [generator(seed, "prompt", kind, key) for key in keys]
    if kind == "oracle_box":
        boxes = [oracle_box(mask, jitter, rng) for mask, rng in zip(masks, rngs, strict=True)]
        return Prompts(boxes=torch.from_numpy(np.stack(boxes)))
    if kind in CLICKS:
        clicks = [oracle_clicks(mask, 1, rng) for mask, rng in zip(masks, rngs, strict=True)]
        points, labels = (np.stack(part) for part in zip(*clicks, strict=True))
        return Prompts(points=torch.from_numpy(points), point_labels=torch.from_numpy(labels))
    raise SettingsError(f"{kind!r} is no oracle prompt", remedy="use oracle_box, oracle_click_1 or oracle_click_3")


def click_draws(kind: str, *, seed: int, keys: Sequence[int | str]) -> np.ndarray:
    """The randomness of a session's later clicks: float64 (B, K - 1) in [0, 1); K = 1 for all that is no session."""
    later = CLICKS.get(kind, 1) - 1
    return np.stack([generator(seed, "later clicks", kind, key).random(later) for key in keys])


def click_session(
    first: Prompts, masks: np.ndarray, draws: np.ndarray, predict: Callable[[Prompts], np.ndarray]
) -> Prompts:
    """``first`` and one more click per column of ``draws``, each where the prediction so far missed lesion.

    A simulated session with the true mask as its user (paper B, section IV.B: clicks are positive). The click is the
    floor(draw * n)-th of the n missed pixels in row-major order; where none is missed there is no click (label -1).

    Args:
        first: the first click of each image.
        masks: (B, S, S), nonzero is lesion.
        draws: (B, K - 1), see ``click_draws``.
        predict: prompts -> predicted lesions, bool (B, S, S).
    """
    if not draws.size:
        return first
    prompts, width, device = first, masks.shape[-1], first.clicks()[0].device
    for column in draws.T:
        missed = (masks.astype(bool) & ~predict(prompts)).reshape(len(masks), -1)
        points = np.zeros((len(masks), 1, 2), np.float32)
        labels = np.full((len(masks), 1), IGNORED_POINT, np.int64)
        for image, draw in enumerate(column):
            places = np.flatnonzero(missed[image])
            if len(places):
                y, x = divmod(int(places[int(draw * len(places))]), width)
                points[image, 0], labels[image, 0] = (x, y), 1
        earlier, signs = prompts.clicks()
        prompts = Prompts(
            points=torch.cat([earlier, torch.from_numpy(points).to(device)], dim=1),
            point_labels=torch.cat([signs, torch.from_numpy(labels).to(device)], dim=1),
        )
    return prompts


def automatic_prompts(probabilities: np.ndarray, *, threshold: float, margin: float = 0.05) -> Prompts:
    """``automatic_box`` for each of (B, S, S) probabilities."""
    boxes = [automatic_box(one, threshold=threshold, margin=margin) for one in probabilities]
    return Prompts(boxes=torch.from_numpy(np.stack(boxes)))


def _within(box: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    return np.clip(box, 0, np.array([width - 1, height - 1] * 2)).astype(np.float32)
