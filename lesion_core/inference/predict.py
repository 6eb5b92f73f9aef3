"""Images to probability maps to masks: one path for scoring, pseudo-masks and ``lesion predict``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lesion_core.acquire.images import inspect_image, write_image
from lesion_core.errors import ImageError, RunError
from lesion_core.files import write_csv
from lesion_core.inference.one_image import Classify
from lesion_core.inference.own_images import broken_images, list_images
from lesion_core.inference.refine import count_components, refine_mask, upsample
from lesion_core.models.sam.prompts import automatic_prompts
from lesion_core.models.trainable import finish, to_input
from lesion_core.models.trained import LoadedSegmenter
from lesion_core.pixels.datasets import Stacked
from lesion_core.pixels.harmonize import harmonize_image
from lesion_core.progress import say, track
from lesion_core.settings import SegmentationMethod
from lesion_core.settings.run import Run


def unaided_prompt(run: Run) -> str:
    """What a segmentation run is prompted with outside scoring: ``none``, or ``automatic`` where it learnt with boxes.

    Raises:
        RunError: it learnt with clicks, which nobody places here.
    """
    model = cast(SegmentationMethod, run.spec).model
    prompt = model.unaided_prompt
    if prompt is None:
        raise RunError(
            f"{run.run_id} learnt to segment from clicks ({model.prompt}), and predict cannot provide clicks",
            remedy="choose a run whose model.prompt is none or oracle_box",
        )
    return prompt


def probabilities(
    segmenter: LoadedSegmenter,
    images: np.ndarray | Stacked,
    sizes: Sequence[tuple[int, int]],
    *,
    batch_size: int = 8,
    device: str = "cpu",
) -> Iterator[np.ndarray]:
    """Lesion probability maps at the model's input size, batch by batch, under the run's ``unaided_prompt``.

    Args:
        images: (N, S, S, 3) uint8 RGB, may be memory-mapped.
        sizes: (height, width) of the N images that they were resized from, in pixels.

    Returns:
        Of each batch float32 (B, S, S) in [0, 1], logits upsampled bilinearly before the sigmoid.

    Raises:
        RunError: see ``unaided_prompt``; at the call, before the first batch.
    """
    prompt = unaided_prompt(segmenter.run)
    starts = range(0, len(images), batch_size)
    batches = (slice(start, start + batch_size) for start in starts)
    return (_maps(segmenter, to_input(images[batch], device), sizes[batch], prompt) for batch in batches)


def _maps(
    segmenter: LoadedSegmenter, images: torch.Tensor, sizes: Sequence[tuple[int, int]], prompt: str
) -> np.ndarray:
    model, size = segmenter.facing(sizes), images.shape[-1]
    with torch.inference_mode():
        if prompt == "none":
            return finish(model(images, None), size)
        embeddings = model.encode(images)
        unprompted = finish(model.decode(embeddings, None), size)
        boxes = automatic_prompts(unprompted, threshold=segmenter.run.extraction.threshold)
        return finish(model.decode(embeddings, boxes), size)


def predict_folder(
    segmenter: LoadedSegmenter,
    images: Path,
    out: Path,
    *,
    classify: Classify | None = None,
    device: str = "cpu",
    skip_broken: bool = False,
) -> int:
    """Write for every image ``<image_id>.png`` (0 or 255, the image's own size) and one ``predictions.csv``.

    Its columns: ``area`` is the mask's share of the image, ``area_pixels`` its pixels; ``confidence`` see `confidence`;
    ``problem`` says why an image has no mask.

    Args:
        images: folder of images of any size, and its subfolders.
        out: created if missing; ``predictions.csv`` is written last, so it stands only beside complete masks.
        classify: returns columns of an image, see `image_classifier`.
        skip_broken: images that cannot be read get a row without a mask, in place of the error.

    Returns:
        The number of masks.

    Raises:
        ImageError: an image cannot be read (all are looked at first), or ``out`` lies in ``images``.
        RunError: the run needs clicks.
    """
    unaided_prompt(segmenter.run)
    paths, out = list_images(images), Path(out)
    if out.resolve().is_relative_to(Path(images).resolve()):
        raise ImageError(
            "The masks would lie among the images",
            file=out,
            remedy="give another folder with --out",
        )
    broken = broken_images(paths, skip=skip_broken)
    out.mkdir(parents=True, exist_ok=True)
    (out / "predictions.csv").unlink(missing_ok=True)
    trained_on = cast(SegmentationMethod, segmenter.run.spec).train_on
    rows: list[dict[str, Any]] = []
    for name, path in track(paths.items(), "predict", len(paths)):
        if name in broken:
            rows.append({"image_id": name, "image": path.name, "problem": broken[name]})
            continue
        found = inspect_image(path)
        original = found.pixels
        height, width = original.shape[:2]
        pixels = harmonize_image(
            original,
            segmenter.size,
            segmenter.reference,
            segmenter.run.harmonization,
            trained_on,
        )
        probability = next(probabilities(segmenter, pixels[None], [(height, width)], device=device))[0]
        native = upsample(probability, height, width)
        mask = refine_mask(native, segmenter.run.extraction)
        write_image(out / f"{name}.png", mask.astype(np.uint8) * 255)
        rows.append(
            {
                "image_id": name,
                "image": path.name,
                "problem": "",
                "mask": f"{name}.png",
                "width": width,
                "height": height,
                "conversions": "; ".join(f"{kind}: {detail}" for kind, detail in found.repairs),
                "area": round(float(mask.mean()), 6),
                "area_pixels": int(mask.sum()),
                "components": count_components(native >= segmenter.run.extraction.threshold),
                "confidence": round(confidence(native, mask), 6),
                **({} if classify is None else classify(name, original, probability)),
            }
        )
    write_csv(out / "predictions.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)
    say(f"{len(rows) - len(broken)} masks, {len(broken)} images left out; for research only, not for diagnosis")
    return len(rows) - len(broken)


def confidence(probability: np.ndarray, mask: np.ndarray) -> float:
    """Mean of p inside the mask and 1 - p outside, each side counting half; 0.5 where the mask is empty or full."""
    if not mask.any() or mask.all():
        return 0.5
    return float(0.5 * probability[mask].mean() + 0.5 * (1.0 - probability[~mask]).mean())
