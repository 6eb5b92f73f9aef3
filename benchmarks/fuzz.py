"""Damaged files through the readers: each is read or refused by a typed error. ``make fuzz`` (FILES=n, 100,000)."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import resource
import signal
import tempfile
import time
import zipfile
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_core.acquire.images import inspect_image, inspect_mask
from lesion_core.acquire.readers.rows import parse_age, parse_sex, read_table
from lesion_core.acquire.unpack import unpack_dataset
from lesion_core.errors import LesionError
from lesion_core.settings.load import load
from lesion_core.settings.yaml_file import read_yaml

PATIENCE = 20  # seconds for one file: more is a hang
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
FORMATS = {
    "jpeg": [{}, {"progressive": True}],
    "png": [{}, {"compress_level": 0}],
    "bmp": [{}],
    "tiff": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}],
    "webp": [{}, {"lossless": True}],
}
TABLE = b"image_id,age,sex,site\na,55,male,back\nb,,unknown,\n" + b'"c","60.5","F","face"\n'
ODD_BYTES = (b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b'"', b";", b"\n", b"\xef\xbb\xbf", b"%!PS")
ODD_VALUES = (None, -1, 0, 1e308, float("nan"), True, "", "all", "x" * 300, [], ["a"], [["a"]], {}, {"a": 1}, {1: {}})


def originals() -> dict[str, list[bytes]]:
    """Whole files by kind."""
    made: dict[str, list[bytes]] = {"table": [TABLE], "archive": [], "yaml": [b"a: {b: [1, 2]}\nc: &x d\ne: *x\n"]}
    for kind, choices in FORMATS.items():
        made[kind] = []
        for mode in ("RGB", "L"):
            for options in choices:
                content = io.BytesIO()
                Image.fromarray(PIXELS).convert(mode).save(content, kind, **options)
                made[kind].append(content.getvalue())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            archive.writestr("a/b.jpg", made["jpeg"][0])
            archive.writestr("a/c.csv", TABLE * 20)
        made["archive"].append(content.getvalue())
    return made


def damaged(content: bytes, draw: random.Random) -> bytes:
    """``content`` with one to eight changes: bytes set, cut, doubled, or odd ones put in."""
    body = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(min(len(body), draw.choice((64, len(body)))) or 1) if body else 0
        match draw.randrange(6):
            case 0 | 1:
                body[at : at + 1] = bytes([draw.randrange(256)])
            case 2:
                odd = draw.choice(ODD_BYTES)
                body[at : at + len(odd)] = odd
            case 3:
                del body[at : at + draw.randint(1, 40)]
            case 4:
                body[at:at] = body[at : at + draw.randint(1, 40)]
            case 5 if draw.random() < 0.2:
                del body[at:]
    return bytes(body)


def overrides(draw: random.Random, settings: dict) -> dict:
    """One value of the settings replaced by an odd one."""
    key = draw.choice(sorted(settings))
    inside = settings[key]
    if isinstance(inside, dict) and inside and draw.random() < 0.7:
        return {key: overrides(draw, inside)}
    return {key: draw.choice(ODD_VALUES)}


def read(kind: str, path: Path) -> None:
    """As the pipeline reads a file of this kind.

    Raises:
        LesionError: it is refused.
    """
    if kind in FORMATS:
        with suppress(LesionError):
            inspect_mask(path)
        inspect_image(path)
    elif kind == "table":
        for name, row in read_table(path, ["image_id", "age", "sex", "site"], key="image_id").items():
            parse_age(row["age"], name, path)
            parse_sex(row["sex"], name, path)
    elif kind == "archive":
        content = path.read_bytes()
        entry = {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (path.parent / "files.json").write_text(json.dumps({"dataset": "ham10000", "files": [entry]}))
        unpack_dataset("ham10000", path.parent, path.parent / "out")
    else:
        read_yaml(path)


@contextmanager
def patience(seconds: int):
    """TimeoutError after so many seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(files: int, seed: int = 0, until: float = float("inf")) -> tuple[Counter[str], list[str]]:
    """Counts of what was read and refused, and the untyped errors and hangs: (kind, number, error)."""
    whole, counts, faults = originals(), Counter[str](), []
    shared = read_yaml(Path(__file__).resolve().parents[1] / "params.yaml")
    kinds = [kind for kind in whole for _ in range(10 if kind in FORMATS else 5)]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            if time.monotonic() > until:
                break
            draw = random.Random(f"{seed} {number}")
            kind = "settings" if number % 500 == 0 else draw.choice(kinds)
            path = Path(folder) / f"x.{'zip' if kind == 'archive' else kind}"
            try:
                with patience(PATIENCE):
                    if kind == "settings":
                        load("smoke", overrides(draw, shared))
                    else:
                        path.write_bytes(damaged(draw.choice(whole[kind]), draw))
                        read(kind, path)
                counts[f"{kind} read"] += 1
            except LesionError:
                counts[f"{kind} refused"] += 1
            except Exception as error:  # what the test is for
                faults.append(f"{kind} {number}: {error!r}")
    return counts, faults


def main() -> None:
    """Fuzz, and say what came of it; exit status 1 for a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    given, started = parser.parse_args(), time.monotonic()
    counts, faults = fuzz(given.files, given.seed, started + 60 * given.minutes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(*(f"{name}: {count}" for name, count in sorted(counts.items())), *faults[:20], sep="\n")
    seconds = time.monotonic() - started
    print(f"{counts.total() + len(faults)} files, {len(faults)} faults, {peak:.2f} GB at most, {seconds:.0f} s")
    raise SystemExit(bool(faults) or peak > 2)


if __name__ == "__main__":
    main()
