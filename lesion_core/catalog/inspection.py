"""One pass over every file: bytes hashed, each different image decoded once, every mask checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from lesion_core import settings
from lesion_core.acquire.images import inspect_image, inspect_mask
from lesion_core.acquire.opencv import single_thread
from lesion_core.acquire.readers import Row
from lesion_core.catalog.hashing import Fingerprint, fingerprint
from lesion_core.catalog.views import Features, local_features
from lesion_core.errors import ImageError, LesionError, MaskError
from lesion_core.files import sha256_file
from lesion_core.progress import track
from lesion_core.seeding import granted_threads

WORKERS = 2  # decoding, hashing and resizing release the interpreter's lock, so threads do
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pixels:
    """What an image's pixels say.

    Attributes:
        width, height: pixels, upright.
        fingerprint: for the search for copies.
        features: for the search for other views of the same lesion.
        repairs: (kind, detail) of what was converted while it was read.
    """

    width: int
    height: int
    fingerprint: Fingerprint
    features: Features
    repairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Inspected:
    """What the files of one row say.

    Attributes:
        sha256: hex digest of the image's bytes.
        pixels: of the image; rows of equal bytes share them.
        mask_sha256: hex digest of the mask's bytes; None without a mask that has lesion pixels.
        problems: (kind, detail) of what was repaired or set aside.
    """

    sha256: str
    pixels: Pixels
    mask_sha256: str | None
    problems: tuple[tuple[str, str], ...]


def inspect_rows(rows: Sequence[Row], views: settings.Views) -> list[Inspected]:
    """Inspect all rows on two threads, results in the rows' order; ``views`` says how many features are kept.

    Raises:
        ImageError: naming all images that cannot be used.
        MaskError: naming all masks that cannot be used.
    """
    digests = _collect(rows, _digest, rows, "hashing files", ImageError)
    first_of: dict[str, Row] = {}
    for row, digest in zip(rows, digests, strict=True):
        first_of.setdefault(digest, row)
    different = list(first_of.values())
    measured = _collect(different, partial(_measure, views=views), different, "inspecting images", ImageError)
    pixels = dict(zip(first_of, measured, strict=True))
    shapes = [(pixels[digest].height, pixels[digest].width) for digest in digests]
    masks = _collect(zip(rows, shapes, strict=True), _check_mask, rows, "inspecting masks", MaskError)
    return [
        Inspected(digest, pixels[digest], mask_digest, (*pixels[digest].repairs, *problems))
        for digest, (mask_digest, problems) in zip(digests, masks, strict=True)
    ]


def _digest(row: Row) -> str:
    try:
        return sha256_file(row.path)
    except OSError as error:
        raise ImageError(
            f"the file cannot be read ({error.strerror})", file=row.path, remedy="fetch the release again"
        ) from error


def _measure(row: Row, views: settings.Views) -> Pixels:
    original = inspect_image(row.path)
    height, width = original.pixels.shape[:2]
    prints = fingerprint(original.pixels)
    return Pixels(width, height, prints, local_features(original.pixels, views), original.repairs)


def _check_mask(item: tuple[Row, tuple[int, int]]) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    row, shape = item
    if row.mask_path is None:
        return None, ()
    mask = inspect_mask(row.mask_path, shape)
    # A mask without lesion pixels says nothing about where the lesion is.
    return sha256_file(row.mask_path) if mask.pixels.any() else None, mask.repairs


def _collect(
    items: Iterable, work: Callable[..., Result], rows: Sequence[Row], label: str, kind: type[LesionError]
) -> list[Result]:
    """``work`` on every item; errors of ``kind`` are gathered, so that all bad files are named at once."""

    def attempt(item) -> Result | LesionError:
        try:
            return work(item)
        except kind as error:
            return error

    with single_thread(), ThreadPoolExecutor(granted_threads(WORKERS)) as pool:
        results = list(track(pool.map(attempt, items), label, total=len(rows)))
    bad = [(row, result) for row, result in zip(rows, results, strict=True) if isinstance(result, kind)]
    if bad:
        first = bad[0][1]
        message = first.message if len(bad) == 1 else f"{len(bad)} files cannot be used; the first: {first.message}"
        ids = ["/".join(row.key) for row, _ in bad]
        raise kind(message, file=first.file, ids=ids, remedy=first.remedy) from first
    return [result for result in results if not isinstance(result, LesionError)]
