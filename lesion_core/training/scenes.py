"""Synthetic scenes on disk, drawn once, memory-mapped."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lesion_core.acquire.synthetic.scenes import OBJECTS, draw_scenes
from lesion_core.files import canonical_json, read_json, write_json
from lesion_core.progress import say
from lesion_core.record.provenance import code_hash
from lesion_core.settings import Pretrain

CHUNK = 50


@dataclass(frozen=True)
class Scenes:
    """Scenes for pretraining.

    Attributes:
        images: RGB uint8 (N, S, S, 3).
        objects: uint8 (N, S, S): bit k is set on the pixels of object k.
        training: the first so many are trained on, the others held out.
    """

    images: np.ndarray
    objects: np.ndarray
    training: int

    def masks(self, row: int) -> np.ndarray:
        """uint8 (S, S, 4), 0 or 255: one mask per object."""
        return ((self.objects[row][..., None] >> np.arange(OBJECTS, dtype=np.uint8)) & 1) * np.uint8(255)


def stored_scenes(settings: Pretrain, folder: Path) -> Scenes:
    """The scenes of ``settings``, drawn into ``folder`` on the first call."""
    size, count = settings.image_size, settings.images + settings.validation_images
    identity = canonical_json([settings.seed, count, size, code_hash("lesion_core.acquire.synthetic.scenes")])
    done = folder / "scenes.json"
    if not (done.exists() and read_json(done, str) == identity):
        done.unlink(missing_ok=True)
        _draw_all(settings.seed, count, size, folder)
        write_json(done, identity)
    images, objects = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "objects"))
    return Scenes(images, objects, settings.images)


def _draw_all(seed: int, count: int, size: int, folder: Path) -> None:
    """Draw in worker processes; the bytes do not depend on how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
    objects = np.lib.format.open_memmap(folder / "objects.npy", "w+", np.uint8, (count, size, size))
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    workers = min(len(chunks), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = pool.map(draw_scenes, [seed] * len(chunks), chunks, [size] * len(chunks))
        for chunk, (pixels, bits) in zip(chunks, drawn, strict=True):
            images[chunk.start : chunk.stop], objects[chunk.start : chunk.stop] = pixels, bits
            say(f"synthetic scenes: {chunk.stop} of {count}")
    images.flush()
    objects.flush()
