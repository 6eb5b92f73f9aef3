"""The scoring stage of segmentation: it opens test masks, and stores the true outline beside the predicted one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lesion_core.acquire.images import encode_image, read_mask
from lesion_core.catalog.entries import files_of
from lesion_core.errors import MaskError
from lesion_core.files import atomic_path
from lesion_core.inference.border_distance import border_distances
from lesion_core.inference.identity import identity
from lesion_core.inference.refine import refine_mask, upsample
from lesion_core.metrics.segmentation import confusion, scores
from lesion_core.models.automatic_masks import automatic_lesions
from lesion_core.models.sam import prompts as make
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import finish, to_input
from lesion_core.models.trained import LoadedSegmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.progress import track
from lesion_core.scores import Score, SegmentationScore, write_scores
from lesion_core.settings import Scoring, SegmentationModel
from lesion_core.settings.run import Run

ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def score_segmentation(
    segmenter: LoadedSegmenter,
    run: Run,
    root: Path,
    scoring: Scoring,
    out_scores: Path,
    out_masks: Path,
    *,
    device: str = "cpu",
    images: set[tuple[str, str]] | None = None,
) -> None:
    """Score a run on the test images of every dataset that is asked for.

    Args:
        segmenter: the loaded model.
        run: whose scores they are (for a joint run, not the segmenter's own run).
        root: ``results/<profile>``.
        scoring: datasets, prompts, jitter, refinement.
        out_scores: one row per image, prompt and resolution: ``native`` (the image's own size, as the challenge
            scores) and ``model`` (the model's square input). SAM runs are scored under every prompt, others without.
        out_masks: zip of the native masks under the prompt of the training, ``<dataset>/<image_id>.png``, and of the
            true ones, ``truth/<dataset>/<image_id>.png``: figures and page draw these and open no test mask themselves.
        device: where the model is.
        images: (dataset, image_id) to score, with those that share their batches; None scores all.

    Raises:
        MaskError: a test image has no mask.
    """
    prompts = prompts_of(segmenter.settings, scoring)
    rows: list[SegmentationScore] = []
    with atomic_path(out_masks) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as masks:
        for dataset in sorted(scoring.segmentation_on):
            folder = Layout(root).pixels(segmenter.run.pixels, dataset, segmenter.size)
            truths = files_of(Layout(root), dataset, "mask_path")
            for record, truth, maps in track(
                _predictions(segmenter, folder, truths, dataset, run.seed, prompts, scoring, device, images),
                f"score {run.method} on {dataset}",
            ):
                image = identity(run, dataset, record)
                for prompt, probability in maps.items():
                    native, scored = _score_one(probability, truth, segmenter, scoring)
                    rows.extend(_row(image, prompt, *item, truth.shape) for item in scored)
                    if prompt == segmenter.settings.prompt:
                        for name, mask in (("", native), ("truth/", truth)):
                            info = zipfile.ZipInfo(f"{name}{dataset}/{record['image_id']}.png", ZIP_DATE)
                            masks.writestr(info, encode_image(mask.astype(np.uint8) * 255))
    write_scores(out_scores, "segmentation", rows)


def prompts_of(model: SegmentationModel, scoring: Scoring) -> list[str]:
    """The prompts a model is scored under, ``none`` first: masks and the automatic box rest on it.

    What takes no prompt is scored without; SAM under ``scoring.prompts`` and the prompt it was trained with, and where
    nothing was trained under ``scoring.zero_shot_prompts`` too.
    """
    if model.kind != "sam":
        return ["none"]
    wanted = {*scoring.prompts, model.prompt, *(scoring.zero_shot_prompts if model.adapter == "none" else ())}
    return sorted(wanted, key=lambda name: (name != "none", name))


def _predictions(
    segmenter: LoadedSegmenter,
    folder: Path,
    truths: dict[str, Path],
    dataset: str,
    seed: int,
    prompts: list[str],
    scoring: Scoring,
    device: str,
    images_wanted: set[tuple[str, str]] | None = None,
) -> Iterator[tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]]:
    """Test images one by one: index record, native truth (bool), and prompt -> probability map (S, S)."""
    data = Harmonized.open(folder)
    test = data.rows("test")
    missing = [data.index[row]["image_id"] for row in test if data.index[row]["image_id"] not in truths]
    if missing:
        raise MaskError(
            f"Test images of {dataset} have no mask",
            file=folder / "index.csv",
            ids=missing,
            remedy="add their masks, or take the dataset out of scoring.segmentation_on",
        )
    size = segmenter.size
    for start in range(0, len(test), scoring.batch_size):
        batch = test[start : start + scoring.batch_size]
        records = [data.index[row] for row in batch]
        # Whole batches only: their size decides the last bits of a sum.
        if images_wanted is not None and not any((dataset, r["image_id"]) in images_wanted for r in records):
            continue
        truth = [read_mask(truths[record["image_id"]], (record["height"], record["width"])) for record in records]
        images = to_input(data.images[batch], device)
        sizes = [(record["height"], record["width"]) for record in records]
        model = segmenter.facing(sizes)
        maps: dict[str, np.ndarray] = {}
        with torch.inference_mode():
            embeddings = model.encode(images) if segmenter.settings.kind == "sam" else None
            for prompt in prompts:
                if embeddings is None:
                    logits = model(images, None)
                elif prompt == "automatic_masks":
                    logits = _automatic_lesions(segmenter, sizes, embeddings, images, scoring)
                else:
                    decode = partial(model.decode, embeddings)
                    given = _prompts(prompt, truth, records, maps, seed, scoring, segmenter, decode, device, dataset)
                    logits = decode(given)
                maps[prompt] = finish(logits, size)
        for number, record in enumerate(records):
            yield record, truth[number], {prompt: maps[prompt][number] for prompt in prompts}


def _prompts(
    prompt: str,
    truth: list[np.ndarray],
    records: list[dict[str, Any]],
    maps: dict[str, np.ndarray],
    seed: int,
    scoring: Scoring,
    segmenter: LoadedSegmenter,
    decode: Callable[[Prompts], torch.Tensor],
    device: str,
    dataset: str,
) -> Prompts | None:
    """Prompts of one batch; ``automatic`` is the box around the unprompted prediction, ``oracle_*`` use the truth."""
    if prompt == "none":
        return None
    if prompt == "automatic":
        return make.automatic_prompts(maps["none"], threshold=segmenter.run.extraction.threshold)
    small = np.stack([model_size(mask, segmenter.size) for mask in truth])
    keys = [f"{dataset}/{record['image_id']}" for record in records]
    first = make.oracle_prompts(small, prompt, jitter=scoring.box_jitter, seed=seed, keys=keys).to(device)
    draws = make.click_draws(prompt, seed=seed, keys=keys)
    threshold = segmenter.run.extraction.threshold
    return make.click_session(first, small, draws, lambda given: finish(decode(given), segmenter.size) >= threshold)


def _automatic_lesions(
    segmenter: LoadedSegmenter,
    sizes: list[tuple[int, int]],
    embeddings: torch.Tensor,
    images: torch.Tensor,
    scoring: Scoring,
) -> torch.Tensor:
    """Logits (B, 1, s, s); image by image, since a frame is one image's and the grid's points are many."""
    each = zip(sizes, zip(embeddings.split(1), images.split(1), strict=True), strict=True)
    found = [automatic_lesions(segmenter.facing([size]), *one, scoring.automatic_masks) for size, one in each]
    return torch.cat(found)


def model_size(mask: np.ndarray, size: int) -> np.ndarray:
    """A native bool mask at the model's square size: True where at least half of a pixel is lesion."""
    return upsample(mask.astype(np.float32), size, size) >= 0.5


def _score_one(
    probability: np.ndarray, truth: np.ndarray, segmenter: LoadedSegmenter, scoring: Scoring
) -> tuple[np.ndarray, list[tuple[str, np.ndarray, np.ndarray]]]:
    """The mask at native size, and the pair of masks at each resolution."""
    extraction = segmenter.run.extraction

    def binary(map_: np.ndarray) -> np.ndarray:
        return refine_mask(map_, extraction) if scoring.refine else map_ >= extraction.threshold

    native = binary(upsample(probability, *truth.shape))
    small = model_size(truth, probability.shape[0])
    return native, [("native", native, truth), ("model", binary(probability), small)]


def _row(
    image: Score, prompt: str, resolution: str, mask: np.ndarray, truth: np.ndarray, shape: tuple[int, int]
) -> SegmentationScore:
    counts = confusion(mask, truth)
    measured = {name: float(value) for name, value in scores(counts).items()}
    hd95, surface = border_distances(mask, truth, shape)
    return {
        **image,
        "prompt": prompt,
        "resolution": resolution,
        "dice": measured["dice"],
        "iou": measured["iou"],
        "thresholded_iou": measured["thresholded_iou"],
        "sensitivity": measured["sensitivity"],
        "specificity": measured["specificity"],
        "accuracy": measured["accuracy"],
        "hd95": hd95,
        "surface_distance": surface,
        "tp": int(counts.tp),
        "fp": int(counts.fp),
        "fn": int(counts.fn),
        "tn": int(counts.tn),
    }
