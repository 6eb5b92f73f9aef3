"""A segmenter's masks for a whole dataset, aligned row by row with its harmonized pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import atomic_path, write_csv
from lesion_core.inference.expected_dice import confidence
from lesion_core.inference.predict import probabilities
from lesion_core.inference.refine import count_components, refine_mask
from lesion_core.metrics.border import border_turning
from lesion_core.models.trained import LoadedSegmenter
from lesion_core.pixels.datasets import Harmonized
from lesion_core.progress import track

COLUMNS = ("image_id", "area", "components", "confidence", "border_turning", "flags")
SMALL = 0.005
LARGE = 0.95


def flags(mask: np.ndarray, components: int) -> str:
    """What a reader should know of a pseudo-mask: ``empty``, ``full``, ``small``, ``large``, ``fragmented``."""
    area = float(mask.mean())
    found = {
        "empty": area == 0.0,
        "small": 0.0 < area < SMALL,
        "full": area == 1.0,
        "large": LARGE < area < 1.0,
        "fragmented": components > 1,
    }
    return " ".join(name for name, holds in found.items() if holds)


def write_pseudo_masks(segmenter: LoadedSegmenter, harmonized: Path, out: Path, *, batch_size: int = 8) -> None:
    """Write ``probabilities.npy``, ``masks.npy`` and, last, ``masks.csv`` for a dataset; memory use is one batch.

    Args:
        harmonized: ``harmonized/<dataset>/<S>`` at the segmenter's size.
        out: ``pseudo_masks/<run_id>/<dataset>``; probabilities.npy holds uint8 (N, S, S), round(255 p); masks.npy
            uint8 (N, S, S), 0 or 255, refined; both row-aligned with the harmonized index.

    Raises:
        RunError: the run needs clicks.
    """
    _ = segmenter.prompt
    data = Harmonized.open(harmonized)
    shape = (len(data), data.size, data.size)
    sizes = [(record["height"], record["width"]) for record in data.index]
    batches = probabilities(segmenter, data.images, sizes, batch_size=batch_size)
    rows: list[dict[str, Any]] = []
    (out / "masks.csv").unlink(missing_ok=True)
    with atomic_path(out / "probabilities.npy") as soft, atomic_path(out / "masks.npy") as hard:
        maps, masks = (np.lib.format.open_memmap(path, "w+", np.uint8, shape) for path in (soft, hard))
        for batch in track(batches, "pseudo-masks", total=-(-len(data) // batch_size)):
            for probability in batch:
                mask, row = _describe(segmenter, data.index[len(rows)]["image_id"], probability)
                maps[len(rows)] = np.round(probability * 255).astype(np.uint8)
                masks[len(rows)] = mask.astype(np.uint8) * 255
                rows.append(row)
        maps.flush()
        masks.flush()
    write_csv(out / "masks.csv", COLUMNS, rows)


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
