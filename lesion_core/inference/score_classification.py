"""The scoring stage of classification: class probabilities of test images into the score store.

A temperature is fitted to the validation images of the run's own training datasets and kept in every row: calibrated
probabilities are softmax(log p / T), so both kinds can be computed from the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lesion_core.files import write_json
from lesion_core.inference.classify import class_probabilities
from lesion_core.inference.examples import labelled_examples
from lesion_core.inference.identity import identity
from lesion_core.metrics.calibration import ece, fit_temperature, log_probabilities, softmax
from lesion_core.models.trained import load_classifier
from lesion_core.progress import say
from lesion_core.scores import ClassificationScore, Probabilities, write_scores
from lesion_core.settings import CLASSES, ClassificationMethod, JointMethod, Scoring
from lesion_core.settings.run import Run

# (dataset, split) -> index records, probabilities (n, 7), mask flags; None where the run cannot be scored there
Predict = Callable[[str, str], "tuple[list[dict[str, Any]], np.ndarray, list[str]] | None"]


def score_classification(
    run_dir: Path, run: Run, root: Path, scoring: Scoring, out: Path, *, device: str = "cpu"
) -> None:
    """Score a classification or joint run on the labelled test images of every dataset that is asked for.

    Args:
        run_dir: the run's folder.
        run: its settings.
        root: ``results/<profile>``.
        scoring: which datasets.
        out: one row per dataset and image. A run that is given true masks is not scored where none are published.
        device: where the model is.

    Raises:
        MaskError: the model looks at masks and an image has none.
    """
    predict = predictor(run_dir, run, root, scoring, device=device)
    write_predictions(
        run, predict, cast(ClassificationMethod | JointMethod, run.spec).train_on, scoring.classification_on, out
    )


def predictor(
    run_dir: Path,
    run: Run,
    root: Path,
    scoring: Scoring,
    *,
    device: str = "cpu",
    views: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
) -> Predict:
    """A run's class probabilities of a dataset's split.

    Args:
        run_dir, run, root, scoring, device: see ``score_classification``.
        views: changes of a batch (N, S, S, ...) whose probabilities are averaged; none: the images as they are.
    """
    loaded = load_classifier(run_dir, device=device)

    def predict(dataset: str, split: str) -> tuple[list[dict[str, Any]], np.ndarray, list[str]] | None:
        found = labelled_examples(
            loaded, run_dir, run, root, dataset, split, batch_size=scoring.batch_size, device=device
        )
        if found is None:
            return None
        metadata = loaded.metadata(found.records)
        parts = [
            class_probabilities(
                loaded.model, view(found.images), None if found.masks is None else view(found.masks), metadata
            )
            for view in views or (lambda array: array,)
        ]
        return found.records, np.asarray(np.mean(parts, axis=0, dtype=np.float64)), found.flags()

    return predict


def write_predictions(
    run: Run, predict: Predict, fitted_on: Sequence[str], scored_on: Sequence[str], out: Path
) -> None:
    """Fit the temperature on validation images, score the test images, write the rows.

    Args:
        run: whose scores they are.
        predict: probabilities of a dataset's split.
        fitted_on: datasets whose validation images the temperature is fitted to.
        scored_on: datasets whose test images are scored.
        out: the score file; ``<stem>_calibration.json`` beside it tells of the fit.
    """
    temperature = _fit(run, predict, fitted_on, out)
    rows: list[ClassificationScore] = []
    for dataset in sorted(scored_on):
        found = predict(dataset, "test")
        if found is None:
            say(f"{run.method} is given true masks and is not scored on {dataset}, which publishes none")
            continue
        records, probabilities, flags = found
        say(f"score {run.method} on {dataset}: {len(records)} test images")
        for record, probability, flag in zip(records, probabilities, flags, strict=True):
            shares = {f"p_{name}": float(value) for name, value in zip(CLASSES, probability, strict=True)}
            rows.append(
                {
                    **identity(run, dataset, record),
                    "label": record["label"],
                    "predicted": CLASSES[int(np.argmax(probability))],
                    **cast(Probabilities, shares),
                    "temperature": temperature,
                    "mask_flag": flag,
                }
            )
    write_scores(out, "classification", rows)


def _fit(run: Run, predict: Predict, datasets: Sequence[str], out: Path) -> float:
    """The temperature of the validation images, told in a file beside the scores."""
    found = [predict(dataset, "val") for dataset in sorted(datasets)]
    probabilities = np.concatenate([part[1] for part in found if part is not None])
    labels = [record["label"] for part in found if part is not None for record in part[0]]
    truth = np.array([CLASSES.index(label) for label in labels], dtype=np.int64)
    logits = log_probabilities(probabilities)
    temperature = fit_temperature(truth, logits)
    write_json(
        out.with_name(f"{out.stem}_calibration.json"),
        {
            "run_id": run.run_id,
            "temperature": temperature,
            "fitted_on": sorted(datasets),
            "validation_images": len(truth),
            "validation_ece_raw": ece(truth, probabilities),
            "validation_ece_calibrated": ece(truth, softmax(logits, temperature)),
        },
    )
    return temperature
