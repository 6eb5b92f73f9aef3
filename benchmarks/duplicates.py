"""`make bench-duplicates`: the near-duplicate search on made photographs with planted copies, at growing sizes.

Every photograph is another made lesion, drawn at 200 x 150 pixels (drawing costs more than searching; the hash looks
at 64 x 64). A fifth of each collection are copies: resized, recompressed, mirrored or turned by quarters.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from benchmarks.made import drawn
from benchmarks.turns import machine, show
from lesion_core import config
from lesion_core.data.duplicates import candidate_pairs, near_duplicates
from lesion_core.data.hashing import Fingerprint, fingerprint
from lesion_core.data.opencv import single_thread
from lesion_core.progress import track
from lesion_core.seeding import generator

HEIGHT, WIDTH = 150, 200
COPIES = 0.2  # share of a collection
SIZES = (1000, 5000, 20_000)
SCALES, QUALITIES = (0.5, 2.0), (50, 95)
CHUNK = 50


def copy_of(image: np.ndarray, number: int) -> np.ndarray:
    """A copy of uint8 (H, W, 3) as it may stand in another release: resized, recompressed, mirrored or turned."""
    import cv2

    rng = generator("planted copy", number)
    scale = rng.uniform(*SCALES)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    changed = cv2.resize(image, size, interpolation=method)
    if rng.random() < 0.5:
        changed = changed[:, ::-1]
    changed = np.ascontiguousarray(np.rot90(changed, int(rng.integers(4))))
    quality = int(rng.integers(*QUALITIES))
    _, content = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def exponent(seconds: Mapping[int, float]) -> float:
    """Slope of log seconds over log size by least squares: 1 is linear, 2 quadratic growth."""
    sizes = np.log(list(seconds))
    return float(np.polyfit(sizes, np.log(list(seconds.values())), 1)[0])


def _prints(job: tuple[Sequence[int], int]) -> tuple[list[tuple[Fingerprint, Fingerprint | None]], float]:
    """Fingerprints of made photographs, and of their copies for numbers below a bound; and the seconds they took."""
    numbers, bound = job
    found, spent = [], 0.0
    with single_thread():
        for number in numbers:
            image, _ = drawn(number, HEIGHT, WIDTH)
            pictures = [image, copy_of(image, number)] if number < bound else [image]
            start = time.perf_counter()
            prints = [fingerprint(picture) for picture in pictures]
            spent += time.perf_counter() - start
            found.append((prints[0], prints[1] if len(prints) > 1 else None))
    return found, spent


def main() -> None:
    """Print recall, precision and seconds for each size, and how the seconds grow."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="photographs in each collection")
    parser.add_argument("--processes", type=int, default=2, help="that draw the photographs")
    given = parser.parse_args()
    chosen = config.load().duplicates
    largest = max(given.sizes)
    originals, bound = largest - int(COPIES * largest), int(COPIES * largest)
    jobs = [(range(start, min(start + CHUNK, originals)), bound) for start in range(0, originals, CHUNK)]
    print(f"# Near-duplicate search\n\n{machine()}", flush=True)
    start = time.perf_counter()
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        parts = list(track(pool.map(_prints, jobs), "drawing and hashing", len(jobs)))
    drawing = time.perf_counter() - start
    prints = [pair for part, _ in parts for pair in part]
    hashing = sum(seconds for _, seconds in parts) / (originals + bound)
    rows, searching = [], {}
    for size in sorted(given.sizes):
        copies = int(COPIES * size)
        collection = [first for first, _ in prints[: size - copies]] + [copy for _, copy in prints[:copies]]
        hashes = np.array([one.phash for one in collection], np.uint64)
        thumbnails = np.stack([one.thumbnail for one in collection])
        start, spent = time.perf_counter(), time.process_time()
        pairs, _ = near_duplicates(hashes, thumbnails, chosen)
        # Core seconds, since they hardly depend on what else the machine does.
        searching[size], waited = time.process_time() - spent, time.perf_counter() - start
        truth = {(number, size - copies + number) for number in range(copies)}
        found = {tuple(pair) for pair in pairs.tolist()}
        right = len(found & truth)
        rows.append(
            (
                size,
                copies,
                f"{right / copies:.4f}",
                f"{right / max(1, len(found)):.4f}",
                len(candidate_pairs(hashes, chosen.max_hamming)),
                f"{hashing * size:.1f}",
                f"{searching[size]:.2f}",
                f"{waited:.2f}",
            )
        )
    show(
        f"Planted copies (max_hamming {chosen.max_hamming}, min_correlation {chosen.min_correlation:g})",
        (
            "Photographs",
            "Copies",
            "Recall",
            "Precision",
            "Candidates",
            "Hashing, core s",
            "Search, core s",
            "Search, s",
        ),
        rows,
    )
    if len(searching) > 1:
        two = {size: searching[size] for size in sorted(searching)[-2:]}
        print(f"\nCore seconds of the search grow with size to the power {exponent(searching):.2f} (quadratic: 2);")
        print(f"between the two largest sizes {exponent(two):.2f}.")
    print(f"Drawing and hashing took {drawing:.0f} s in all. {machine()}")


if __name__ == "__main__":
    main()
