"""Accuracy and calibration of a classifier on corrupted images, from the file to the class.

Each image is corrupted at its own size, then harmonized, segmented (where the run uses pseudo-masks or is joint)
and classified: a blurred border harms the mask, and the mask the class, as it would in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from lesion_core.acquire.images import read_image
from lesion_core.catalog.entries import files_of
from lesion_core.errors import SettingsError
from lesion_core.files import write_csv
from lesion_core.inference.classify import class_probabilities
from lesion_core.inference.predict import probabilities
from lesion_core.inference.robustness_table import COLUMNS, METRICS
from lesion_core.metrics.calibration import brier, ece
from lesion_core.metrics.classification import scores
from lesion_core.models.trained import LoadedClassifier, LoadedSegmenter, load_classifier, load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.corruptions import CORRUPTIONS
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.harmonize import harmonize_image
from lesion_core.progress import track
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, ClassificationMethod, Robustness
from lesion_core.settings.run import Run

BATCH = 16
CLEAN = "none"


def measure_robustness(
    run_dir: Path, run: Run, root: Path, datasets: list[str], settings: Robustness, out: Path, *, device: str = "cpu"
) -> None:
    """Write one row per dataset, corruption and strength; strength 0 is the images as they are.

    Args:
        run_dir, run: a classification or joint run.
        datasets: whose labelled test images are corrupted; at most ``settings.images`` of each.
        settings: corruptions with their amounts.
        out: the CSV.

    Raises:
        SettingsError: the run is given true or shuffled masks, which no corruption reaches.
    """
    loaded, segmenter = load_classifier(run_dir, device=device), _segmenter(run_dir, run, Path(root), device)
    layout = Layout(Path(root))
    rows: list[dict[str, Any]] = []
    for dataset in sorted(datasets):
        data = Harmonized.open(layout.pixels(loaded.run.pixels, dataset, loaded.size))
        paths = files_of(layout, dataset, "path")
        chosen = _chosen(data.rows("test", with_label=True), settings.images, dataset)
        records = [data.index[row] for row in chosen]
        found: dict[tuple[str, int], list[np.ndarray]] = {}
        starts = range(0, len(records), BATCH)
        for start in track(starts, f"robustness of {run.method} on {dataset}", total=len(starts)):
            batch = records[start : start + BATCH]
            files = [paths[record["image_id"]] for record in batch]
            for condition, originals in _corrupted(files, [record["image_id"] for record in batch], settings):
                values = _classify(loaded, segmenter, originals, batch)
                found.setdefault(condition, []).append(values)
        truth = np.array([CLASSES.index(record["label"]) for record in records], dtype=np.int64)
        identity = {"run_id": run.run_id, "method": run.method, "seed": run.seed, "dataset": dataset, "n": len(records)}
        amounts = dict[str, list[float]](settings.corruptions.items())
        for (kind, strength), parts in found.items():
            amount = amounts[kind][strength - 1] if strength else 0.0
            told = {"corruption": kind, "strength": strength, "amount": f"{amount:g}"}
            rows.append({**identity, **told, **_metrics(truth, np.concatenate(parts))})
    write_csv(out, COLUMNS, rows)


def _segmenter(run_dir: Path, run: Run, root: Path, device: str) -> LoadedSegmenter | None:
    if run.task == "joint":
        return load_segmenter(run_dir, device=device)
    spec = cast(ClassificationMethod, run.spec)
    if spec.masks == "true" or spec.mask_order != "own":
        raise SettingsError(
            f"{run.method} is given masks that no corruption reaches", remedy="take it out of robustness.methods"
        )
    if run.segmenter_run is None:
        return None
    return load_segmenter(Layout(root).run("segmentation", run.segmenter_run), device=device)


def _chosen(rows: np.ndarray, most: int | None, dataset: str) -> np.ndarray:
    if most is None or len(rows) <= most:
        return rows
    return np.sort(generator("robustness", dataset).choice(rows, most, replace=False))


def _corrupted(
    files: list[Path], image_ids: list[str], settings: Robustness
) -> Iterator[tuple[tuple[str, int], list[np.ndarray]]]:
    """(corruption, strength) -> images, uint8 (H, W, 3) each; first the clean ones."""
    clean = [read_image(path) for path in files]
    yield (CLEAN, 0), clean
    for kind in sorted(settings.corruptions):
        for strength, amount in enumerate(settings.corruptions[kind], start=1):
            yield (
                (kind, strength),
                [
                    CORRUPTIONS[kind](image, amount, generator("robustness", kind, image_id))
                    for image, image_id in zip(clean, image_ids, strict=True)
                ],
            )


def _classify(
    loaded: LoadedClassifier,
    segmenter: LoadedSegmenter | None,
    originals: list[np.ndarray],
    records: list[dict[str, Any]],
) -> np.ndarray:
    def at(size: int, reference: np.ndarray | None, run: Run) -> np.ndarray:
        pairs = zip(originals, records, strict=True)
        return np.stack(
            [harmonize_image(image, size, reference, run.harmonization, [record["dataset"]]) for image, record in pairs]
        )

    masks = None
    if segmenter is not None and loaded.needs_masks:
        images = at(segmenter.size, segmenter.reference, segmenter.run)
        sizes = [original.shape[:2] for original in originals]
        maps = probabilities(segmenter, images, sizes, batch_size=len(images))
        masks = np.concatenate([np.round(part * 255).astype(np.uint8) for part in maps])
    images = at(loaded.size, loaded.reference, loaded.run)
    return class_probabilities(loaded.model, images, masks, loaded.metadata(records))


def _metrics(truth: np.ndarray, values: np.ndarray) -> dict[str, str]:
    found = {**scores(truth, values), "ece": ece(truth, values), "brier": brier(truth, values)}
    return {name: f"{found[name]:.6f}" for name in METRICS}
