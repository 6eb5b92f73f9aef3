"""A segmenter's masks for a whole dataset, aligned row by row with its harmonized pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_core.files import atomic_path, write_csv
from lesion_core.inference.predict import confidence, probabilities
from lesion_core.inference.refine import count_components, refine_mask
from lesion_core.progress import track

if TYPE_CHECKING:
    from lesion_core.inference.load import LoadedSegmenter

COLUMNS = ("image_id", "area", "components", "confidence", "flags")
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
    """Write ``probabilities.npy``, ``masks.npy`` and ``masks.csv`` for a dataset.

    Args:
        segmenter: a loaded run.
        harmonized: ``harmonized/<dataset>/<S>`` at the segmenter's size.
        out: ``pseudo_masks/<run_id>/<dataset>``; probabilities.npy holds uint8 (N, S, S), round(255 p); masks.npy
            uint8 (N, S, S), 0 or 255, refined; both row-aligned with the harmonized index. Memory use is one batch.
        batch_size: images per forward pass.
        device: where the model is.
    """
    from lesion_core.data.array_digests import record_arrays
    from lesion_core.data.datasets import Harmonized

    data = Harmonized.open(harmonized)
    count, size = data.images.shape[:2]
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(out / "probabilities.npy") as probability_path,
        atomic_path(out / "masks.npy") as mask_path,
    ):
        probability_array = np.lib.format.open_memmap(probability_path, "w+", np.uint8, (count, size, size))
        mask_array = np.lib.format.open_memmap(mask_path, "w+", np.uint8, (count, size, size))
        batches = probabilities(segmenter.model, data.images, batch_size=batch_size, device=device)
        done = 0
        for batch in track(batches, "pseudo-masks", total=-(-count // batch_size)):
            for probability in batch:
                mask = refine_mask(probability, segmenter.run.extraction)
                components = count_components(probability >= segmenter.run.extraction.threshold)
                probability_array[done] = np.round(probability * 255).astype(np.uint8)
                mask_array[done] = mask.astype(np.uint8) * 255
                rows.append(
                    {
                        "image_id": data.index[done]["image_id"],
                        "area": f"{mask.mean():.6f}",
                        "components": components,
                        "confidence": f"{confidence(probability, mask):.6f}",
                        "flags": flags(mask, components),
                    }
                )
                done += 1
        probability_array.flush()
        mask_array.flush()
        del probability_array, mask_array
    record_arrays(out)
    write_csv(out / "masks.csv", COLUMNS, rows)
