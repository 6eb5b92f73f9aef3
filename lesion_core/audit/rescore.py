"""Scores and embeddings of a run made anew, for the audit: the one part of it that needs torch."""

from __future__ import annotations

import filecmp
import tempfile
from pathlib import Path

import numpy as np

from lesion_core.inference.score_classification import score_classification
from lesion_core.inference.score_derived import predict_derived
from lesion_core.inference.score_segmentation import score_segmentation
from lesion_core.models.trained import load_segmenter, starting_weights
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.seeding import make_deterministic
from lesion_core.settings import Scoring, SegmentationMethod
from lesion_core.settings.pretrained import weights_name
from lesion_core.settings.run import Run
from lesion_core.training.embeddings import EmbeddingCache


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


def reembed(root: Path, run_dir: Path, pick: np.random.Generator, device: str) -> tuple[Path | None, bool]:
    """A drawn embedding that a segmentation run learnt from, and whether its encoder gives the same bits; None: none.

    Those of another device lie elsewhere and are not found.
    """
    run = Run.load(run_dir)
    assert isinstance(run.spec, SegmentationMethod)
    make_deterministic(run.threads)
    loaded, layout = load_segmenter(run_dir, device=device), Layout(root)
    kept, weights = loaded.settings.embedding_cache, starting_weights(weights_name(loaded.settings), root / "weights")
    assert kept != "none"
    assert weights is not None
    cache = EmbeddingCache(layout.embeddings, loaded.model, weights, kept, device)
    for dataset in sorted(run.spec.train_on):
        data = Harmonized.open(layout.pixels(run.pixels, dataset, loaded.size))
        for row in pick.permutation(data.rows("train")):
            if (stored := cache.path(data.image(row))).is_file():
                with tempfile.TemporaryDirectory() as folder:
                    cache.write(data.image(row), Path(folder) / stored.name)
                    return stored, filecmp.cmp(Path(folder) / stored.name, stored, shallow=False)
    return None, True
