"""Fingerprints of images: a perceptual hash whose eight orientations follow from one another, and a thumbnail.

The hash holds the signs of 80 low DCT coefficients of a 64 x 64 luma thumbnail (after Zauner, "Implementation and
benchmarking of perceptual image hash functions", 2010, with the sign in place of the median). Mirroring an image
only negates its odd DCT rows or columns, and transposing it transposes the coefficients: so the hash of every flip
and quarter turn is a permutation and inversion of the hash's bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

BANDS = 4
BAND_BITS = 20
HASH_BITS = BANDS * BAND_BITS
GRID = 64  # thumbnail for the DCT
FREQUENCIES = 16
THUMBNAIL = 32  # thumbnail for the check on pixels
DETAIL_SIGMA = 2.0  # pixels at THUMBNAIL: what is smoother is skin, vignette and blob, alike in all images
MIN_DETAIL = 0.25  # grey levels; a flatter thumbnail tells nothing
ORIENTATIONS = 8
# Lowest frequency, sqrt(u^2 + v^2), of each parity of (u, v), (0, 1) being (1, 0) mirrored: what lies below is decided
# by the dark lesion in the middle of most images.
LOWEST = {(0, 0): 3.0, (1, 0): 1.5, (1, 1): 1.0}


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image for the duplicate search.

    Attributes:
        phash: uint32 (4,), 20 bits each; bit k of band b is set where DCT coefficient ``coefficients()[20 b + k]`` is
            positive.
        thumbnail: float32 (32, 32), high-passed luma of mean 0 and norm 1; all zero if the image has no detail.
    """

    phash: np.ndarray
    thumbnail: np.ndarray

    @property
    def hex(self) -> str:
        """The hash as 20 hexadecimal digits."""
        return "".join(f"{int(band):05x}" for band in self.phash)


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Fingerprint an image, uint8 (H, W, 3) RGB; insensitive to its size and aspect ratio."""
    import cv2

    small = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    luma = small @ np.array([0.299, 0.587, 0.114])
    basis = _dct_rows(GRID, FREQUENCIES)
    rows, columns = coefficients().T
    phash = _pack((basis @ luma @ basis.T)[rows, columns] > 0)
    half = GRID // THUMBNAIL
    detail = luma.reshape(THUMBNAIL, half, THUMBNAIL, half).mean(axis=(1, 3))
    detail = detail - cv2.GaussianBlur(detail, (0, 0), DETAIL_SIGMA, borderType=cv2.BORDER_REFLECT)
    detail -= detail.mean()
    norm = np.linalg.norm(detail)
    detail = detail / norm if norm > MIN_DETAIL * THUMBNAIL else np.zeros_like(detail)
    return Fingerprint(phash, detail.astype(np.float32))


@cache
def coefficients() -> np.ndarray:
    """Row and column frequency of the DCT coefficient behind each bit: intp (80, 2), closed under transposition.

    Of each parity of (row, column) the 20 lowest from LOWEST on, dealt out to the bands in turn: neighbouring
    frequencies agree in many images, and a band of such bits would hold few different keys.
    """
    dealt: list[list[tuple[int, int]]] = [[] for _ in range(BANDS)]
    for (odd_row, odd_column), lowest in LOWEST.items():
        own = [
            (row, column)
            for row in range(odd_row, FREQUENCIES, 2)
            for column in range(odd_column, FREQUENCIES, 2)
            if row**2 + column**2 >= lowest**2
        ]
        own = sorted(own, key=lambda place: (place[0] ** 2 + place[1] ** 2, max(place), place))[: HASH_BITS // 4]
        mirrored = [(column, row) for row, column in own] if odd_row != odd_column else []
        for number, place in enumerate(own + mirrored):
            dealt[number % BANDS].append(place)
    return np.array([place for band in dealt for place in band], dtype=np.intp)


def hash_orientations(hashes: np.ndarray) -> np.ndarray:
    """The hashes of all flips and quarter turns: uint32 (N, 4) to uint32 (8, N, 4); entry 0 is the input.

    Exact but for coefficients that are zero, whose sign is noise anyway.
    """
    bits = (hashes[:, :, None] >> np.arange(BAND_BITS, dtype=np.uint32) & 1).reshape(len(hashes), HASH_BITS) > 0
    places = [tuple(place) for place in coefficients().tolist()]
    transposed = bits[:, [places.index(place[::-1]) for place in places]]
    odd_rows, odd_columns = (coefficients() % 2 > 0).T
    out = []
    for base in (bits, transposed):
        out += [base, base ^ odd_rows, base ^ odd_columns, base ^ odd_rows ^ odd_columns]
    return np.stack([_pack(version) for version in out])


def thumbnail_orientations(thumbnails: np.ndarray) -> np.ndarray:
    """All flips and quarter turns of thumbnails: (N, S, S) to (8, N, S, S); entry 0 is the input."""
    out = []
    for base in (thumbnails, thumbnails.transpose(0, 2, 1)):
        out += [base, base[:, ::-1], base[:, :, ::-1], base[:, ::-1, ::-1]]
    return np.stack(out)


def _pack(bits: np.ndarray) -> np.ndarray:
    """bool (..., 80) to uint32 (..., 4)."""
    weights = np.uint32(1) << np.arange(BAND_BITS, dtype=np.uint32)
    return bits.reshape(*bits.shape[:-1], BANDS, BAND_BITS).astype(np.uint32) @ weights


@cache
def _dct_rows(size: int, rows: int) -> np.ndarray:
    """The first ``rows`` basis vectors of the DCT-II, (rows, size)."""
    frequency = np.arange(rows)[:, None]
    position = np.arange(size)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * size))
