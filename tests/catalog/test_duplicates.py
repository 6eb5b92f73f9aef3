"""Copies are found through resizing, compression and turns; strangers stay apart."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.catalog.duplicates import best_correlation, candidate_pairs, components, near_duplicates
from lesion_core.catalog.hashing import (
    BAND_BITS,
    BANDS,
    coefficients,
    fingerprint,
    hash_orientations,
    thumbnail_orientations,
)
from lesion_core.settings import Duplicates

CHOSEN = Duplicates(max_hamming=9, min_correlation=0.95)


def synthetic_image(seed: int, height: int = 150, width: int = 200) -> np.ndarray:
    """Skin-like texture with a dark blob in the middle, as dermoscopy looks: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / height
    blob = np.exp(-(((rows - 0.5) / 0.22) ** 2 + ((columns - 0.66) / 0.25) ** 2))
    image = np.full((height, width), 190.0) - 110 * blob
    for side, strength in ((6, 14), (16, 12), (48, 10)):
        coarse = rng.normal(size=(side, side)).astype(np.float32)
        image += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    tinted = image[:, :, None] * np.array([1.0, 0.82, 0.74])
    return np.clip(tinted, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def orientations(image: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(np.rot90(side, turn)) for side in (image, image[:, ::-1]) for turn in range(4)]


def brute_force(hashes: np.ndarray, max_hamming: int) -> list[list[int]]:
    bits = np.bitwise_count(hash_orientations(hashes)[:, :, None] ^ hashes[None, None, :])
    distance = bits.sum(axis=-1, dtype=int).min(axis=0)
    return [[i, j] for i in range(len(hashes)) for j in range(i + 1, len(hashes)) if distance[i, j] <= max_hamming]


def test_hash_of_every_orientation_follows_from_one_hash():
    image = synthetic_image(0)
    derived = hash_orientations(fingerprint(image).phash[None])[:, 0]
    assert (derived[0] == fingerprint(image).phash).all()
    assert len({version.tobytes() for version in derived}) == 8
    for turned in orientations(image):
        distance = np.bitwise_count(fingerprint(turned).phash ^ derived).sum(axis=1, dtype=int)
        assert distance.min() <= 1


def test_hash_holds_eighty_different_coefficients_and_their_transposes():
    places = [tuple(place) for place in coefficients().tolist()]
    assert len(set(places)) == len(places) == BANDS * BAND_BITS
    assert {(column, row) for row, column in places} == set(places)
    assert (0, 0) not in places


def test_hash_bits_are_the_signs_of_the_dct():
    from scipy.fft import dctn

    grey = np.random.default_rng(5).integers(0, 256, (64, 64)).astype(np.uint8)
    expected = dctn(grey.astype(float), type=2)
    phash = fingerprint(np.repeat(grey[:, :, None], 3, axis=2)).phash
    for number, (row, column) in enumerate(coefficients().tolist()):
        band, bit = divmod(number, BAND_BITS)
        assert (int(phash[band]) >> bit & 1) == (expected[row, column] > 0)


def test_hash_is_twenty_hexadecimal_digits_and_repeats():
    first, second = fingerprint(synthetic_image(1)), fingerprint(synthetic_image(1))
    assert first.hex == second.hex
    assert len(first.hex) == 20
    assert [int(first.hex[start : start + 5], 16) for start in range(0, 20, 5)] == first.phash.tolist()


def test_thumbnail_orientations_are_the_eight_of_the_square():
    grid = np.arange(9.0).reshape(1, 3, 3)
    found = {side.tobytes() for side in thumbnail_orientations(grid)[:, 0]}
    assert found == {np.ascontiguousarray(side).tobytes() for side in orientations(grid[0])}


def test_flat_images_are_never_duplicates():
    flat = [fingerprint(np.full((40, 50, 3), grey, np.uint8)) for grey in (10, 10, 200)]
    hashes = np.stack([one.phash for one in flat])
    pairs, _ = near_duplicates(hashes, np.stack([one.thumbnail for one in flat]), CHOSEN)
    assert len(pairs) == 0


@given(st.integers(0, 2**32), st.integers(0, 11), st.integers(2, 60))
@settings(max_examples=8, deadline=None)
def test_candidates_equal_brute_force(seed, max_hamming, count):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << BAND_BITS, (count, BANDS), dtype=np.uint32)
    # Near copies, in a random orientation, so that there is something to find.
    for copy in range(count // 2):
        hashes[-1 - copy] = hash_orientations(hashes[copy : copy + 1])[rng.integers(8), 0]
        for bit in rng.choice(BANDS * BAND_BITS, rng.integers(0, 16), replace=False):
            hashes[-1 - copy, bit // BAND_BITS] ^= np.uint32(1 << (bit % BAND_BITS))
    assert candidate_pairs(hashes, max_hamming).tolist() == brute_force(hashes, max_hamming)


def test_no_or_one_image_has_no_pairs():
    assert candidate_pairs(np.zeros((0, BANDS), np.uint32), 5).shape == (0, 2)
    assert candidate_pairs(np.zeros((1, BANDS), np.uint32), 5).shape == (0, 2)
    assert best_correlation(np.zeros((1, 32, 32), np.float32), np.zeros((0, 2), np.intp)).shape == (0,)


def test_planted_duplicates_are_found_and_nothing_else():
    rng = np.random.default_rng(3)
    images = [synthetic_image(seed) for seed in range(120)]
    truth = set()
    for copy in range(60):
        image = images[copy]
        if copy % 3 != 0:
            size = int(200 * rng.uniform(0.5, 1.6)), int(150 * rng.uniform(0.5, 1.6))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if copy % 2 else cv2.INTER_CUBIC)
        if copy % 3 != 1:
            image = orientations(image)[rng.integers(8)]
        truth.add((copy, len(images)))
        images.append(jpeg(image, int(rng.integers(60, 96))))
    prints = [fingerprint(image) for image in images]
    pairs, correlation = near_duplicates(
        np.stack([one.phash for one in prints]), np.stack([one.thumbnail for one in prints]), CHOSEN
    )
    assert {tuple(pair) for pair in pairs.tolist()} == truth
    assert (correlation >= CHOSEN.min_correlation).all()
    assert (correlation <= 1).all()


def test_components_take_the_smallest_member():
    roots = components(7, [(5, 3), (3, 1), (6, 2), (2, 6)])
    assert roots.tolist() == [0, 1, 2, 1, 4, 1, 2]
    assert components(2, [(0, 1), (1, 0)]).tolist() == [0, 0]
