"""`make bench-duplicates`: the near-duplicate search on images with planted copies, at growing sizes.

Every synthetic image is another lesion, drawn at 200 x 150 pixels (drawing costs more than searching; the hash looks
at 64 x 64). A fifth of each collection are copies: resized, recompressed, mirrored or turned by quarters. With
``--mirror`` real images are searched in their place: those of the mirror folder's HAM10000 archives.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.copies import HEAVIER, copy_of
from benchmarks.made import drawn
from benchmarks.turns import machine, show
from lesion_core.acquire.opencv import single_thread
from lesion_core.acquire.readers.ham10000 import METADATA
from lesion_core.catalog.duplicates import candidate_pairs, near_duplicates
from lesion_core.catalog.hashing import Fingerprint, fingerprint
from lesion_core.catalog.views import agreement, local_features
from lesion_core.files import read_csv
from lesion_core.progress import track
from lesion_core.settings import Duplicates
from lesion_core.settings import load as config

HEIGHT, WIDTH = 150, 200
COPIES = 0.2  # share of a collection
SIZES = (1000, 5000, 20_000)
REAL = "HAM10000_images_part_*.zip"
CHANGED = 0.01  # share of the originals that are also changed beyond what the hash promises to bear
CHUNK = 50


def exponent(seconds: Mapping[int, float]) -> float:
    """Slope of log seconds over log size by least squares: 1 is linear, 2 quadratic growth."""
    sizes = np.log(list(seconds))
    return float(np.polyfit(sizes, np.log(list(seconds.values())), 1)[0])


@dataclass
class Part:
    """Fingerprints of some images, in order; of those that are copied also the copies'.

    Attributes:
        originals: of every image.
        copies: number of the image -> fingerprint of its copy.
        heavier: name of a change -> (found by fingerprint, found as a view) of each image changed so.
        seconds: that the fingerprints of originals and copies took.
    """

    originals: list[Fingerprint] = field(default_factory=list)
    copies: dict[int, Fingerprint] = field(default_factory=dict)
    heavier: dict[str, list[tuple[bool, bool]]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """Which images a process takes: numbers of made ones, or names in an archive."""

    numbers: range
    copied: int
    changed: int
    chosen: Duplicates
    archive: Path | None = None
    names: tuple[str, ...] = ()


def _work(job: Job) -> Part:
    part = Part(heavier={name: [] for name in HEAVIER})
    with single_thread():
        for place, number in enumerate(job.numbers):
            image = drawn(number, HEIGHT, WIDTH)[0] if job.archive is None else _unzipped(job.archive, job.names[place])
            pictures = [image, copy_of(image, number)] if number < job.copied else [image]
            start = time.perf_counter()
            prints = [fingerprint(picture) for picture in pictures]
            part.seconds += time.perf_counter() - start
            part.originals.append(prints[0])
            if len(prints) > 1:
                part.copies[number] = prints[1]
            if number < job.changed:
                for name, change in HEAVIER.items():
                    part.heavier[name].append(_found(image, change(image), job.chosen))
    return part


def _unzipped(archive: Path, name: str) -> np.ndarray:
    from PIL import Image

    with zipfile.ZipFile(archive) as opened:
        return np.asarray(Image.open(io.BytesIO(opened.read(name))).convert("RGB"))


def _found(image: np.ndarray, changed: np.ndarray, chosen: Duplicates) -> tuple[bool, bool]:
    prints = [fingerprint(image), fingerprint(changed)]
    pairs, _ = near_duplicates(
        np.stack([one.phash for one in prints]), np.stack([one.thumbnail for one in prints]), chosen
    )
    features = [local_features(picture, chosen.views) for picture in (image, changed)]
    return len(pairs) > 0, agreement(*features, chosen.views) >= chosen.views.min_agreement


def _jobs(sizes: Sequence[int], mirror: Path | None, chosen: Duplicates) -> tuple[list[Job], list[int], list[str]]:
    """The work, the sizes of the collections searched, and the lesion of each image."""
    if mirror is None:
        copied = int(COPIES * max(sizes))
        originals = max(sizes) - copied
        changed = int(CHANGED * originals)
        ranges = [range(start, min(start + CHUNK, originals)) for start in range(0, originals, CHUNK)]
        lesions = [f"made {number}" for number in range(originals)]
        return [Job(numbers, copied, changed, chosen) for numbers in ranges], sorted(sizes), lesions
    stored = []
    for archive in sorted(mirror.glob(REAL)):
        with zipfile.ZipFile(archive) as opened:
            stored += [(archive, name) for name in sorted(opened.namelist()) if name.endswith(".jpg")]
    if not stored:
        raise SystemExit(f"no {REAL} in {mirror}")
    # Copies come on top of the images: a quarter of them makes a fifth of the collection.
    copied = int(COPIES / (1 - COPIES) * len(stored))
    changed = int(10 * CHANGED * len(stored))
    jobs = []
    for archive in sorted({archive for archive, _ in stored}):
        own = [number for number, (place, _) in enumerate(stored) if place == archive]
        for start in range(own[0], own[-1] + 1, CHUNK):
            numbers = range(start, min(start + CHUNK, own[-1] + 1))
            jobs.append(Job(numbers, copied, changed, chosen, archive, tuple(stored[n][1] for n in numbers)))
    lesion_of = {row["image_id"]: row["lesion_id"] for row in read_csv(mirror / METADATA)}
    return jobs, [len(stored) + copied], [lesion_of[Path(name).stem] for _, name in stored]


def main() -> None:
    """Print recall, precision and seconds for each size, how the seconds grow, and what heavier changes do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="synthetic images in each collection")
    parser.add_argument("--mirror", type=Path, help="folder with HAM10000 archives, to search real images")
    parser.add_argument("--processes", type=int, default=2, help="that draw the images")
    given = parser.parse_args()
    chosen = config.load().duplicates
    jobs, sizes, lesions = _jobs(given.sizes, given.mirror, chosen)
    print(f"# Near-duplicate search\n\n{machine()}", flush=True)
    start = time.perf_counter()
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        parts = list(track(pool.map(_work, jobs), "drawing and hashing", len(jobs)))
    drawing = time.perf_counter() - start
    originals = [one for part in parts for one in part.originals]
    copies = {number: one for part in parts for number, one in part.copies.items()}
    hashing = sum(part.seconds for part in parts) / (len(originals) + len(copies))
    rows, searching = [], {}
    for size in sizes:
        searching[size], row = _search(size, originals, copies, lesions, chosen, hashing)
        rows.append(row)
    headings = (
        "Images",
        "Copies",
        "Recall",
        "Precision",
        "Others of one lesion",
        "Candidates",
        "Hashing, core s",
        "Search, core s",
        "Search, s",
    )
    show(
        f"Planted copies (max_hamming {chosen.max_hamming}, min_correlation {chosen.min_correlation:g})", headings, rows
    )
    if len(searching) > 1:
        two = {size: searching[size] for size in sorted(searching)[-2:]}
        print(f"\nCore seconds of the search grow with size to the power {exponent(searching):.2f} (quadratic: 2);")
        print(f"between the two largest sizes {exponent(two):.2f}.")
    _show_heavier(parts)
    print(f"\nDrawing and hashing took {drawing:.0f} s in all. {machine()}")


def _search(
    size: int,
    originals: Sequence[Fingerprint],
    prints: Mapping[int, Fingerprint],
    lesions: Sequence[str],
    chosen: Duplicates,
    hashing: float,
) -> tuple[float, tuple[object, ...]]:
    """Core seconds of a search, and its row in the table; pairs of one lesion that nobody planted are not judged."""
    copies = int(COPIES * size)
    collection = [*originals[: size - copies], *(prints[number] for number in range(copies))]
    hashes = np.stack([one.phash for one in collection])
    thumbnails = np.stack([one.thumbnail for one in collection])
    start, spent = time.perf_counter(), time.process_time()
    pairs, _ = near_duplicates(hashes, thumbnails, chosen)
    # Core seconds, since they hardly depend on what else the machine does.
    searched, waited = time.process_time() - spent, time.perf_counter() - start
    truth = {(number, size - copies + number) for number in range(copies)}
    found = {tuple(pair) for pair in pairs.tolist()}
    right = len(found & truth)
    shown = [*lesions[: size - copies], *lesions[:copies]]
    wrong = sum(shown[first] != shown[second] for first, second in found - truth)
    return searched, (
        size,
        copies,
        f"{right / copies:.4f}",
        f"{right / max(1, right + wrong):.4f}",
        len(found) - right - wrong,
        len(candidate_pairs(hashes, chosen.max_hamming)),
        f"{hashing * size:.1f}",
        f"{searched:.2f}",
        f"{waited:.2f}",
    )


def _show_heavier(parts: Sequence[Part]) -> None:
    rows = []
    for name in HEAVIER:
        found = np.array([outcome for part in parts for outcome in part.heavier[name]]).reshape(-1, 2)
        if len(found):
            shares = (found[:, 0], found[:, 1], found.any(axis=1))
            rows.append((name, len(found), *(f"{share.mean():.3f}" for share in shares)))
    headings = ("Change", "Images", "Found by hash", "Verified as a view", "By either")
    show("Changes beyond those of a copy", headings, rows)


if __name__ == "__main__":
    main()
