"""Scores of methods that train nothing: test-time augmentation of a run, and an ensemble of seeds or methods.

They are methods of their own, with their own run ids and rows: a single model's rows never hold an average.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from lesion_core.errors import RunError
from lesion_core.inference.score_classification import predictor, write_predictions
from lesion_core.paths import Layout
from lesion_core.record.attempts import Attempts
from lesion_core.record.provenance import write_provenance
from lesion_core.settings import ClassificationMethod, DerivedMethod, Scoring
from lesion_core.settings.run import Run


def dihedral(turns: int, flipped: bool, batch: np.ndarray) -> np.ndarray:
    """One of the eight symmetries of a square on images (N, S, S, 3) or masks (N, S, S)."""
    turned = np.rot90(batch, turns, axes=(1, 2))
    return turned[:, :, ::-1] if flipped else turned


def _view(turns: int, flipped: bool) -> Any:
    return lambda batch: dihedral(turns, flipped, batch)


EIGHT_VIEWS = tuple(_view(turns, flipped) for flipped in (False, True) for turns in range(4))


def score_derived(run: Run, root: Path, scoring: Scoring, out: Path, *, device: str = "cpu") -> None:
    """Score a derived run; writes its settings, scores, calibration and provenance: see `predict_derived`."""
    attempts, out = Attempts(root), Path(out)
    run.save(out.parent)
    weights = predict_derived(run, root, scoring, out, device=device)
    write_provenance(out.parent, run, inputs=weights, device=device, attempts=attempts)


def predict_derived(run: Run, root: Path, scoring: Scoring, out: Path, *, device: str = "cpu") -> list[Path]:
    """Write a derived run's scores and calibration; returns the weights that they were computed with.

    ``tta`` averages the probabilities of the eight symmetries of image and mask; ``ensemble`` those of the source
    runs: the seeds of one method, or several methods' runs of one seed. The temperature is fitted to the averages of
    validation images.

    Args:
        run: ``run.source_runs`` are ids of classification runs.
        root: ``results/<profile>``.
        scoring: which datasets.
        out: ``runs/<place>/<run_id>/scores.parquet``.
        device: where the models are.

    Raises:
        RunError: a source run was not trained.
    """
    layout = Layout(Path(root))
    folders = [layout.run("classification", source) for source in run.source_runs]
    weights = [folder / "weights.safetensors" for folder in folders]
    if missing := [folder.name for folder, path in zip(folders, weights, strict=True) if not path.is_file()]:
        raise RunError("Source runs are not trained", file=layout.root / "runs", ids=missing, remedy="train them")
    sources = [Run.load(folder) for folder in folders]
    views = EIGHT_VIEWS if cast(DerivedMethod, run.spec).how == "tta" else ()
    members = [
        predictor(folder, source, layout.root, scoring, device=device, views=views)
        for folder, source in zip(folders, sources, strict=True)
    ]

    def predict(dataset: str, split: str) -> tuple[list[dict[str, Any]], np.ndarray, list[str]] | None:
        parts = [part for member in members if (part := member(dataset, split)) is not None]
        if len(parts) < len(members):
            return None
        records, _, flags = parts[0]
        # an image is flagged where any member saw it whole
        flags = [next((flag for flag in every if flag), "") for every in zip(*(part[2] for part in parts), strict=True)]
        return records, np.mean([part[1] for part in parts], axis=0), flags

    write_predictions(
        run, predict, cast(ClassificationMethod, sources[0].spec).train_on, scoring.classification_on, Path(out)
    )
    return weights
