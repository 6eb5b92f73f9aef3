"""Training of a segmentation run; a frozen SAM and Otsu have nothing to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lesion_core.files import write_csv
from lesion_core.models.registry import build_segmenter
from lesion_core.models.trainable import Segmenter
from lesion_core.models.trained import REFERENCE_KEY, foundation_weights
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized, combine
from lesion_core.pixels.reference import read_reference
from lesion_core.progress import say
from lesion_core.record.attempts import Attempts
from lesion_core.record.provenance import write_provenance
from lesion_core.seeding import make_deterministic
from lesion_core.settings.run import Run
from lesion_core.training.checkpoint import folder_lock, write_safetensors
from lesion_core.training.embeddings import EmbeddingCache
from lesion_core.training.engine import CHECKPOINT, HISTORY, HISTORY_START, FitResult, fit
from lesion_core.training.identity import input_identity
from lesion_core.training.launch import process_rank
from lesion_core.training.segmentation_task import SegmentationTask


def train_run(run: Run, run_dir: Path, root: Path, device: str) -> None:
    """Train one segmentation run: writes settings.yaml, weights.safetensors, history.csv and provenance.json.

    The best epoch is the one with the highest validation Dice. With 0 epochs or nothing to train, the weights hold the
    reference histogram and the model's start. A run that was stopped goes on where its checkpoint stands.

    Args:
        run: its settings; ``run.spec`` is a SegmentationMethod.
        run_dir: where it lives.
        root: ``results/<profile>``; harmonized images and foundation weights are read from there.
        device: ``cpu`` or ``cuda``.

    Raises:
        RunError: the harmonized data are incomplete, or training fails; see ``engine.fit``.
        SettingsError: the model's settings contradict each other.
        WeightsError: foundation weights are missing or do not fit.
    """
    attempts = Attempts(root)
    run_dir, layout, spec = Path(run_dir), Layout(Path(root)), run.spec
    make_deterministic(run.threads)
    with folder_lock(run_dir):
        weights = foundation_weights(spec.model.backbone, layout.root / "weights")
        model = build_segmenter(spec.model, weights, run.seed).to(device)
        parameters = dict(model.trainable_parameters())
        inputs = [] if weights is None else [weights]
        extra: dict[str, float | int | str] = {
            "parameters": sum(item.numel() for item in model.parameters()),
            "trainable_parameters": sum(item.numel() for item in parameters.values()),
        }
        reference = {}
        if run.harmonization.histogram != "none":
            inputs.append(layout.reference)
            reference[REFERENCE_KEY] = torch.from_numpy(read_reference(layout.reference))
        if process_rank() == 0:
            run.save(run_dir)
        if parameters and spec.training.epochs:
            folders = [layout.harmonized(dataset, spec.model.image_size) for dataset in spec.train_on]
            data = combine([Harmonized.open(folder) for folder in folders])
            inputs += [folder / "index.csv" for folder in folders]
            identity = input_identity(run, inputs)
            result = _fit(model, data, run, run_dir, layout, weights, identity, device, attempts)
            extra |= {
                "best_epoch": result.best_epoch,
                "best_validation_dice": result.best_value,
                "epochs": result.epochs,
                "precision": result.precision,
                "resumed": result.resumed,
                "training_seconds": round(result.seconds, 3),
            }
        else:
            say(f"{run_dir.name}: nothing to train")
            write_csv(run_dir / HISTORY, HISTORY_START, [])
        write_safetensors(run_dir / "weights.safetensors", {**model.trainable_state(), **reference})
        write_provenance(run_dir, run, inputs=inputs, device=device, attempts=attempts, extra=extra)
        for checkpoint in run_dir.rglob(CHECKPOINT):
            checkpoint.unlink()


def _fit(
    model: Segmenter,
    data: Harmonized,
    run: Run,
    run_dir: Path,
    layout: Layout,
    weights: Path | None,
    identity: str,
    device: str,
    attempts: Attempts,
) -> FitResult:
    """Train by the method's task; SegMAE in two stages."""
    stage_1: FitResult | None = None
    job = {"seed": run.seed, "device": device, "identity": identity, "attempts": attempts}
    spec, fixed = run.spec, {"threshold": run.extraction.threshold, "seed": run.seed, "device": device}
    if spec.reconstruction is None:
        cache = None
        if spec.model.embedding_cache != "none":
            cache = EmbeddingCache(layout.embeddings, model, weights, spec.model.embedding_cache, device)
        task = SegmentationTask(model, data, spec, **fixed, cache=cache)
    else:
        from lesion_core.training.segmae import ReconstructionTask, SegMAETask, pretrain_stage

        if epochs := spec.reconstruction.epochs:
            first = ReconstructionTask(model, data, spec, **fixed)
            training = spec.training.model_copy(update={"epochs": epochs})
            stage_1 = pretrain_stage(first, training, run_dir, **job)
        task = SegMAETask(model, data, spec, **fixed)
    result = fit(task, spec.training, run_dir, **job)
    if stage_1 is None:
        return result
    return replace(result, resumed=stage_1.resumed + result.resumed, seconds=stage_1.seconds + result.seconds)
