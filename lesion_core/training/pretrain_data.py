"""Images for pretraining: made ones, drawn once into memory-mapped arrays, and their random changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.files import canonical_json, read_array, read_json, sha256_file, sha256_text, write_json
from lesion_core.progress import say
from lesion_core.seeding import generator
from lesion_core.settings import Pretrain

HELD_OUT = 200
CHUNK_IMAGES = 50
MIN_LESION_PIXELS = 64


@dataclass(frozen=True)
class MadeImages:
    """Made images on disk: ``images`` uint8 (N, S, S, 3) RGB, ``masks`` uint8 (N, S, S) 0/1; the last are held out."""

    images: np.ndarray
    masks: np.ndarray
    identity: str


def sources_hash(*folders_or_files: str) -> str:
    """SHA-256 over sources of this package, so that work done by older code is not taken for that of today's."""
    import lesion_core

    package = Path(lesion_core.__file__).parent
    files = [
        path
        for name in folders_or_files
        for path in ([package / name] if name.endswith(".py") else sorted((package / name).glob("*.py")))
    ]
    return sha256_text("\n".join(f"{path.relative_to(package).as_posix()} {sha256_file(path)}" for path in files))


def made_images(settings: Pretrain, work: Path) -> MadeImages:
    """Memory-mapped made images, drawn on the first call: ``settings.images`` to train on and ``HELD_OUT`` more."""
    size, count = settings.image_size, settings.images + HELD_OUT
    identity = canonical_json([settings.seed, count, size, sources_hash("data/synthetic")])
    paths = {name: work / f"{name}.npy" for name in ("images", "masks")}
    done = work / "images.json"
    if not (done.exists() and read_json(done, str) == identity):
        done.unlink(missing_ok=True)
        _draw_all(settings.seed, count, size, paths)
        write_json(done, identity)
    arrays = {name: read_array(path, mapped=True) for name, path in paths.items()}
    return MadeImages(images=arrays["images"], masks=arrays["masks"], identity=identity)


def _draw_all(seed: int, count: int, size: int, paths: dict[str, Path]) -> None:
    """Draw the images in worker processes; the bytes do not depend on how many there are."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(paths["images"], "w+", np.uint8, (count, size, size, 3))
    masks = np.lib.format.open_memmap(paths["masks"], "w+", np.uint8, (count, size, size))
    starts = range(0, count, CHUNK_IMAGES)
    jobs = [(seed, start, min(start + CHUNK_IMAGES, count), size) for start in starts]
    workers = min(len(jobs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        # One job is not worth a process.
        drawn = pool.map(_draw_chunk, jobs) if len(jobs) > 1 else map(_draw_chunk, jobs)
        for number, (start, chunk, truth) in enumerate(drawn, start=1):
            images[start : start + len(chunk)] = chunk
            masks[start : start + len(truth)] = truth
            if number % 10 == 0 or number == len(jobs):
                say(f"made images: {start + len(chunk)} of {count}")
    images.flush()
    masks.flush()


def _draw_chunk(job: tuple[int, int, int, int]) -> tuple[int, np.ndarray, np.ndarray]:
    from lesion_core.acquire.synthetic import draw_batch

    seed, start, stop, size = job
    images, masks, _ = draw_batch(seed, range(start, stop), size)
    return start, np.asarray(images, np.uint8), (np.asarray(masks) > 0).astype(np.uint8)


def training_batch(made: MadeImages, settings: Pretrain, step: int) -> tuple[Tensor, Tensor]:
    """Augmented batch of optimizer step ``step``: images float32 (B, 3, S, S) 0..255, masks float32 (B, 1, S, S)."""
    count, size = settings.images, settings.batch_size
    positions = range(step * size, (step + 1) * size)
    orders: dict[int, np.ndarray] = {}
    rows = []
    for position in positions:
        epoch, place = divmod(position, count)
        if epoch not in orders:
            orders[epoch] = generator(settings.seed, "pretrain", "order", epoch).permutation(count)
        rows.append(int(orders[epoch][place]))
    images = torch.from_numpy(np.stack([made.images[row] for row in rows])).permute(0, 3, 1, 2).float()
    masks = torch.from_numpy(np.stack([made.masks[row] for row in rows]))[:, None].float()
    rng = generator(settings.seed, "pretrain", "augment", step)
    images, masks = move(images, masks, rng)
    return recolour(images, rng), masks


def move(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flip, turn by quarter turns and a little more, zoom and shift; one resampling for the whole batch.

    A sample whose lesion would nearly leave the picture (under ``MIN_LESION_PIXELS``) stays as it was.
    """
    count = len(images)
    angle = rng.integers(0, 4, count) * (np.pi / 2) + rng.uniform(-0.3, 0.3, count)
    zoom = np.exp(rng.uniform(np.log(0.65), np.log(1.25), count))
    mirror = rng.choice([-1.0, 1.0], count)
    shift = rng.uniform(-0.15, 0.15, (count, 2))
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * np.cos(angle) * mirror, -zoom * np.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = zoom * np.sin(angle) * mirror, zoom * np.cos(angle)
    theta[:, :, 2] = shift
    both = torch.cat([images, masks], dim=1)
    grid = functional.affine_grid(torch.from_numpy(theta), list(both.shape), align_corners=False)
    moved = functional.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved_masks = (moved[:, 3:] >= 0.5).float()
    keep = (moved_masks.sum(dim=(1, 2, 3)) >= MIN_LESION_PIXELS)[:, None, None, None]
    return torch.where(keep, moved[:, :3], images), torch.where(keep, moved_masks, masks)


def recolour(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Strong colour changes, so that shape and contrast, not the made palette, are learned.

    Per sample: saturation and hue (rotation about the grey axis), a cast per channel, contrast, brightness, gamma, a
    slope of illumination, blur and noise. Images (B, 3, S, S) float 0..255 in and out.
    """
    count, size = len(images), images.shape[-1]
    axis = np.full((3, 3), 1.0 / 3.0)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0)
    matrices = np.empty((count, 3, 3), np.float32)
    for index in range(count):
        hue = rng.normal(0.0, 0.25)
        saturation = rng.uniform(0.3, 1.6)
        turn = np.cos(hue) * np.eye(3) + (1.0 - np.cos(hue)) * axis + np.sin(hue) * cross
        tint = np.diag(np.exp(rng.normal(0.0, 0.12, 3)))
        matrices[index] = tint @ (saturation * turn + (1.0 - saturation) * axis)
    flat = images.reshape(count, 3, -1) / 255.0
    flat = torch.bmm(torch.from_numpy(matrices), flat)
    contrast = torch.from_numpy(np.exp(rng.normal(0.0, 0.25, (count, 1, 1))).astype(np.float32))
    brightness = torch.from_numpy(rng.normal(0.0, 0.10, (count, 1, 1)).astype(np.float32))
    mean = flat.mean(dim=2, keepdim=True)
    flat = (flat - mean) * contrast + mean + brightness
    gamma = torch.from_numpy(np.exp(rng.normal(0.0, 0.2, (count, 1, 1))).astype(np.float32))
    flat = flat.clamp(1e-4, 1.0).pow(gamma)
    slope = rng.normal(0.0, 0.12, (2, count, 1, 1, 1)).astype(np.float32)
    line = torch.linspace(-1.0, 1.0, size)
    light = torch.from_numpy(slope[0]) * line.view(1, 1, 1, size) + torch.from_numpy(slope[1]) * line.view(
        1, 1, size, 1
    )
    changed = flat.reshape(images.shape) * (1.0 + light)
    noise = np.abs(rng.normal(0.0, 0.02, (count, 1, 1, 1))).astype(np.float32)
    grain = rng.standard_normal(images.shape, dtype=np.float32)
    changed = changed + torch.from_numpy(noise) * torch.from_numpy(grain)
    if rng.random() < 0.3:
        changed = functional.avg_pool2d(changed, 3, stride=1, padding=1, count_include_pad=False)
    return (changed * 255.0).clamp(0.0, 255.0)
