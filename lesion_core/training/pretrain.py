"""Pretraining of the embedded foundation model sam_vit_t: made images only, with no prompt, boxes and clicks.

The recipe follows SAM (Kirillov et al. 2023, section 3 and appendix A): a prompt is simulated for each batch, the
single-mask token and the best of the three multi-mask tokens are trained with Dice + BCE, the IoU head with squared
error against the IoU reached. Every random number is a function of (seed, purpose, step or index), so a run that was
stopped and resumed ends with the same bytes on the CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import canonical_json, sha256_file, sha256_text, write_csv, write_json
from lesion_core.models.sam.network import VARIANTS, build_sam
from lesion_core.models.sam.prompts import Prompts, oracle_box, oracle_clicks, oracle_correction
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.progress import say
from lesion_core.record.provenance import code_hash, computing_versions
from lesion_core.seeding import generator, make_deterministic, seed_torch
from lesion_core.settings import Pretrain
from lesion_core.training.checkpoint import (
    folder_lock,
    load_checkpoint,
    save_checkpoint,
    write_safetensors,
)
from lesion_core.training.losses import bce_loss, dice_loss, resize_target
from lesion_core.training.optim import build_optimizer
from lesion_core.training.pretrain_data import HELD_OUT, MadeImages, made_images, sources_hash, training_batch
from lesion_core.training.schedule import learning_rate_at, set_learning_rate

NAME = "sam_vit_t"
SOURCES = (
    "data/synthetic",
    "models/sam.py",
    "models/sam_segmenter.py",
    "models/prompts.py",
    "training/losses.py",
    "training/optim.py",
    "training/pretrain.py",
    "training/pretrain_data.py",
    "training/schedule.py",
)
WARMUP_FRACTION = 0.05
GRADIENT_CLIP = 1.0
EMA_DECAY = 0.99
BOX_JITTER = 0.1
SECOND_CLICK = 0.5
IOU_WEIGHT = 1.0
LOG_STEPS = 25
PROMPT_KINDS = ("none", "box", "click_1", "click_2")
HISTORY_COLUMNS = ("step", "lr", "loss", *(f"dice_{kind}" for kind in PROMPT_KINDS))


def pretrain(settings: Pretrain, out: Path, work: Path, device: str, threads: int) -> None:
    """Train sam_vit_t from random weights and write it as fp16 safetensors with its provenance beside it.

    Args:
        settings: images, steps, optimisation, share of prompts.
        out: the weights, e.g. ``sam_vit_t.safetensors``; ``<out>.json`` is written beside it.
        work: cache of made images, checkpoint, history.csv and latest.safetensors (moving average so far, fp16).
        device: ``cpu`` or ``cuda``.
        threads: torch threads; on the CPU the bytes depend on it.

    Raises:
        SettingsError: ``image_size`` is not the variant's.
        RunError: the loss is not finite, or the checkpoint cannot be read.
    """
    if settings.image_size != VARIANTS[NAME].image_size:
        raise SettingsError(
            f"{NAME} is made for {VARIANTS[NAME].image_size} pixels, not {settings.image_size}",
            remedy="change pretrain.image_size",
        )
    make_deterministic(threads)
    with folder_lock(work):
        code = sources_hash(*SOURCES)
        made = made_images(settings, work)
        made_by = [code_hash("lesion_core.training.pretrain"), computing_versions()]
        identity = sha256_text(canonical_json([settings.model_dump(), made.identity, threads, device, *made_by]))
        model, average, history = _train(settings, made, work, identity, device)
        say("pretraining: scoring the held-out made images")
        model.sam.load_state_dict(_half(average))
        scores = evaluate(model, made, settings, device)
        write_safetensors(out, _half(average))
        write_json(
            out.with_name(out.name + ".json"),
            {
                "settings": settings.model_dump(),
                "threads": threads,
                "device": device,
                "loss": history[-1]["loss"] if history else None,
                "held_out_images": HELD_OUT,
                "scores": scores,
                "parameters": sum(item.numel() for item in model.parameters()),
                "sha256": sha256_file(out),
                "torch": torch.__version__,
                "code": code,
            },
        )


def build(seed: int) -> SamSegmenter:
    """sam_vit_t at a random start, all of it trainable."""
    seed_torch(seed, "pretrain", "weights")
    model = SamSegmenter(build_sam(NAME), adapter="none")
    model.sam.requires_grad_(True)
    return model.train()


def _train(
    settings: Pretrain, made: MadeImages, work: Path, identity: str, device: str
) -> tuple[SamSegmenter, dict[str, Tensor], list[dict]]:
    """The loop; returns the model, its moving average and the history."""
    model = build(settings.seed).to(device)
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer(
        parameters,
        name="adamw",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    average = {name: value.detach().clone() for name, value in model.sam.state_dict().items()}
    history: list[dict] = []
    start = 0
    checkpoint = work / "checkpoint.pt"
    if state := load_checkpoint(checkpoint, identity=identity):
        model.sam.load_state_dict(state["model"])
        average = {name: value.to(device) for name, value in state["average"].items()}
        optimizer.load_state_dict(state["optimizer"])
        history, start = state["history"], state["step"]
        say(f"pretraining: resumed at step {start} of {settings.steps}")

    for step in range(start, settings.steps):
        rate = learning_rate_at(
            step,
            settings.steps,
            base=settings.learning_rate,
            warmup_fraction=WARMUP_FRACTION,
            schedule="cosine",
        )
        set_learning_rate(optimizer, rate)
        images, masks = training_batch(made, settings, step)
        images, masks = images.to(device), masks.to(device)
        optimizer.zero_grad()
        loss, kind, dice = training_loss(model, images, masks, settings, step)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise RunError(
                f"The pretraining loss is not finite at step {step}",
                file=work,
                remedy="lower pretrain.learning_rate",
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), GRADIENT_CLIP)
        optimizer.step()
        # Young averages must forget the random start quickly.
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, current in model.sam.state_dict().items():
                average[name].lerp_(current, 1.0 - decay)
        row = dict.fromkeys(HISTORY_COLUMNS, "")
        history.append({**row, "step": step, "lr": rate, "loss": value, f"dice_{kind}": dice})
        if (step + 1) % LOG_STEPS == 0:
            say(_progress(history, settings.steps))
        if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == settings.steps:
            save_checkpoint(
                checkpoint,
                {
                    "identity": identity,
                    "step": step + 1,
                    "model": model.sam.state_dict(),
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                    "history": history,
                },
            )
            write_safetensors(work / "latest.safetensors", _half(average))
            write_csv(work / "history.csv", HISTORY_COLUMNS, history)
    return model, average, history


def _progress(history: list[dict], steps: int) -> str:
    recent = history[-4 * LOG_STEPS :]
    parts = [f"pretraining: step {history[-1]['step'] + 1} of {steps}"]
    parts.append(f"loss {np.mean([row['loss'] for row in history[-LOG_STEPS:]]):.3f}")
    for kind in PROMPT_KINDS:
        values = [row[f"dice_{kind}"] for row in recent if row[f"dice_{kind}"] != ""]
        if values:
            parts.append(f"{kind} {np.mean(values):.3f}")
    return ", ".join(parts)


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def simulate(kind: str, masks: np.ndarray, rng: np.random.Generator, jitter: float) -> Prompts | None:
    """Prompts of kind ``none``, ``box`` or ``click_1`` from true masks (B, S, S); a click is drawn from the lesion."""
    if kind == "none":
        return None
    if kind == "box":
        return Prompts(boxes=torch.from_numpy(np.stack([oracle_box(mask, jitter, rng) for mask in masks])))
    points, labels = (np.stack(part) for part in zip(*(oracle_clicks(mask, 1, rng) for mask in masks), strict=True))
    return Prompts(points=torch.from_numpy(points), point_labels=torch.from_numpy(labels))


def with_correction(first: Prompts, logits: Tensor, masks: np.ndarray, rng: np.random.Generator) -> Prompts:
    """``first`` and one more click per image, where the prediction of logits (B, 1, h, w) is wrong."""
    guesses = upsampled(logits, masks.shape[-1]).cpu().numpy() > 0
    second = [oracle_correction(mask, guess, rng) for mask, guess in zip(masks, guesses, strict=True)]
    points = torch.from_numpy(np.stack([point for point, _ in second]))[:, None]
    labels = torch.tensor([[label] for _, label in second])
    return Prompts(
        points=torch.cat([first.points, points], dim=1),
        point_labels=torch.cat([first.point_labels, labels], dim=1),
    )


def predict_with(
    model: SamSegmenter, images: Tensor, masks: Tensor, kind: str, rng: np.random.Generator, jitter: float
) -> tuple[Tensor, Tensor]:
    """Simulate one kind of prompt from true masks (B, 1, S, S): logits (B, 4, h, w) and estimated IoU (B, 4)."""
    truth = masks[:, 0].cpu().numpy() > 0.5
    if kind != "click_2":
        prompts = simulate(kind, truth, rng, jitter)
    else:
        first = simulate("click_1", truth, rng, jitter)
        with torch.no_grad():
            logits = model(images, first.to(images.device))
        prompts = with_correction(first, logits, truth, rng)
    return model.forward_all(images, None if prompts is None else prompts.to(images.device))


def upsampled(logits: Tensor, size: int) -> Tensor:
    """Logits (B, 1, h, w) bilinearly at (B, size, size)."""
    return functional.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def training_loss(
    model: SamSegmenter, images: Tensor, masks: Tensor, settings: Pretrain, step: int
) -> tuple[Tensor, str, float]:
    """Loss of one batch under one simulated kind of prompt; also the kind and the mean soft Dice of token 0."""
    rng = generator(settings.seed, "pretrain", "prompt", step)
    draw = rng.random()
    if draw < settings.prompt_none:
        kind = "none"
    elif draw < settings.prompt_none + settings.prompt_box:
        kind = "box"
    else:
        kind = "click_2" if rng.random() < SECOND_CLICK else "click_1"
    logits, predicted = predict_with(model, images, masks, kind, rng, BOX_JITTER)
    target = resize_target(masks, (logits.shape[-2], logits.shape[-1])).expand_as(logits)
    dice = dice_loss(logits, target)
    each = dice + bce_loss(logits, target)
    loss = each[:, 0].mean()
    if kind == "click_1":
        # One click is ambiguous: only the best of the three alternatives is taught, as in SAM.
        loss = loss + each[:, 1:].min(dim=1).values.mean()
    with torch.no_grad():
        guess, truth = logits > 0, target >= 0.5
        union = (guess | truth).sum(dim=(-2, -1)).clamp(min=1)
        reached = (guess & truth).sum(dim=(-2, -1)) / union
    loss = loss + IOU_WEIGHT * (predicted - reached).square().mean()
    return loss, kind, float(1.0 - dice[:, 0].detach().mean())


@torch.no_grad()
def evaluate(model: SamSegmenter, made: MadeImages, settings: Pretrain, device: str) -> dict[str, dict[str, float]]:
    """Mean per-image Dice (token 0, at image size) and IoU-head error on the held-out made images, per prompt kind."""
    model.eval()
    sums = {kind: np.zeros(2) for kind in PROMPT_KINDS}
    rows = np.arange(settings.images, settings.images + HELD_OUT)
    for start in range(0, HELD_OUT, settings.batch_size):
        chunk = rows[start : start + settings.batch_size]
        images = torch.from_numpy(np.asarray(made.images[chunk])).permute(0, 3, 1, 2).float().to(device)
        masks = torch.from_numpy(np.asarray(made.masks[chunk]))[:, None].float().to(device)
        for kind in PROMPT_KINDS:
            rng = generator(settings.seed, "pretrain", "evaluate", kind, start)
            logits, predicted = predict_with(model, images, masks, kind, rng, 0.0)
            guess = upsampled(logits[:, :1], masks.shape[-1]) > 0
            truth = masks[:, 0] > 0.5
            both = (guess & truth).sum(dim=(1, 2)).double()
            total = (guess.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))).clamp(min=1).double()
            iou = both / (total - both).clamp(min=1)
            dice = 2.0 * both / total
            sums[kind] += [float(dice.sum()), float((predicted[:, 0].double() - iou).abs().sum())]
    return {
        kind: {"dice": round(total[0] / HELD_OUT, 4), "iou_head_error": round(total[1] / HELD_OUT, 4)}
        for kind, total in sums.items()
    }
