"""One forward pass of a promptable segmenter in training: oracle prompts as tensors of the batch, and the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lesion_core.models.sam.prompts import Prompts, click_draws, click_session, oracle_prompts
from lesion_core.models.trainable import Segmenter, finish

# The refined masks are soft, 0..255; this is where the binary mask has its edge.
BINARY = 128
PARTS = ("boxes", "points", "point_labels")


def prompt_tensors(
    kind: str, masks: np.ndarray, *, jitter: float, seed: int, keys: Sequence[int | str]
) -> dict[str, Tensor]:
    """What a batch needs for its prompts; empty for ``none``.

    Args:
        kind: a ``settings.TrainingPrompt``.
        masks: soft, uint8 (B, S, S).
        jitter, seed, keys: see ``oracle_prompts``.

    Returns:
        ``boxes``, or ``points`` and ``point_labels`` (the first click); for a session of clicks also ``click_draws``
        (B, K - 1), since the later clicks depend on the model.
    """
    if kind == "none":
        return {}
    prompts = oracle_prompts(masks >= BINARY, kind, jitter=jitter, seed=seed, keys=keys)
    tensors = {name: getattr(prompts, name) for name in PARTS if getattr(prompts, name) is not None}
    draws = click_draws(kind, seed=seed, keys=keys)
    return tensors | ({"click_draws": torch.from_numpy(draws)} if draws.size else {})


def batch_logits(module: Segmenter, batch: Mapping[str, Tensor], threshold: float) -> Tensor:
    """The segmenter's logits (B, 1, s, s) for a batch.

    Of a session of clicks the last prediction is returned; those before it only place clicks, without gradients, and
    share the image embedding.

    Args:
        module: a segmenter; for a session of clicks or for stored embeddings it must ``encode`` and ``decode``.
        batch: ``images`` (B, 3, S, S) in 0..255 or, in their place, ``embeddings`` (B, C, g, g); ``masks``
            (B, 1, S, S) in 0..255; and ``prompt_tensors``.
        threshold: of the probability, 0..1, where a session's predictions are cut.
    """
    parts = {name: batch[name] for name in PARTS if name in batch}
    prompts = Prompts(**parts) if parts else None
    if "embeddings" in batch:
        embeddings = batch["embeddings"].float()
    elif "click_draws" in batch:
        embeddings = module.encode(batch["images"].float())
    else:
        return module(batch["images"].float(), prompts)
    if "click_draws" not in batch:
        return module.decode(embeddings, prompts)
    masks = batch["masks"][:, 0].cpu().numpy() >= BINARY

    def predict(given: Prompts) -> np.ndarray:
        with torch.no_grad():
            return finish(module.decode(embeddings.detach(), given), masks.shape[-1]) >= threshold

    assert prompts is not None
    return module.decode(embeddings, click_session(prompts, masks, batch["click_draws"].cpu().numpy(), predict))
