"""Training of a segmentation run; a frozen SAM and Otsu have nothing to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import Segmenter
from lesion_core.models.trained import starting_weights
from lesion_core.pixels.datasets import Harmonized, combine
from lesion_core.progress import say
from lesion_core.settings import SegmentationMethod
from lesion_core.settings.pretrained import weights_name
from lesion_core.settings.run import Run
from lesion_core.training.device import first_process
from lesion_core.training.embeddings import EmbeddingCache
from lesion_core.training.engine import FitResult
from lesion_core.training.history import write_history
from lesion_core.training.run import Job, fit_extra, parameter_counts, started
from lesion_core.training.segmae import STAGE_1, ReconstructionTask, SegMAETask
from lesion_core.training.segmentation_task import SegmentationTask


def train_run(run: Run, run_dir: Path, root: Path, device: str) -> None:
    """Train one segmentation run: writes settings.yaml, weights.safetensors, history.csv and provenance.json.

    The best epoch is the one with the highest validation Dice. With 0 epochs or nothing to train, the weights hold the
    reference histogram and the model's start. A run that was stopped goes on where its checkpoint stands.

    Args:
        run: its settings; ``run.spec`` is a SegmentationMethod.
        root: ``results/<profile>``; harmonized images and published weights are read from there.

    Raises:
        RunError: the harmonized data are incomplete, or training fails; see ``engine.fit``.
        SettingsError: the model's settings contradict each other.
        WeightsError: published weights are missing or do not fit.
    """
    spec = run.spec
    assert isinstance(spec, SegmentationMethod)
    with started(run, run_dir, root, device) as job:
        weights = starting_weights(weights_name(spec.model), job.layout.root / "weights")
        model = build_segmenter(spec.model, weights, run.seed).to(device)
        learnt = dict(model.trainable_parameters())
        reference, inputs = job.reference()
        inputs += [] if weights is None else [weights]
        if learnt and spec.training.epochs:
            folders = [job.layout.pixels(run.pixels, dataset, spec.model.image_size) for dataset in spec.train_on]
            data = combine([Harmonized.open(folder) for folder in folders])
            inputs += [folder / "index.csv" for folder in folders]
            cache = None
            if spec.model.embedding_cache != "none":
                assert isinstance(model, SamSegmenter)
                assert weights is not None
                cache = EmbeddingCache(job.layout.embeddings, model, weights, spec.model.embedding_cache, device)
            task, result = _fit(job, spec, model, data, inputs, cache)
            extra = fit_extra(task, result, "dice", result.best_value)
        else:
            say(f"{job.run_dir.name}: nothing to train")
            extra = parameter_counts(model, learnt)
            if first_process():
                write_history(job.run_dir, [])
        job.finish({**model.trainable_state(), **reference}, inputs, extra)


def _fit(
    job: Job,
    spec: SegmentationMethod,
    model: Segmenter,
    data: Harmonized,
    inputs: list[Path],
    cache: EmbeddingCache | None,
) -> tuple[SegmentationTask, FitResult]:
    """Train by the method's task; SegMAE in two stages.

    The first stage's checkpoint stays with the second's: a stopped run comes back to the same start.
    """
    run = job.run
    fixed: dict[str, Any] = {"threshold": run.extraction.threshold, "seed": run.seed, "device": job.device}
    if spec.reconstruction is None:
        task = SegmentationTask(model, data, spec, **fixed, cache=cache)
        return task, job.fit(task, spec.training, inputs)
    resumed, seconds = 0, 0.0
    if epochs := spec.reconstruction.epochs:
        training = spec.training.model_copy(update={"epochs": epochs})
        stage_1 = job.fit(ReconstructionTask(model, data, spec, **fixed), training, inputs, STAGE_1)
        resumed, seconds = stage_1.resumed, stage_1.seconds
    task = SegMAETask(model, data, spec, **fixed)
    result = job.fit(task, spec.training, inputs)
    return task, replace(result, resumed=resumed + result.resumed, seconds=seconds + result.seconds)
