"""A segmenter's masks for a whole dataset, aligned row by row with its harmonized pixels."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_core.files import canonical_json, sha256_file
from lesion_core.inference.predict import confidence, probabilities, unaided_prompt
from lesion_core.inference.refine import count_components, refine_mask
from lesion_core.inference.unfinished import Unfinished
from lesion_core.metrics.border import border_turning
from lesion_core.progress import track
from lesion_core.record.outputs import array_digests

if TYPE_CHECKING:
    from lesion_core.models.trained import LoadedSegmenter
    from lesion_core.pixels.datasets import Harmonized

BATCHES_PER_CHECKPOINT = 16
SMALL = 0.005
LARGE = 0.95


def flags(mask: np.ndarray, components: int) -> str:
    """What a reader should know of a pseudo-mask: ``empty``, ``full``, ``small``, ``large``, ``fragmented``."""
    area = float(mask.mean())
    found = []
    if area == 0.0:
        found.append("empty")
    elif area < SMALL:
        found.append("small")
    if area == 1.0:
        found.append("full")
    elif area > LARGE:
        found.append("large")
    if components > 1:
        found.append("fragmented")
    return " ".join(found)


def write_pseudo_masks(
    segmenter: LoadedSegmenter, harmonized: Path, out: Path, *, batch_size: int = 8, device: str = "cpu"
) -> None:
    """Write ``probabilities.npy``, ``masks.npy`` and ``masks.csv`` for a dataset; goes on where a killed job stopped.

    Args:
        segmenter: a loaded run.
        harmonized: ``harmonized/<dataset>/<S>`` at the segmenter's size.
        out: ``pseudo_masks/<run_id>/<dataset>``; probabilities.npy holds uint8 (N, S, S), round(255 p); masks.npy
            uint8 (N, S, S), 0 or 255, refined; both row-aligned with the harmonized index. Memory use is one batch.
            Until all is done, the arrays lie under ``out/unfinished``.
        batch_size: images per forward pass.
        device: where the model is.

    Raises:
        RunError: the run needs clicks.
    """
    from lesion_core.pixels.datasets import Harmonized
    from lesion_core.training.checkpoint import folder_lock

    unaided_prompt(segmenter.run)
    data = Harmonized.open(harmonized)
    with folder_lock(out):
        work = Unfinished.open(out / "unfinished", len(data), data.size, _identity(segmenter, data, harmonized))
        first = len(work.rows) // batch_size * batch_size  # whole batches, so that a resumed job repeats the same ones
        del work.rows[first:]
        sizes = [(record["height"], record["width"]) for record in data.index[first:]]
        batches = probabilities(segmenter, data.images[first:], sizes, batch_size=batch_size, device=device)
        for batch in track(batches, "pseudo-masks", total=-(-(len(data) - first) // batch_size)):
            for probability in batch:
                work.add(probability, _describe(segmenter, data.index[len(work.rows)]["image_id"], probability))
            if len(work.rows) % (batch_size * BATCHES_PER_CHECKPOINT) == 0:
                work.save()
        work.finish(out)


def _describe(segmenter: LoadedSegmenter, image_id: str, probability: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The refined mask, bool (S, S), and its line of masks.csv."""
    mask = refine_mask(probability, segmenter.run.extraction)
    components = count_components(probability >= segmenter.run.extraction.threshold)
    turning = border_turning(mask)
    return mask, {
        "image_id": image_id,
        "area": f"{mask.mean():.6f}",
        "components": components,
        "confidence": f"{confidence(probability, mask):.6f}",
        "border_turning": "" if math.isnan(turning) else f"{turning:.4f}",
        "flags": flags(mask, components),
    }


def _identity(segmenter: LoadedSegmenter, data: Harmonized, harmonized: Path) -> str:
    """What unfinished masks depend on: weights, settings, images in their order, their pixels, code and packages."""
    from lesion_core.record.provenance import code_hash, computing_versions

    digest = hashlib.sha256(sha256_file(harmonized / "index.csv").encode())
    for name, tensor in sorted(segmenter.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    made_by = [code_hash("lesion_core.inference.pseudo_masks"), computing_versions()]
    digest.update(canonical_json([segmenter.run.run_id, len(data), array_digests(harmonized), made_by]).encode())
    return digest.hexdigest()
