"""The scoring stage of explanations: maps of test images against the true masks, which it opens to do so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lesion_core.acquire.images import read_mask
from lesion_core.catalog.entries import files_of
from lesion_core.errors import SettingsError
from lesion_core.explain.cam import classifier_cam, segmenter_cam
from lesion_core.explain.frame import to_image_size
from lesion_core.explain.pointing import centre_prior, energy_inside, pointing_hit
from lesion_core.explain.rollout import classifier_rollout, segmenter_rollout
from lesion_core.files import atomic_path, write_csv
from lesion_core.inference.examples import masks_of
from lesion_core.models.classifier import lesion_box
from lesion_core.models.trainable import to_input, to_mask_input
from lesion_core.models.trained import load_classifier, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.resize import resize_masks
from lesion_core.progress import track
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, ClassificationMethod, Explain, Scoring
from lesion_core.settings.run import Run

COLUMNS = (
    "run_id",
    "method",
    "role",
    "dataset",
    "image_id",
    "lesion_id",
    "explainer",
    "target",
    "pointing_game",
    "energy_inside",
    "mask_share",
)
BATCH = 8
PRIOR_SIZE = 64
EXAMPLE_SIDE = 192
Maps = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """One run that is explained: its folder and settings, where results lie, and how; see `explain_run`."""

    run_dir: Path
    run: Run
    layout: Layout
    explain: Explain
    scoring: Scoring
    device: str


def explain_run(
    run_dir: Path, run: Run, root: Path, explain: Explain, scoring: Scoring, out: Path, *, device: str = "cpu"
) -> None:
    """Score where a run looks, on test images with a true mask; of a joint run, its classifier.

    Args:
        run_dir: the run's folder. run: its settings. root: ``results/<profile>``.
        explain: how many images, tolerance, prior. scoring: which datasets.
        out: ``explain/<run_id>.csv``; beside it, ``.npz`` with a few images, masks and maps for the figure.

    Raises:
        SettingsError: the run's model has no map to explain.
    """
    layout = Layout(root)
    job = Job(run_dir, run, layout, explain, scoring, device)
    rows: list[dict[str, Any]] = []
    examples: dict[str, np.ndarray] = {}
    datasets = scoring.segmentation_on if run.task == "segmentation" else scoring.classification_on
    for dataset in sorted(datasets):
        masks = files_of(layout, dataset, "mask_path")
        if masks:
            _explain_dataset(job, dataset, masks, rows, examples)
    rows.sort(key=lambda row: (row["dataset"], row["explainer"], row["image_id"]))
    with atomic_path(out.with_suffix(".npz")) as partial:
        np.savez(partial, **examples)  # type: ignore[arg-type]
    write_csv(out, COLUMNS, rows)


def chosen_rows(data: Harmonized, masks: dict[str, Path], dataset: str, explain: Explain) -> np.ndarray:
    """At most ``explain.images`` test rows with a mask, drawn by name, ascending."""
    rows = np.array([row for row in data.rows("test") if data.index[row]["image_id"] in masks], dtype=np.int64)
    if len(rows) > explain.images:
        rows = np.sort(generator(explain.seed, "explain", dataset).choice(rows, explain.images, replace=False))
    return rows


def _explain_dataset(
    job: Job, dataset: str, masks: dict[str, Path], rows: list[dict[str, Any]], examples: dict[str, np.ndarray]
) -> None:
    run, explain = job.run, job.explain
    role, made = ("segmenter", _segmenter_maps) if run.task == "segmentation" else ("classifier", _classifier_maps)
    done = 0
    for record, pixels, maps, box, target in track(made(job, dataset, masks), f"explain {run.method} on {dataset}"):
        truth = read_mask(masks[record["image_id"]], (record["height"], record["width"]))
        if not truth.any():
            continue  # there is nothing to point at
        maps = {**maps, "centre_prior": centre_prior(PRIOR_SIZE, explain.prior_sigma)}
        placed = {name: to_image_size(values, truth.shape, box) for name, values in maps.items()}
        for name, values in placed.items():
            rows.append(
                {
                    "run_id": run.run_id,
                    "method": run.method,
                    "role": role,
                    "dataset": dataset,
                    "image_id": record["image_id"],
                    "lesion_id": record["lesion_id"] or "",
                    "explainer": name,
                    "target": target,
                    "pointing_game": pointing_hit(values, truth, explain.tolerance),
                    "energy_inside": energy_inside(values, truth),
                    "mask_share": float(truth.mean()),
                }
            )
        if done < explain.examples:
            _keep_example(examples, f"{dataset}/{record['image_id']}", pixels, truth, placed)
            done += 1


def _keep_example(
    examples: dict[str, np.ndarray], name: str, pixels: np.ndarray, truth: np.ndarray, placed: Maps
) -> None:
    side = (EXAMPLE_SIDE, EXAMPLE_SIDE)
    examples[f"{name}/image"] = cv2.resize(pixels, side, interpolation=cv2.INTER_AREA)
    examples[f"{name}/mask"] = cv2.resize(truth.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)
    for explainer, values in placed.items():
        top = float(values.max())
        shares = cv2.resize(values, side, interpolation=cv2.INTER_AREA) / (top if top > 0 else 1.0)
        examples[f"{name}/{explainer}"] = np.round(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)


Explained = Iterator[tuple[dict[str, Any], np.ndarray, Maps, np.ndarray | None, str]]


def _segmenter_maps(job: Job, dataset: str, masks: dict[str, Path]) -> Explained:
    """(index record, pixels, explainer -> map (g, g), box, target) of each chosen test image."""
    loaded = load_segmenter(job.run_dir, device=job.device)
    data = Harmonized.open(job.layout.pixels(loaded.run.pixels, dataset, loaded.size))
    chosen = chosen_rows(data, masks, dataset, job.explain)
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        images = to_input(data.images[batch], job.device)
        maps = {"grad_cam": segmenter_cam(loaded.model, images)[0], "rollout": segmenter_rollout(loaded.model, images)}
        arrays = {name: part.cpu().numpy() for name, part in maps.items() if part is not None}
        for place, row in enumerate(batch):
            own = {name: part[place] for name, part in arrays.items()}
            yield data.index[row], data.images[int(row)], own, None, "lesion"


def _classifier_maps(job: Job, dataset: str, masks: dict[str, Path]) -> Explained:
    """As `_segmenter_maps`; the box is that of the crop which the encoder sees, None where it sees all."""
    loaded = load_classifier(job.run_dir, device=job.device)
    if not isinstance(loaded.model, torch.nn.Module):
        raise SettingsError(f"{job.run.method} is no network", remedy="take it out of explain.methods")
    data = Harmonized.open(job.layout.pixels(loaded.run.pixels, dataset, loaded.size))
    chosen = chosen_rows(data, masks, dataset, job.explain)
    soft = masks_of(
        loaded, job.run_dir, job.run, job.layout, data, chosen, batch_size=job.scoring.batch_size, device=job.device
    )
    # the encoder of a dual network sees the whole image, whatever its other one sees
    spec = loaded.run.spec
    cropped = (
        isinstance(spec, ClassificationMethod)
        and spec.model.input == "crop"
        and not hasattr(loaded.model, "image_encoder")
    )
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        images = to_input(data.images[batch], job.device)
        shape = (len(batch), 1, *images.shape[2:])
        given = torch.zeros(shape, device=job.device)
        if soft is not None:
            resized = resize_masks(np.asarray(soft[start : start + BATCH]), images.shape[-1])
            given = to_mask_input(resized, job.device)
        known = loaded.metadata([data.index[row] for row in batch])
        metadata = None if known is None else torch.from_numpy(known).to(job.device)
        cam, logits = classifier_cam(loaded.model, images, given, metadata)
        maps = {"grad_cam": cam, "rollout": classifier_rollout(loaded.model, images, given, metadata)}
        arrays = {name: part.cpu().numpy() for name, part in maps.items() if part is not None}
        boxes = None
        if cropped:
            boxes = lesion_box(given, loaded.run.extraction.crop_margin).cpu().numpy() / images.shape[-1]
        answers = logits.argmax(dim=1).tolist()
        for place, row in enumerate(batch):
            own = {name: part[place] for name, part in arrays.items()}
            box = None if boxes is None else boxes[place]
            yield data.index[row], data.images[int(row)], own, box, CLASSES[answers[place]]
