"""Decoding of images and masks: every stated rule, and planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lesion_core.acquire.images import inspect_mask, read_image, read_mask
from lesion_core.errors import ImageError, MaskError


def picture(height=24, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 6, (rows + columns) * 4], axis=2).astype(np.uint8)


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    image = picture()
    read = read_image(save(tmp_path / f"a{suffix}", image))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)
    read[0, 0] = 1  # writable


def test_greyscale_becomes_three_equal_channels(tmp_path):
    grey = picture()[:, :, 0]
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", grey)), np.repeat(grey[:, :, None], 3, axis=2))


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[0, 1] = (0, 0, 0, 128)
    read = read_image(save(tmp_path / "a.png", rgba))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == [127, 127, 127]
    np.testing.assert_array_equal(read[1:], picture()[1:])


def test_transparent_palette_and_grey_with_alpha(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [[[255, 255, 255], [0, 200, 0]]]
    layers = np.array([[[7, 255], [7, 0]]], np.uint8)
    Image.fromarray(layers, "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").tolist() == [[[7, 7, 7], [255, 255, 255]]]


def test_cmyk_is_converted(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :, 0] = 255  # cyan only
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[8, 8]
    assert red < 10
    assert green > 245
    assert blue > 245


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    wide = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255]
    Image.fromarray(wide).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 2].tolist() == [0, 0, 1, 255]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="not supported"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = picture()
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)


def test_zero_bytes_text_and_absent_files_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match="zero bytes"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(ImageError, match="does not decode"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "absent.jpg")


def disc(height=24, width=32, low=0, high=255):
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    return np.where(inside, high, low).astype(np.uint8)


def test_mask_threshold_is_above_128(tmp_path):
    values = np.array([[0, 128, 129, 255] * 10], np.uint8)
    values = np.concatenate([values, np.zeros((30, 40), np.uint8)])
    mask = read_mask(save(tmp_path / "m.png", values))
    assert mask.dtype == bool
    assert mask[0, :4].tolist() == [False, False, True, True]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_mask_modes_read_alike(tmp_path, mode):
    Image.fromarray(disc()).convert(mode).save(tmp_path / "m.png")
    read = inspect_mask(tmp_path / "m.png", (24, 32))
    np.testing.assert_array_equal(read.pixels, disc() > 0)
    assert read.repairs == ()


def test_low_two_valued_masks_are_repaired(tmp_path):
    read = inspect_mask(save(tmp_path / "m.png", disc(high=1)))
    np.testing.assert_array_equal(read.pixels, disc() > 0)
    assert [kind for kind, _ in read.repairs] == ["low_values"]


def test_jpeg_mask_is_cut_and_told(tmp_path):
    big = disc(240, 320)
    Image.fromarray(big).save(tmp_path / "m.jpg", quality=60)
    read = inspect_mask(tmp_path / "m.jpg", (240, 320))
    assert [kind for kind, _ in read.repairs] == ["grey_values"]
    assert np.mean(read.pixels != (big > 0)) < 0.005


def test_mask_of_another_size_is_resized_only_if_the_aspect_agrees(tmp_path):
    path = save(tmp_path / "m.png", disc(24, 32))
    read = inspect_mask(path, (48, 64))
    np.testing.assert_array_equal(read.pixels, np.kron(disc(24, 32), np.ones((2, 2))) > 0)
    assert [kind for kind, _ in read.repairs] == ["resized"]
    for wrong in [(32, 24), (48, 48)]:
        with pytest.raises(MaskError, match="aspect"):
            read_mask(path, wrong)


def test_empty_and_full_masks_are_told(tmp_path):
    for name, value in (("empty", 0), ("full", 255)):
        read = inspect_mask(save(tmp_path / f"{name}.png", np.full((8, 8), value, np.uint8)))
        assert [kind for kind, _ in read.repairs] == [name]
        assert read.pixels.all() == (name == "full")


def test_what_is_no_mask_is_refused(tmp_path):
    with pytest.raises(MaskError, match="coloured"):
        read_mask(save(tmp_path / "photo.png", picture()))
    with pytest.raises(MaskError, match="neither background nor lesion"):
        read_mask(save(tmp_path / "soft.png", picture()[:, :, 1]))
    (tmp_path / "empty.png").touch()
    with pytest.raises(MaskError, match="zero bytes"):
        read_mask(tmp_path / "empty.png")
