"""JPEGs scaled while they are decoded: what changes, what does not, and which settings refuse it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from lesion_core.acquire.images import read_image
from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.acquire.synthetic.lesion import make_lesion
from lesion_core.errors import ImageError
from lesion_core.pixels.harmonize import harmonize_image, read_original
from lesion_core.seeding import generator
from lesion_core.settings import Harmonization

SETTINGS = {
    "histogram": "none",
    "colour": "none",
    "hair_removal": False,
    "mask_closing": 3,
    "mask_min_component": 0.0005,
    "mask_smoothing": 2.0,
    "soft_mask_sigma": 2.0,
}


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = generator(0, "scaled decoding")
    pixels, _ = synthetic_image(make_lesion(draw, "mel"), draw, (600, 800))
    path = tmp_path_factory.mktemp("originals") / "a.jpg"
    Image.fromarray(pixels).save(path, quality=92)
    return path


@pytest.mark.parametrize(
    ("at_least", "shape"), [(64, (75, 100)), (128, (150, 200)), (300, (300, 400)), (301, (600, 800))]
)
def test_a_jpeg_is_reduced_as_far_as_both_sides_allow(jpeg: Path, at_least: int, shape: tuple[int, int]) -> None:
    assert read_image(jpeg, at_least=at_least).shape == (*shape, 3)


def test_scaled_decoding_is_close_and_off_by_default(jpeg: Path) -> None:
    plain, scaled = Harmonization(**SETTINGS), Harmonization(**SETTINGS, scaled_decoding=True)
    assert not plain.scaled_decoding
    whole = harmonize_image(read_original(jpeg, 128, plain), 128, None, plain, []).astype(int)
    reduced = harmonize_image(read_original(jpeg, 128, scaled), 128, None, scaled, []).astype(int)
    difference = np.abs(whole - reduced).mean()
    assert 0 < difference < 2.5
    # Had the reduced image been shifted by a pixel, the difference would be larger than this.
    assert difference < 0.5 * np.abs(whole - np.roll(reduced, 1, axis=1)).mean()


def test_a_image_that_is_small_enough_is_decoded_alike(jpeg: Path) -> None:
    settings = Harmonization(**SETTINGS, scaled_decoding=True)
    np.testing.assert_array_equal(read_original(jpeg, 512, settings), read_image(jpeg))


def test_exif_orientation_is_applied_to_the_reduced_image(jpeg: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(jpeg).save(tmp_path / "turned.jpg", exif=exif, quality=92)
    assert read_image(tmp_path / "turned.jpg", at_least=128).shape == (200, 150, 3)


def test_other_formats_are_decoded_whole_and_broken_files_are_refused(jpeg: Path, tmp_path: Path) -> None:
    Image.open(jpeg).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", at_least=64).shape == (600, 800, 3)
    (tmp_path / "cut.jpg").write_bytes(jpeg.read_bytes()[:-2000])
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "cut.jpg", at_least=64)


def test_hair_removal_refuses_scaled_decoding() -> None:
    with pytest.raises(ValidationError, match="hair is sought at full resolution"):
        Harmonization(**{**SETTINGS, "hair_removal": True}, scaled_decoding=True)
