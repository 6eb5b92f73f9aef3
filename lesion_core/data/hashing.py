"""Fingerprints of photographs: a perceptual hash whose eight orientations follow from one another, and a thumbnail.

The hash holds the signs of the 8 x 8 lowest DCT coefficients of a 64 x 64 luma thumbnail (after Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010, with the sign in place of the
median). Mirroring an image only negates its odd DCT rows or columns, and transposing it transposes the
coefficients: so the hash of every flip and quarter turn is a bit operation on the hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HASH_SIDE = 8
GRID = 64  # thumbnail for the DCT
THUMBNAIL = 32  # thumbnail for the check on pixels
DETAIL_SIGMA = 2.0  # pixels at THUMBNAIL: what is smoother is skin, vignette and blob, alike in all photographs
MIN_DETAIL = 0.25  # grey levels; a flatter thumbnail tells nothing
ORIENTATIONS = 8


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a photograph for the duplicate search.

    Attributes:
        phash: 64 bits as an int; bit 8 u + v is set where DCT coefficient (row u, column v) is positive, bit 0 never.
        thumbnail: float32 (32, 32), high-passed luma of mean 0 and norm 1; all zero if the photograph has no detail.
    """

    phash: int
    thumbnail: np.ndarray

    @property
    def hex(self) -> str:
        """The hash as 16 hexadecimal digits."""
        return f"{self.phash:016x}"


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Fingerprint a photograph, uint8 (H, W, 3) RGB; insensitive to its size and aspect ratio."""
    import cv2

    small = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    luma = small @ np.array([0.299, 0.587, 0.114])
    basis = _dct_rows(GRID, HASH_SIDE)
    positive = ((basis @ luma @ basis.T) > 0).ravel()
    positive[0] = False
    phash = sum(1 << int(bit) for bit in np.flatnonzero(positive))
    half = GRID // THUMBNAIL
    detail = luma.reshape(THUMBNAIL, half, THUMBNAIL, half).mean(axis=(1, 3))
    detail = detail - cv2.GaussianBlur(detail, (0, 0), DETAIL_SIGMA, borderType=cv2.BORDER_REFLECT)
    detail -= detail.mean()
    norm = np.linalg.norm(detail)
    detail = detail / norm if norm > MIN_DETAIL * THUMBNAIL else np.zeros_like(detail)
    return Fingerprint(phash, detail.astype(np.float32))


def hash_orientations(hashes: np.ndarray) -> np.ndarray:
    """The hashes of all flips and quarter turns: uint64 (N,) to uint64 (8, N); row 0 is the input.

    Exact but for coefficients that are zero, whose sign is noise anyway.
    """
    rows, columns = np.divmod(np.arange(HASH_SIDE**2, dtype=np.uint64), np.uint64(HASH_SIDE))
    odd_rows = np.bitwise_or.reduce(np.uint64(1) << np.flatnonzero(rows % 2).astype(np.uint64))
    odd_columns = np.bitwise_or.reduce(np.uint64(1) << np.flatnonzero(columns % 2).astype(np.uint64))
    transposed = np.zeros_like(hashes)
    for row, column in zip(rows, columns, strict=True):
        bit = (hashes >> (row * np.uint64(HASH_SIDE) + column)) & np.uint64(1)
        transposed |= bit << (column * np.uint64(HASH_SIDE) + row)
    out = []
    for base in (hashes, transposed):
        out += [base, base ^ odd_rows, base ^ odd_columns, base ^ odd_rows ^ odd_columns]
    return np.stack(out)


def thumbnail_orientations(thumbnails: np.ndarray) -> np.ndarray:
    """All flips and quarter turns of thumbnails: (N, S, S) to (8, N, S, S); entry 0 is the input."""
    out = []
    for base in (thumbnails, thumbnails.transpose(0, 2, 1)):
        out += [base, base[:, ::-1], base[:, :, ::-1], base[:, ::-1, ::-1]]
    return np.stack(out)


def _dct_rows(size: int, rows: int) -> np.ndarray:
    """The first ``rows`` basis vectors of the DCT-II, (rows, size)."""
    frequency = np.arange(rows)[:, None]
    position = np.arange(size)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * size))
