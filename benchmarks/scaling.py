"""How harmonization and augmentation gain from a second core."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.made import drawn
from benchmarks.turns import Seconds, faster, in_turns, machine, show
from lesion_core.acquire.opencv import single_thread
from lesion_core.acquire.parallel import in_threads
from lesion_core.pixels import histogram
from lesion_core.pixels.augment import Augmenter
from lesion_core.pixels.harmonize import harmonize_image, read_original
from lesion_core.pixels.resize import resize_square
from lesion_core.settings import Augmentation, Harmonization

AUGMENTED_SIZE = 256
AUGMENTED = 400  # samples in each process and round


def _augment_many(job: tuple[int, int, Augmentation]) -> float:
    start_number, count, settings = job
    image, mask = drawn(1, AUGMENTED_SIZE, AUGMENTED_SIZE)
    mask = mask.astype(np.uint8) * 255
    augment = Augmenter(settings)
    with single_thread():
        start = time.perf_counter()
        for number in range(start_number, start_number + count):
            augment(image, mask, "benchmark", number)
        return time.perf_counter() - start


def scaling(rounds: int, folder: Path, harmonize: Harmonization, augmented: Augmentation) -> None:
    """Harmonization on two threads, augmentation in two processes; true only on a machine that is idle."""
    paths = sorted(folder.glob("[0-9].jpg")) * 24  # a lap of half a second, beside which starting threads is little
    size = 1024
    reference = histogram.channel_histograms(resize_square(drawn(9, 450, 600)[0], size))
    target = np.empty((len(paths), size, size, 3), np.uint8)
    target[:] = 1  # the pages are there before the clock starts

    def run(workers: int) -> None:
        def work(item: tuple[int, Path]) -> None:
            row, path = item
            target[row] = harmonize_image(read_original(path, size, harmonize), size, reference, harmonize, [])

        list(in_threads(work, list(enumerate(paths)), f"harmonizing on {workers} threads", workers))

    laps = max(3, rounds)  # the fastest of many: a second core is seldom free all the time
    taken = in_turns({"one": lambda: run(1), "two": lambda: run(2)}, laps, time.perf_counter)
    rows = [("harmonization, threads", len(paths), taken["one"], taken["two"])]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_augment_many, [(0, 20, augmented)] * 4))
        alone, together = [], []
        for _ in range(laps):
            alone.append(pool.submit(_augment_many, (0, AUGMENTED, augmented)).result())
            start = time.perf_counter()
            list(pool.map(_augment_many, [(0, AUGMENTED, augmented), (AUGMENTED, AUGMENTED, augmented)]))
            together.append(time.perf_counter() - start)
    # Two processes do twice the work: half of their time is what one processor's share took.
    one = Seconds(float(np.median(alone)), min(alone))
    two = Seconds(float(np.median(together)) / 2, min(together) / 2)
    rows.append(("augmentation, processes", AUGMENTED, one, two))
    show(
        "Scaling to two cores (seconds on the wall)",
        ("Work", "Images/s on one", "Images/s on two", "Ratio"),
        [
            (name, f"{items / one.median:.0f}", f"{items / two.median:.0f}", faster(one, two, 1.8))
            for name, items, one, two in rows
        ],
    )
    print(f"\n{machine()}")
