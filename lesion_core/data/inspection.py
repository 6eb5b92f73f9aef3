"""One pass over every file: bytes hashed, photograph decoded and fingerprinted, mask checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lesion_core.data.hashing import Fingerprint, fingerprint
from lesion_core.data.images import decode_image, inspect_mask, read_file
from lesion_core.data.opencv import single_thread
from lesion_core.data.readers import Row
from lesion_core.data.views import Features, local_features
from lesion_core.errors import ImageError, LesionError, MaskError
from lesion_core.progress import track

WORKERS = 2  # decoding, hashing and resizing release the interpreter's lock, so threads do


@dataclass(frozen=True)
class Inspected:
    """What the pixels of one row say.

    Attributes:
        width, height: pixels, upright.
        sha256: hex digest of the photograph's bytes.
        fingerprint: for the search for copies.
        features: for the search for other views of the same lesion.
        mask_usable: a mask is there and has lesion pixels.
        problems: (kind, detail) of what was repaired or set aside.
    """

    width: int
    height: int
    sha256: str
    fingerprint: Fingerprint
    features: Features
    mask_usable: bool
    problems: tuple[tuple[str, str], ...]


def inspect_rows(rows: Sequence[Row]) -> list[Inspected]:
    """Inspect all rows on two threads, results in the rows' order.

    Raises:
        ImageError, MaskError: naming all files of that kind that cannot be used, photographs first.
    """
    with single_thread(), ThreadPoolExecutor(WORKERS) as pool:
        results = list(track(pool.map(_inspect, rows), "inspecting photographs", total=len(rows)))
    for kind, what in ((ImageError, "photographs"), (MaskError, "masks")):
        bad = [(row, result) for row, result in zip(rows, results, strict=True) if type(result) is kind]
        if len(bad) == 1:
            row, error = bad[0]
            raise kind(error.message, file=error.file, ids=["/".join(row.key)], remedy=error.remedy) from error
        if bad:
            first = bad[0][1]
            raise kind(
                f"{len(bad)} {what} cannot be used; the first: {first.message}",
                file=first.file,
                ids=["/".join(row.key) for row, _ in bad],
                remedy=first.remedy,
            ) from first
    return results


def _inspect(row: Row) -> Inspected | LesionError:
    """Errors are returned, so that all bad files are named at once."""
    try:
        content = read_file(row.path)
        image = decode_image(content, row.path)
        height, width = image.shape[:2]
        problems: tuple[tuple[str, str], ...] = ()
        usable = False
        if row.mask_path is not None:
            mask = inspect_mask(row.mask_path, (height, width))
            problems = mask.repairs
            # A mask without lesion pixels says nothing about where the lesion is.
            usable = bool(mask.pixels.any())
        digest = hashlib.sha256(content).hexdigest()
        return Inspected(width, height, digest, fingerprint(image), local_features(image), usable, problems)
    except (ImageError, MaskError) as error:
        return error
