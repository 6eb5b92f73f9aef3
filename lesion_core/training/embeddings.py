"""Image embeddings of a frozen SAM encoder, computed once and kept on disk, one memory-mapped file per image.

A file's name is the SHA-256 of the image's harmonized pixels, its folder's that of the weights' content, the input
size, the model's normalisation, the number format, the device and the encoder's code: whatever
changes an embedding changes its place, so nothing stale can be read. Files appear whole (atomic rename), so an
interrupted job goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.files import atomic_path, canonical_json, sha256_file, sha256_text
from lesion_core.models.sam.network import normalisation_of
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import to_input
from lesion_core.pixels.datasets import Harmonized
from lesion_core.progress import say, track
from lesion_core.record.provenance import code_hash

FORMATS = {"fp16": np.float16, "fp32": np.float32}


class EmbeddingCache:
    """Embeddings of one encoder.

    Args:
        folder: where all caches lie, e.g. ``results/<profile>/embeddings``.
        segmenter: its encoder must be frozen.
        weights: the file it was loaded from.
        number_format: what is stored; fp16 halves the disk (2.1 MB per image at 1024 pixels).
    """

    def __init__(
        self,
        folder: Path,
        segmenter: SamSegmenter,
        weights: Path,
        number_format: Literal["fp16", "fp32"],
        device: str,
    ) -> None:
        self.segmenter, self.device = segmenter, device
        self.dtype = np.dtype(FORMATS[number_format])
        content = {
            "weights": sha256_file(weights),
            "image_size": segmenter.image_size,
            "normalisation": normalisation_of(segmenter.sam),
            "format": number_format,
            "device": device,
            "code": code_hash("lesion_core.models.sam.segmenter"),
        }
        self.folder = Path(folder) / f"{Path(weights).stem}-{sha256_text(canonical_json(content))[:16]}"

    def path(self, image: np.ndarray) -> Path:
        """Where the embedding of an image uint8 (S, S, 3) belongs."""
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.npy"

    def fill(self, data: Harmonized, rows: Iterable[int]) -> dict[int, Path]:
        """Compute what is missing; row number -> file.

        One image at a time: a batch would change the last bits, and with them what a resumed job computes.
        """
        paths = {int(row): self.path(data.image(row)) for row in rows}
        missing = [row for row in paths if not paths[row].is_file()]
        say(f"embeddings: {len(missing)} of {len(paths)} are missing")
        for row in track(missing, "embeddings", len(missing)):
            if not paths[row].is_file():
                self.write(data.image(row), paths[row])
        return paths

    def write(self, image: np.ndarray, path: Path) -> None:
        """Compute one embedding (C, S/16, S/16) in fp32 and store it."""
        with torch.no_grad():
            embedding = self.segmenter.encode(to_input(image[None], self.device))[0]
        with atomic_path(path) as partial:
            np.save(partial, embedding.cpu().numpy().astype(self.dtype))


def read_embeddings(paths: Iterable[Path]) -> Tensor:
    """Stored embeddings as one tensor (B, C, g, g) in their stored format.

    Raises:
        RunError: a file is missing or is no embedding.
    """
    found = []
    for path in paths:
        try:
            found.append(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise RunError(
                f"A cached embedding cannot be read: {error}",
                file=path,
                remedy="delete it; it is computed again at the next start",
            ) from error
    return torch.from_numpy(np.stack(found))
