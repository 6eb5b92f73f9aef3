"""Scores of a run made anew, for the audit: the one part of it that needs torch."""

from __future__ import annotations

from pathlib import Path

from lesion_core.inference.score_classification import score_classification
from lesion_core.inference.score_derived import predict_derived
from lesion_core.inference.score_segmentation import score_segmentation
from lesion_core.models.trained import load_segmenter
from lesion_core.seeding import make_deterministic
from lesion_core.settings import Scoring
from lesion_core.settings.run import Run


def rescore(
    root: Path, run_dir: Path, kind: str, scoring: Scoring, images: set[tuple[str, str]], out: Path, device: str
) -> None:
    """Score ``images``, (dataset, image id), with the run in ``run_dir`` and write their rows to ``out``."""
    run = Run.load(run_dir)
    make_deterministic(run.threads)
    if kind == "classification":
        only = scoring.model_copy(update={"classification_on": sorted({dataset for dataset, _ in images})})
        if run.task == "derived":
            predict_derived(run, root, only, out, device=device)
        else:
            score_classification(run_dir, run, root, only, out, device=device)
        return
    only = scoring.model_copy(update={"segmentation_on": sorted({dataset for dataset, _ in images})})
    segmenter = load_segmenter(run_dir, device=device)
    score_segmentation(segmenter, run, root, only, out, out.with_suffix(".zip"), device=device, images=images)
