"""Images to probability maps to masks: one path for scoring, pseudo-masks and ``lesion predict``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from lesion_core.acquire.images import Decoded, inspect_image, write_image
from lesion_core.acquire.parallel import in_threads
from lesion_core.errors import ImageError
from lesion_core.files import write_csv
from lesion_core.inference.expected_dice import ExpectedDice, confidence
from lesion_core.inference.finished_rows import FinishedRows
from lesion_core.inference.own_images import broken_images, list_images
from lesion_core.inference.own_outputs import MASKS_ALONE, Extras
from lesion_core.inference.refine import count_components, refine_mask, upsample
from lesion_core.inference.segments import Classify, Maps, Segments
from lesion_core.inference.unlike import Unlikeness
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.pixels.datasets import Stacked
from lesion_core.pixels.harmonize import harmonize_image
from lesion_core.progress import say
from lesion_core.settings import SegmentationMethod
from lesion_core.settings.run import Run


def probabilities(
    segmenter: Segments, images: np.ndarray | Stacked, sizes: Sequence[tuple[int, int]], *, batch_size: int = 8
) -> Iterator[np.ndarray]:
    """Lesion probability maps at the model's input size, batch by batch, under the run's own prompt.

    Args:
        images: (N, S, S, 3) uint8 RGB, may be memory-mapped.
        sizes: (height, width) of the N images that they were resized from, in pixels.

    Returns:
        Of each batch float32 (B, S, S) in [0, 1], logits upsampled bilinearly before the sigmoid.

    Raises:
        RunError: the run needs clicks; at the call, before the first batch.
    """
    _ = segmenter.prompt
    starts = range(0, len(images), batch_size)
    batches = (slice(start, start + batch_size) for start in starts)
    return (segmenter.maps(np.asarray(images[batch]), sizes[batch]) for batch in batches)


def predict_folder(
    segmenter: Segments,
    images: Path,
    out: Path,
    *,
    classify: Classify | None = None,
    skip_broken: bool = False,
    extras: Extras = MASKS_ALONE,
    made_by: Mapping[str, str] | None = None,
    unlikeness: Unlikeness | None = None,
    expected: ExpectedDice | None = None,
    workers: int | None = 1,
) -> int:
    """Write for every image ``<image_id>.png`` (0 or 255, the image's own size) and one ``predictions.csv``.

    Its columns: ``area`` is the mask's share of the image, ``area_pixels`` its pixels; ``confidence`` see `confidence`,
    ``flip_disagreement`` see `flip_disagreement`; ``expected_dice`` is what ``confidence`` is worth on
    ``expected_dice_n`` validation images, blank where unlikeness is over 1; ``problem`` says why an image has no mask.

    Args:
        images: folder of images of any size, and its subfolders.
        out: created if missing; ``predictions.csv`` is written last, so it stands only beside complete masks.
        classify: returns columns of an image, see `image_classifier`.
        skip_broken: images that cannot be read get a row without a mask, in place of the error.
        extras: what is wanted beside masks.
        made_by: SHA-256 of the files that decide a row, by kind; a killed run goes on where they and ``extras`` are
            the same. None: nothing is taken up, nothing kept for it.
        unlikeness: for the column of that name; images over 1 are told.
        expected: for the columns ``expected_dice`` and ``expected_dice_n``.
        workers: images at a time, see ``in_threads``; what is written does not depend on it.

    Returns:
        The number of masks.

    Raises:
        ImageError: an image cannot be read (all are looked at first), or ``out`` lies in ``images``.
        RunError: the run needs clicks.
    """
    _ = segmenter.prompt
    paths, out = list_images(images), Path(out)
    if out.resolve().is_relative_to(Path(images).resolve()):
        raise ImageError(
            "The masks would lie among the images",
            file=out,
            remedy="give another folder with --out",
        )
    own = {"unlikeness": unlikeness is not None, "expected": None if expected is None else expected.stored()}
    made_with = {"files": made_by, **own, **asdict(extras)}
    finished = None if made_by is None else FinishedRows(out, made_with)
    done = {} if finished is None else finished.of(paths)
    broken = broken_images(
        {name: path for name, path in paths.items() if name not in done}, skip=skip_broken, workers=workers
    )
    out.mkdir(parents=True, exist_ok=True)
    if finished is not None:
        finished.begin()
    (out / "predictions.csv").unlink(missing_ok=True)

    def row_of_image(name: str) -> dict[str, Any]:
        if name in broken:
            return {"image_id": name, "image": paths[name].name, "problem": broken[name]}
        if name in done:
            return done[name]
        return _predict_one(segmenter, name, paths[name], out, classify, extras, unlikeness, expected)

    rows: list[dict[str, Any]] = []
    for row in in_threads(row_of_image, list(paths), "predict", workers):
        rows.append(row)
        name = row["image_id"]
        if finished is not None and name not in broken and name not in done:
            finished.add(paths[name], row)
    write_csv(out / "predictions.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)
    if finished is not None:
        finished.path.unlink()
    if strange := sum(row.get("unlikeness", 0) > 1 for row in rows):
        say(f"{strange} images are unlike those of training (unlikeness over 1): do not rely on their masks")
    say(f"{len(rows) - len(broken)} masks, {len(broken)} images left out; for research only, not for diagnosis")
    return len(rows) - len(broken)


@dataclass(frozen=True)
class Found:
    """What a segmenter makes of an image of (H, W) pixels.

    Attributes:
        pixels: uint8 (S, S, 3), harmonized.
        probability: float32 (S, S).
        native: float32 (H, W), the same at the image's size.
        mask: bool (H, W), refined.
    """

    pixels: np.ndarray
    probability: np.ndarray
    native: np.ndarray
    mask: np.ndarray


def look(segmenter: Segments, original: np.ndarray, maps: Maps | None = None) -> Found:
    """Segment an image uint8 (H, W, 3); ``maps`` stand for the segmenter's own, e.g. under a person's prompts."""
    (height, width), run = original.shape[:2], segmenter.run
    trained_on = cast(SegmentationMethod, run.spec).train_on
    pixels = harmonize_image(original, segmenter.size, segmenter.reference, run.harmonization, trained_on)
    probability = (maps or segmenter.maps)(pixels[None], [(height, width)])[0]
    native = upsample(probability, height, width)
    return Found(pixels, probability, native, refine_mask(native, run.extraction))


def row_of(name: str, image: Decoded, found: Found, run: Run) -> dict[str, Any]:
    """An image's columns of predictions.csv that every run has."""
    height, width = found.mask.shape
    return {
        "image_id": name,
        "width": width,
        "height": height,
        "conversions": "; ".join(f"{kind}: {detail}" for kind, detail in image.repairs),
        "area": round(float(found.mask.mean()), 6),
        "area_pixels": int(found.mask.sum()),
        "components": count_components(found.native >= run.extraction.threshold),
        "confidence": round(confidence(found.native, found.mask), 6),
    }


def _predict_one(
    segmenter: Segments,
    name: str,
    path: Path,
    out: Path,
    classify: Classify | None,
    extras: Extras,
    unlikeness: Unlikeness | None,
    expected: ExpectedDice | None,
) -> dict[str, Any]:
    """Write an image's mask and what else is wanted; its row."""
    image = inspect_image(path)
    found, size = look(segmenter, image.pixels), image.pixels.shape[:2]
    write_image(out / f"{name}.png", found.mask.astype(np.uint8) * 255)
    extras.write(out / name, image.pixels, found.native, found.mask)
    row: dict[str, Any] = {"image_id": name, "image": path.name, "problem": "", "mask": f"{name}.png"}
    row |= row_of(name, image, found, segmenter.run)
    if unlikeness is not None:
        row["unlikeness"] = round(unlikeness.of(found.pixels), 4)
    if expected is not None:
        strange = row.get("unlikeness", 0) > 1
        row["expected_dice"] = "" if strange else round(expected.of(row["confidence"]), 4)
        row["expected_dice_n"] = "" if strange else expected.n
    if extras.mm_per_pixel is not None:
        row["area_mm2"] = round(float(found.mask.sum()) * extras.mm_per_pixel**2, 4)
    if extras.flips:
        disagreement = flip_disagreement(segmenter, found.pixels, found.probability, size)
        row["flip_disagreement"] = round(disagreement, 6)
    return row if classify is None else row | classify(name, image.pixels, found.probability)


def flip_disagreement(segmenter: Segments, pixels: np.ndarray, probability: np.ndarray, size: tuple[int, int]) -> float:
    """1 - mean Dice of a mask with those of the image flipped left to right, upside down, and both, flipped back.

    Args:
        pixels: uint8 (S, S, 3), harmonized.
        probability: float32 (S, S), of the image as it is.
        size: (height, width) of the image in pixels.

    Returns:
        0 (all agree) to 1; masks are thresholded at the model's size, not refined.
    """
    flips = ((slice(None), slice(None, None, -1)), (slice(None, None, -1),), (slice(None, None, -1),) * 2)
    flipped = np.stack([pixels[flip] for flip in flips])
    maps = segmenter.maps(flipped, [size] * len(flips))
    threshold = segmenter.run.extraction.threshold
    mask = probability >= threshold
    agree = [float(dice(confusion(one[flip] >= threshold, mask))) for one, flip in zip(maps, flips, strict=True)]
    return 1.0 - float(np.mean(agree))
