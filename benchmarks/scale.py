"""`make bench-scale`: the data stages on synthetic releases of the official counts, names and formats.

HAM10000 (600 x 450, masks), ISIC 2018 Task 1 (1022 x 767, some of 4288 x 2848 and 6748 x 4499) and ISIC 2019
(`_downsampled` names), in their official proportions, from a server of this machine. ISIC 2017 is not among them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from benchmarks.duplicates import exponent
from benchmarks.made import GRAIN, JPEG_QUALITY, drawn
from benchmarks.turns import machine, show
from lesion_core.acquire.images import encode_image
from lesion_core.acquire.opencv import single_thread
from lesion_core.acquire.readers import ham10000, isic2019
from lesion_core.catalog.duplicates import candidate_pairs
from lesion_core.files import sha256_file, write_csv, write_text
from lesion_core.progress import say
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES
from lesion_core.settings import load as config
from lesion_core.settings.stored import store

OFFICIAL = {"ham10000": 10_015, "isic2018_task1": 2594, "isic2019": 25_331}
SIZES = (1000, 10_000, sum(OFFICIAL.values()))
FIRST = {"ham10000": 24_306, "isic2018_task1": 0, "isic2019": 100_000}  # image ids, which must differ
HASHES = (10_000, 100_000)
SPLITS, HOME, SIDE = "shared/leak_free", "sam_vit_protocol/leak_free", 256  # with a reference histogram
DRAWN = 112  # height in pixels of a scene as it is drawn; it is enlarged from there
LESIONS = 7470 / 10_015  # per image of HAM10000
MIB = 1 << 20
MEASURED = ("s", "core s", "largest process, MiB", "written, MiB")  # of a `Cost`


def counts_of(images: int) -> dict[str, int]:
    """Images of each release, in the official proportions, at least one of each class and split."""
    whole = sum(OFFICIAL.values())
    return {name: max(10 * len(CLASSES), round(images * count / whole)) for name, count in OFFICIAL.items()}


def frame(dataset: str, number: int) -> tuple[int, int]:
    """Height and width in pixels."""
    if dataset != "isic2018_task1":
        return 450, 600
    return (4499, 6748) if number % 500 == 499 else (2848, 4288) if number % 20 == 19 else (767, 1022)


def picture(job: tuple[str, int]) -> tuple[bytes, bytes]:
    """JPEG and mask PNG of an image (dataset, number): another lesion each time."""
    dataset, number = job
    height, width = frame(dataset, number)
    with single_thread():
        small, mask = drawn(FIRST[dataset] + number, DRAWN, round(DRAWN * width / height))
        large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        large += GRAIN * generator("scale grain", dataset, number).standard_normal(large.shape, dtype=np.float32)
        image = np.clip(np.rint(large), 0, 255).astype(np.uint8)
        outline = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_NEAREST)
        return encode_image(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY), encode_image(outline, ".png")


def write_releases(out: Path, counts: dict[str, int], processes: int) -> None:
    """The archives and tables of each release, one image in memory at a time, and SHA256SUMS."""
    out.mkdir(parents=True)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for dataset, count in counts.items():
            made = pool.map(picture, [(dataset, number) for number in range(count)], chunksize=16)
            WRITERS[dataset](out, [f"ISIC_{FIRST[dataset] + number:07d}" for number in range(count)], made)
    write_text(out / "SHA256SUMS", "".join(f"{sha256_file(path)}  {path.name}\n" for path in sorted(out.iterdir())))


def _ham10000(out: Path, ids: list[str], made: Iterable[tuple[bytes, bytes]]) -> None:
    masks = "HAM10000_segmentations_lesion_tschandl"
    half = (len(ids) + 1) // 2
    with (
        zipfile.ZipFile(out / "HAM10000_images_part_1.zip", "w") as first,
        zipfile.ZipFile(out / "HAM10000_images_part_2.zip", "w") as second,
        zipfile.ZipFile(out / f"{masks}.zip", "w") as outlines,
    ):
        for number, (name, (image, mask)) in enumerate(zip(ids, made, strict=True)):
            (first if number < half else second).writestr(f"{name}.jpg", image)
            outlines.writestr(f"{masks}/{name}_segmentation.png", mask)
    known = {"dx_type": "histo", "age": "50.0", "sex": "male", "localization": "back"}
    rows = [
        {"lesion_id": f"HAM_{round(number * LESIONS):07d}", "image_id": name, **known}
        | {"dx": CLASSES[round(number * LESIONS) % len(CLASSES)]}
        for number, name in enumerate(ids)
    ]
    write_csv(out / ham10000.METADATA, ham10000.COLUMNS, rows)


def _task1(out: Path, ids: list[str], made: Iterable[tuple[bytes, bytes]]) -> None:
    inputs, truth = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
    with zipfile.ZipFile(out / f"{inputs}.zip", "w") as images, zipfile.ZipFile(out / f"{truth}.zip", "w") as masks:
        for name, (image, mask) in zip(ids, made, strict=True):
            images.writestr(f"{inputs}/{name}.jpg", image)
            masks.writestr(f"{truth}/{name}_segmentation.png", mask)


def _isic2019(out: Path, ids: list[str], made: Iterable[tuple[bytes, bytes]]) -> None:
    names = [f"{name}_downsampled" if number % 10 == 0 else name for number, name in enumerate(ids)]
    with zipfile.ZipFile(out / f"{isic2019.IMAGES}.zip", "w") as images:
        for name, (image, _) in zip(names, made, strict=True):
            images.writestr(f"{isic2019.IMAGES}/{name}.jpg", image)
    classes = isic2019.COLUMNS[:7]
    labels = [
        {"image": name} | {label: float(label == classes[number % 7]) for label in isic2019.COLUMNS}
        for number, name in enumerate(names)
    ]
    write_csv(out / isic2019.LABELS, ["image", *isic2019.COLUMNS], labels)
    fields = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    write_csv(out / isic2019.METADATA, fields, [dict.fromkeys(fields, "") | {"image": name} for name in names])


WRITERS = {"ham10000": _ham10000, "isic2018_task1": _task1, "isic2019": _isic2019}


class Quiet(SimpleHTTPRequestHandler):
    """A folder's files, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:
        """Send a file, unless who asked has gone: a download asks first what there is."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)


@dataclass
class Cost:
    """Seconds on the wall and of processors, the largest process in MiB, and what was written in MiB."""

    wall: float = 0.0
    processor: float = 0.0
    memory: float = 0.0
    disk: float = 0.0


def measure(cost: Cost, root: Path, arguments: Sequence[str]) -> None:
    """Run ``lesion`` with these arguments; add to the stage's cost. SystemExit with its log where it fails."""
    before, start, log = size_of(root), time.perf_counter(), root / "bench.log"
    with open(log, "w", encoding="utf-8") as handle:
        command = [sys.executable, "-m", "lesion_core.cli", *arguments, "--root", str(root)]
        job = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise SystemExit(log.read_text(encoding="utf-8")[-3000:])
    cost.wall += time.perf_counter() - start
    cost.processor += usage.ru_utime + usage.ru_stime
    cost.memory = max(cost.memory, usage.ru_maxrss / 1024)
    cost.disk += (size_of(root) - before) / MIB


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def stages(work: Path, counts: dict[str, int]) -> dict[str, Cost]:
    """Run every stage on the releases in ``work/mirror``; what each took."""
    root = work / "results"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=work / "mirror")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        scored = {"segmentation_on": ["isic2018_task1"], "classification_on": ["ham10000"]}
        given = {"mirror": f"http://127.0.0.1:{server.server_port}", "data": {"datasets": sorted(counts)}}
        store(config.load("paper", given | {"papers": ["dual_network"], "scoring": scored}), root)
        jobs = [("download", ["download", name]) for name in counts] + [("unpack", ["unpack", name]) for name in counts]
        jobs += [("catalog", ["catalog"]), ("splits", ["splits", SPLITS]), ("reference", ["reference", HOME])]
        jobs += [("harmonize", ["harmonize", HOME, name, str(SIDE)]) for name in counts]
        found: dict[str, Cost] = {}
        for stage, arguments in jobs:
            say(f"{stage}: {sum(counts.values())} images")
            measure(found.setdefault(stage, Cost()), root, arguments)
        server.shutdown()
    return found


def hashes(sizes: Sequence[int]) -> None:
    """Seconds of the search among random hashes, a tenth of which have a neighbour three bits away."""
    largest, taken = config.load().duplicates.max_hamming, {}
    for size in sizes:
        rng = generator("scale hashes", size)
        given = rng.integers(0, 1 << 20, (size, 4), dtype=np.uint32)
        near = size // 10
        given[-near:] = given[:near] ^ np.uint32([1, 2, 4, 0])
        start = time.process_time()
        pairs = candidate_pairs(given, largest)
        taken[size] = time.process_time() - start
        assert len(pairs) >= near
    show("Search among hashes", ("Hashes", "core s"), [(size, f"{taken[size]:.2f}") for size in sizes])
    print(f"\nGrowth exponent {exponent(taken):.2f} (quadratic: 2).")


def _growth(found: dict[int, dict[str, Cost]], stage: str) -> list[float]:
    return [exponent({size: max(vars(found[size][stage])[name], 1e-3) for size in found}) for name in vars(Cost())]


def main() -> None:
    """Print a table of the stages at each size, with the exponents of their growth."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, nargs="+", default=SIZES, help="in all; the last default is official")
    parser.add_argument("--hashes", type=int, nargs="+", default=HASHES)
    parser.add_argument("--processes", type=int, default=2, help="that draw the images")
    given = parser.parse_args()
    print(f"# Data stages at scale\n\n{machine()}", flush=True)
    found: dict[int, dict[str, Cost]] = {}
    for images in sorted(given.images):
        counts = counts_of(images)
        with tempfile.TemporaryDirectory() as folder:
            write_releases(Path(folder) / "mirror", counts, given.processes)
            costs = found[sum(counts.values())] = stages(Path(folder), counts)
        rows = [(stage, *(f"{value:.1f}" for value in vars(cost).values())) for stage, cost in costs.items()]
        show(f"{sum(counts.values())} images", ("Stage", *MEASURED), rows)
    if len(found) > 1:
        grown = [(stage, *(f"{value:.2f}" for value in _growth(found, stage))) for stage in next(iter(found.values()))]
        show("Growth exponents", ("Stage", *MEASURED), grown)
    hashes(given.hashes)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
