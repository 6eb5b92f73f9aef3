"""Classes for single photographs of any size, with the probability map of a segmenter as mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.catalog.metadata import FIELDS
from lesion_core.errors import CatalogError
from lesion_core.files import read_csv, read_parquet
from lesion_core.progress import say
from lesion_core.settings import CLASSES

UNKNOWN: Mapping[str, Any] = dict.fromkeys(FIELDS)
SCORES = {"classification": "scores.parquet", "joint": "scores_classification.parquet"}

# a photograph's name without ending, its pixels uint8 (H, W, 3), its probability map float32 (S, S) -> columns
Classify = Callable[[str, np.ndarray, np.ndarray], dict[str, Any]]


def photograph_classifier(
    run_dir: Path, device: str = "cpu", *, metadata: Path | None = None, segmenter_run: str | None = None
) -> Classify:
    """What classifies a photograph as the scoring stage does: ``predicted``, ``p_<class>``, ``temperature`` and
    ``calibrated_<class>``.

    ``p_<class>`` are the network's own probabilities, those of the score store; ``calibrated_<class>`` are
    softmax(log p / temperature), with the temperature that scoring fitted to validation images; blank where the run was
    not scored.

    Args:
        run_dir: a classification or joint run's folder.
        device: where the model is.
        metadata: CSV with the columns image_id (the photograph's name without ending), age (years), sex and site, for
            a classifier that reads them; an empty cell, or no line: not known.
        segmenter_run: id of the run that makes the masks; it is told if the classifier learnt on another's.

    Raises:
        CatalogError: the metadata cannot be read, or an age is no number.
    """
    from lesion_core.inference.classify import class_probabilities
    from lesion_core.metrics.calibration import log_probabilities, softmax
    from lesion_core.models.trained import load_classifier
    from lesion_core.pixels.harmonize import harmonize_image
    from lesion_core.settings.run import Run

    loaded = load_classifier(run_dir, device=device)
    known = {} if metadata is None else read_metadata(metadata)
    temperature = fitted_temperature(run_dir)
    if temperature is None:
        say("the classifier was not scored, so it has no temperature: the columns calibrated_<class> stay blank")
    if metadata is None and loaded.metadata([UNKNOWN]) is not None:
        say("the classifier reads age, sex and site, and none were given (--metadata): they count as not known")
    run = Run.load(run_dir)
    learnt_on = run.run_id if run.task == "joint" else run.segmenter_run
    if loaded.needs_masks and learnt_on is not None and segmenter_run not in (None, learnt_on):
        say(f"the classifier learnt on masks of {learnt_on}; here it sees those of {segmenter_run}")

    def classify(name: str, photograph: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
        pixels = harmonize_image(
            photograph, loaded.size, loaded.reference, loaded.run.harmonization, loaded.run.spec.train_on
        )
        soft = np.round(probability * 255).astype(np.uint8)[None] if loaded.needs_masks else None
        values = class_probabilities(loaded.model, pixels[None], soft, loaded.metadata([known.get(name, UNKNOWN)]))
        calibrated = [""] * len(CLASSES)
        if temperature is not None:
            calibrated = [round(float(value), 6) for value in softmax(log_probabilities(values), temperature)[0]]
        return {
            "predicted": CLASSES[int(np.argmax(values[0]))],
            **{f"p_{label}": round(float(value), 6) for label, value in zip(CLASSES, values[0], strict=True)},
            "temperature": "" if temperature is None else round(temperature, 6),
            **{f"calibrated_{label}": value for label, value in zip(CLASSES, calibrated, strict=True)},
        }

    return classify


def fitted_temperature(run_dir: Path) -> float | None:
    """The temperature in a classification or joint run's scores; None where it was not scored.

    Raises:
        FormatError: the scores cannot be read.
    """
    from lesion_core.settings.run import Run

    path = Path(run_dir) / SCORES[Run.load(run_dir).task]
    values = read_parquet(path, ["temperature"])["temperature"].to_pylist() if path.is_file() else []
    return values[0] if values else None


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Age (float, years), sex and site by image id, None where not known.

    Raises:
        CatalogError: an age is no number, or an image stands twice.
        FormatError: the file is no CSV, or lacks a column.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in read_csv(path):
        name, cells = row["image_id"], {field: row[field].strip() or None for field in FIELDS}
        try:
            cells["age"] = None if cells["age"] is None else float(cells["age"])
        except ValueError as error:
            raise CatalogError("An age is no number", file=path, ids=[name], remedy="give years, or nothing") from error
        if name in found:
            raise CatalogError("An image stands twice", file=path, ids=[name], remedy="keep one of its lines")
        found[name] = cells
    return found
