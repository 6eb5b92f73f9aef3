"""Pretraining of the embedded foundation model sam_vit_t, on synthetic scenes only."""

from __future__ import annotations

from pathlib import Path

import torch

from lesion_core.errors import SettingsError
from lesion_core.files import canonical_json, sha256_file, sha256_text, write_json
from lesion_core.models.sam.network import VARIANTS, build_sam
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.record.provenance import code_hash, computing_versions
from lesion_core.seeding import make_deterministic, seed_torch
from lesion_core.settings import Pretrain
from lesion_core.training.checkpoint import folder_lock, write_safetensors
from lesion_core.training.engine import fit
from lesion_core.training.promptable import PromptableTask
from lesion_core.training.scenes import stored_scenes

NAME = "sam_vit_t"


def pretrain(settings: Pretrain, out: Path, work: Path, device: str, threads: int) -> None:
    """Train sam_vit_t from random weights and write it as fp16 safetensors, what is known of it as JSON beside it.

    Args:
        settings: scenes and optimisation.
        out: the weights, e.g. ``sam_vit_t.safetensors``; ``<out>.json`` is written beside it.
        work: scenes, checkpoint and history.csv.
        threads: torch threads; on the CPU the bytes depend on it.

    Raises:
        SettingsError: ``image_size`` is not the variant's.
        RunError: see ``engine.fit``.
    """
    if settings.image_size != VARIANTS[NAME].image_size:
        raise SettingsError(
            f"{NAME} is made for {VARIANTS[NAME].image_size} pixels, not {settings.image_size}",
            remedy="change pretrain.image_size",
        )
    make_deterministic(threads)
    with folder_lock(work):
        task = PromptableTask(build(settings.seed), stored_scenes(settings, work / "scenes"), settings, device=device)
        made_by = [code_hash("lesion_core.training.pretrain"), computing_versions()]
        identity = sha256_text(canonical_json([settings.model_dump(), threads, *made_by]))
        result = fit(task, settings.training, work, seed=settings.seed, device=device, identity=identity)
        sam = task.module.sam
        half = {name: value.half() if value.is_floating_point() else value for name, value in sam.state_dict().items()}
        sam.load_state_dict(half)
        write_safetensors(out, half)
        write_json(
            out.with_name(out.name + ".json"),
            {
                "settings": settings.model_dump(),
                "threads": threads,
                "device": device,
                "epochs": result.epochs,
                "best_epoch": result.best_epoch,
                "scores": {name: round(value, 4) for name, value in task.validate().items()},
                "parameters": sum(item.numel() for item in sam.parameters()),
                "sha256": sha256_file(out),
                "torch": torch.__version__,
                "code": made_by[0],
            },
        )


def build(seed: int) -> SamSegmenter:
    """sam_vit_t at a random start, all of it learnt."""
    seed_torch(seed, "pretrain", "weights")
    model = SamSegmenter(build_sam(NAME), adapter="none")
    model.sam.requires_grad_(True)
    model.fix_trainable()
    return model
