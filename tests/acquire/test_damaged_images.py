"""Files that are no whole image of the formats that we read: none is guessed at, none is executed."""

from __future__ import annotations

import io
import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from chain import REPOSITORY
from PIL import EpsImagePlugin, Image, ImageOps

from lesion_core.acquire import images
from lesion_core.acquire.images import encode_image, inspect_image, read_image, read_mask, write_image
from lesion_core.acquire.readers.rows import list_files
from lesion_core.errors import ImageError, MaskError

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 100 100
%%EndComments
(out) (w) file dup (x) writestring closefile showpage
"""
ORIENTATION = 0x0112
SKIN = np.random.default_rng(0).normal(130, 20, (450, 600, 3)).clip(0, 255).astype(np.uint8)

SMOOTH = cv2.GaussianBlur(SKIN, (0, 0), 3)


def encoded(kind: str, array: np.ndarray = SKIN, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


def placed(folder: Path, content: bytes, name: str = "x.jpg") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_postscript_is_never_run(tmp_path, monkeypatch, read):
    ran = []
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *given, **_: ran.append(given) or Image.new("L", (9, 9)).im
    )
    with pytest.raises((ImageError, MaskError), match="does not decode as an image of JPEG"):
        read(placed(tmp_path, POSTSCRIPT))
    assert not ran


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_the_content_says_the_format(tmp_path, kind):
    path = placed(tmp_path, encoded(kind), "x.png" if kind == "JPEG" else "x.jpg")
    assert read_image(path).shape == SKIN.shape
    with pytest.raises(ImageError, match="does not decode"):
        read_image(placed(tmp_path, encoded("GIF", SKIN[:, :, 0])))


def test_one_module_opens_images():
    """Another way in would have other rules."""
    opener = re.compile(r"Image\.open\(|cv2\.imread\(|cv2\.imwrite\(|imageio|skimage\.io|torchvision\.io")
    found = {path for path in (REPOSITORY / "lesion_core").rglob("*.py") if opener.search(path.read_text())}
    assert found == {Path(images.__file__)}


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


DAMAGE = {
    "jpeg-half-closed": half(encoded("JPEG")) + b"\xff\xd9",
    "jpeg-zeros": zeroed(encoded("JPEG", quality=95)),
    "progressive-half-closed": half(encoded("JPEG", progressive=True)) + b"\xff\xd9",
    "progressive-zeros": zeroed(encoded("JPEG", progressive=True)),
    "grey-half-closed": half(encoded("JPEG", SKIN[:, :, 0])) + b"\xff\xd9",
    "png-zeros": zeroed(encoded("PNG")),
    "png-stored-zeros": zeroed(encoded("PNG", compress_level=0)),
    "tiff-lzw-zeros": zeroed(encoded("TIFF", compression="tiff_lzw")),
    "tiff-deflate-zeros": zeroed(encoded("TIFF", SMOOTH, compression="tiff_deflate")),
    "tiff-jpeg": zeroed(encoded("TIFF", compression="jpeg")),
    "tiff-fax": zeroed(encoded("TIFF", SKIN[:, :, 0] > 128, compression="group4")),
    **{f"{kind.lower()}-half": half(encoded(kind)) for kind in ("JPEG", "PNG", "BMP", "WEBP")},
    "tiff-half": half(encoded("TIFF")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_that_a_decoder_can_see_is_an_error(tmp_path, name):
    path = placed(tmp_path, DAMAGE[name])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.file == str(path)
    assert caught.value.remedy
    with pytest.raises(ImageError):  # a reduced JPEG has read every byte too
        read_image(path, at_least=50)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_whole_jpegs_have_the_pixels_that_pillow_gives(tmp_path, mode, options):
    content = io.BytesIO()
    Image.fromarray(SKIN[:333, :501]).convert(mode).save(content, "JPEG", **options)
    if mode == "CMYK" and options.get("subsampling") == 1:
        with pytest.raises(ImageError, match="subsampling"):
            read_image(placed(tmp_path, content.getvalue()))
        return
    path = placed(tmp_path, content.getvalue() + b"a camera's own data")
    with Image.open(path) as whole:
        np.testing.assert_array_equal(read_image(path), np.asarray(whole.convert("RGB")))
    with Image.open(path) as reduced:
        reduced.draft(None, (70, 70))
        np.testing.assert_array_equal(read_image(path, at_least=70), np.asarray(reduced.convert("RGB")))


def test_pipes_devices_and_links_to_nothing_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg"):
        with pytest.raises(ImageError, match="no regular file"):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="no regular file"):
        list_files(tmp_path)


def test_names_that_are_no_text_are_refused(tmp_path):
    placed(tmp_path, encoded("PNG"), os.fsdecode(b"\xff\xfe.jpg"))
    with pytest.raises(ImageError, match="rename the file") as caught:
        list_files(tmp_path)
    str(caught.value).encode("utf-8")


def test_size_has_a_limit(tmp_path, monkeypatch):
    bomb = placed(tmp_path, encoded("PNG", np.zeros((9000, 9000), bool)))
    with pytest.raises(ImageError, match="80 million pixels"):
        read_image(bomb)
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    with pytest.raises(ImageError, match="the file is over"):
        read_image(bomb)


@pytest.mark.parametrize("kind", [np.int32, np.uint16])
def test_wide_pixels_are_read_by_their_range(tmp_path, kind):
    grey = SKIN[:, :, 0]
    Image.fromarray(grey.astype(kind)).save(tmp_path / "a.tif")
    found = inspect_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.pixels[:, :, 1], grey)
    assert ("sixteen_bit", "values up to 255 kept") in found.repairs
    Image.fromarray((grey > 128).astype(kind)).save(tmp_path / "m.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), grey > 128)
    Image.fromarray(grey.astype(kind) * 10).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match="which of them is white"):
        read_image(tmp_path / "b.tif")


def test_wide_colour_that_uses_the_low_byte_alone_is_refused(tmp_path):
    write_image(tmp_path / "a.png", SKIN.astype(np.uint16))
    with pytest.raises(ImageError, match="lie below 256"):
        read_image(tmp_path / "a.png")


def test_damaged_exif_costs_no_image(tmp_path):
    """Its orientation counts where it can be read; Pillow's own ``exif_transpose`` fails on what stands beside it."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x011A] = 6, 72.0
    resolution, width = b"\x01\x1a\0\x05", b"\x01\0\0\x05"
    path = placed(tmp_path, encoded("JPEG", exif=exif).replace(resolution, width))
    with Image.open(path) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert read_image(path).shape == (600, 450, 3)


def test_an_image_that_cannot_be_encoded_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="cannot be encoded"):
        encode_image(np.zeros((0, 4), np.uint8))


def test_a_full_disk_leaves_no_empty_image(tmp_path, small_disk):
    disk = small_disk("size=400k")
    write_image(disk / "old.png", SKIN[:9, :9])
    old = (disk / "old.png").read_bytes()
    (disk / "fill").write_bytes(bytes(380_000))
    for name in ("new.png", "old.png"):
        with pytest.raises(OSError, match="No space left"):
            write_image(disk / name, SKIN)
    assert sorted(path.name for path in disk.iterdir()) == ["fill", "old.png"]
    assert (disk / "old.png").read_bytes() == old
