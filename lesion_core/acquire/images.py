"""Decode images and masks under stated rules; a file that does not decode whole is refused, never guessed. And encode.

Only the formats of ``FORMATS`` are opened, whatever a file is called: Pillow knows some that execute code.
simplejpeg decodes JPEGs (libjpeg-turbo, the same pixels as Pillow's), since it makes the decoder's warnings errors:
Pillow and OpenCV fill what is missing with grey and say nothing. BMP, TIFF and WebP have no checksums that are read:
there what is cut is found, and of changed bytes those that the decoder cannot make sense of.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from lesion_core.errors import ImageError, MaskError
from lesion_core.files import write_bytes

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
# Of these, libtiff's errors reach us; of JPEG and fax inside a TIFF they do not.
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd")
MAX_BYTES = 1 << 30
# Three times a 24-megapixel camera's; decoded as RGBA it takes 320 MB.
MAX_PIXELS = int(os.environ.get("LESION_MEGAPIXELS", "80")) * 1_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
TOO_LARGE = f"the image has more than {MAX_PIXELS // 1_000_000} million pixels"
SCALE_DOWN = "scale it down, or set LESION_MEGAPIXELS in the environment to what your memory holds"
TWELVE_BITS = 4096
MASK_THRESHOLD = 128  # a pixel above it is lesion, as in the ISIC challenge's scorer
GREY_BAND = (16, 239)  # values between are neither background nor lesion, even after JPEG
MAX_GREY = 0.10  # a file with a larger share of such values is an image or a probability map, not a mask
ASPECT_TOLERANCE = 0.01
EIGHT_BIT_MODES = {"1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr"}
SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
ALPHA_MODES = {"RGBA", "RGBa", "LA", "La", "PA"}
GREY = ("greyscale", "one channel repeated")
CONVERTED = {
    "1": GREY,
    "L": GREY,
    "LA": GREY,
    "La": GREY,
    "P": ("palette", "converted to RGB"),
    "PA": ("palette", "converted to RGB"),
    "CMYK": ("cmyk", "converted to RGB"),
    "YCbCr": ("colour_space", "YCbCr converted to RGB"),
}
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REMEDY = "fetch the file again or remove it together with its row in the labels"


@dataclass(frozen=True)
class Decoded:
    """``pixels`` of an image, uint8 (H, W, 3) RGB, or a mask, bool (H, W); what was repaired: (kind, detail) pairs."""

    pixels: np.ndarray
    repairs: tuple[tuple[str, str], ...]


def read_image(path: str | Path, at_least: int | None = None) -> np.ndarray:
    """Read an image as uint8 RGB of shape (H, W, 3), values 0..255, upright: see :func:`inspect_image`."""
    return inspect_image(path, at_least).pixels


def inspect_image(path: str | Path, at_least: int | None = None, content: bytes | None = None) -> Decoded:
    """Read an image as uint8 RGB of shape (H, W, 3), values 0..255, upright, and tell what was converted.

    Rules:
        * the EXIF orientation is applied (``rotated``);
        * greyscale is repeated to three channels (``greyscale``);
        * transparent pixels are composited on white (``transparent``);
        * a palette, CMYK or another colour space is converted (``palette``, ``cmyk``, ``colour_space``);
        * of 16 bits per channel the high byte is kept, 65535 becomes 255; up to 255 they stay (``sixteen_bit``);
        * of several frames the first is read (``frames``).

    Args:
        path: the image's file.
        at_least: a JPEG is scaled by 1/2, 1/4 or 1/8 while it is decoded, as far as both sides keep this many
            pixels; None decodes every pixel. Other formats are always decoded whole.
        content: the file's bytes where it lies on no disk; ``path`` then only names it in errors.

    Raises:
        ImageError: no regular file, zero bytes or too many, no format of ``FORMATS``, truncated, damaged, over
            ``MAX_PIXELS``, an unsupported pixel type, or 16-bit values whose range is neither 8 nor 16 bits.
    """
    image, repairs = _open(path, at_least, content)
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        grey, detail = _eight_bits(image, path)
        return Decoded(np.repeat(grey[:, :, None], 3, axis=2), (*repairs, ("sixteen_bit", detail), GREY))
    if image.mode not in EIGHT_BIT_MODES:
        raise ImageError(f"pixels of type {image.mode} are not supported", file=path, remedy="save it as 8-bit RGB")
    if image.mode in CONVERTED:
        repairs.append(CONVERTED[image.mode])
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        repairs.append(("transparent", "composited on white"))
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    # A copy, since Pillow's own buffer is read-only.
    return Decoded(np.array(image.convert("RGB"), dtype=np.uint8), tuple(repairs))


def read_mask(path: str | Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a lesion mask as bool (H, W): a pixel above 128 is lesion, as in the challenge's scorer.

    Repairs are those of :func:`inspect_mask`; an empty and a full mask are returned as they are.

    Args:
        path: the mask's file.
        shape: (H, W) of its image; None skips the comparison.

    Raises:
        MaskError: the file does not decode, is no mask, or its shape cannot be that of its image.
    """
    return inspect_mask(path, shape).pixels


def inspect_mask(path: str | Path, shape: tuple[int, int] | None = None) -> Decoded:
    """Read a lesion mask and tell what was repaired.

    Rules:
        * several equal channels count as one; transparent pixels are background;
        * two values that are both at most 128 (0 and 1, say): the higher is lesion (``low_values``);
        * more than two values: cut at 128 (``grey_values``), unless over a tenth of the pixels lies
          between 16 and 239, which is refused;
        * another size than the image's: nearest neighbour if the aspect ratios agree within one
          per cent or one pixel (``resized``), refused otherwise;
        * no lesion pixel (``empty``) and lesion pixels only (``full``) are told; the caller decides.

    Raises:
        MaskError: see the rules.
    """
    values = _mask_values(path)
    repairs: list[tuple[str, str]] = []
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if len(present) > 2:
        grey = float(np.mean((values > GREY_BAND[0]) & (values < GREY_BAND[1])))
        if grey > MAX_GREY:
            raise MaskError(
                f"{grey:.0%} of the mask's pixels are neither background nor lesion",
                file=path,
                remedy="supply a binary mask (0 and 255)",
            )
        repairs.append(("grey_values", f"{len(present)} values, cut at {MASK_THRESHOLD}"))
    pixels = values > MASK_THRESHOLD
    if len(present) == 2 and present[1] <= MASK_THRESHOLD:
        pixels = values == present[1]
        repairs.append(("low_values", f"values {present[0]} and {present[1]}, the higher read as lesion"))
    if shape is not None and pixels.shape != tuple(shape):
        repairs.append(("resized", f"{_by(pixels.shape)} to {_by(shape)}, nearest neighbour"))
        pixels = _resize_nearest(pixels, shape, path)
    if not pixels.any():
        repairs.append(("empty", "no lesion pixel"))
    elif pixels.all():
        repairs.append(("full", "lesion pixels only"))
    return Decoded(pixels, tuple(repairs))


def encode_image(pixels: np.ndarray, suffix: str = ".png", *options: int) -> bytes:
    """uint8 (H, W) grey or (H, W, 3) RGB as a file of the format that ``suffix`` names.

    Args:
        pixels: 0..255.
        suffix: ``.png``, ``.jpg``, ``.bmp``, ...
        options: of ``cv2.imencode``: a flag and its value, and so on.

    Raises:
        ImageError: the pixels cannot be encoded.
    """
    bgr = pixels[:, :, ::-1] if pixels.ndim == 3 else pixels
    try:
        done, content = cv2.imencode(suffix, np.ascontiguousarray(bgr), options)
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"pixels of shape {pixels.shape} cannot be encoded as {suffix}", remedy="report this as a bug")
    return content.tobytes()


def write_image(path: str | Path, pixels: np.ndarray, *options: int) -> None:
    """Write pixels in the format of the path's suffix, atomically: see :func:`encode_image`."""
    write_bytes(path, encode_image(pixels, Path(path).suffix, *options))


def _read_bytes(path: str | Path) -> bytes:
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():  # opening a pipe waits, reading a device may never end
            raise ImageError("this is no regular file", file=path, remedy="copy the image itself there")
        if size > MAX_BYTES:
            raise ImageError(f"the file is over {MAX_BYTES >> 20} MiB", file=path, remedy="scale the image down")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", file=path, remedy=REMEDY) from error
    return content


def _open(
    path: str | Path, at_least: int | None = None, content: bytes | None = None
) -> tuple[Image.Image, list[tuple[str, str]]]:
    """The first frame upright, all of its pixels decoded (of a JPEG's scaled version, if ``at_least`` allows one).

    With it what only the file tells: orientation, bits and frames, as (kind, detail) pairs.
    """
    content = _read_bytes(path) if content is None else content
    if not content:
        raise ImageError("the file has zero bytes", file=path, remedy=REMEDY)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_header(image)
        # Pillow reduces 16-bit colour to 8 bits as it decodes; before that the tiles tell.
        deep = any("16" in str(tile[3]) for tile in image.tile)
        if image.format in ("JPEG", "MPO"):
            decoded = _decode_jpeg(content, image, at_least)
        else:
            image.load()
            decoded = image
        turned = image.getexif().get(EXIF_ORIENTATION, 1)
        frames = getattr(image, "n_frames", 1)
    except ImageError as error:
        raise ImageError(error.message, file=path, remedy=error.remedy) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(TOO_LARGE, file=path, remedy=SCALE_DOWN) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds on broken files
        if content.startswith((b"\xff\xd8", b"\x89PNG")) or "truncated" in str(error):
            message = f"the image is truncated or damaged ({error})"
        else:
            why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # it names an object, no cause
            message = f"the file does not decode as an image of {', '.join(FORMATS)}{why}"
        raise ImageError(message, file=path, remedy=REMEDY) from error
    told = []
    if turned in UPRIGHT:
        decoded = decoded.transpose(UPRIGHT[turned])
        told.append(("rotated", f"EXIF orientation {turned}"))
    if deep and decoded.mode in EIGHT_BIT_MODES:
        if not np.asarray(decoded.convert("RGB")).any():
            raise _unclear_range(path, "lie below 256")
        told.append(("sixteen_bit", "high byte kept"))
    if frames > 1:
        told.append(("frames", f"the first of {frames}"))
    return decoded, told


def _check_header(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(TOO_LARGE, remedy=SCALE_DOWN)
    inside = image.info.get("compression")
    if image.format == "TIFF" and inside not in TIFF_COMPRESSIONS:
        raise ImageError(
            f"a TIFF with {inside} inside is not read, since damage to it would not be seen",
            remedy="save it as PNG, or as TIFF with LZW or deflate",
        )


def _decode_jpeg(content: bytes, header: Image.Image, at_least: int | None) -> Image.Image:
    """All pixels, or those of the smallest of 1/2, 1/4 and 1/8 that keeps ``at_least`` of them on both sides.

    Raises:
        ValueError: the decoder warns of anything.
    """
    width, height = header.size
    short = min(width, height)
    factor = 1 if at_least is None else next((scale for scale in (8, 4, 2) if short // at_least >= scale), 1)
    colours = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[header.mode]
    least = {"min_height": -(-height // factor), "min_width": -(-width // factor)}
    try:
        pixels = simplejpeg.decode_jpeg(content, colours, **least)
    except ValueError as error:
        if "subsampling" in str(error):
            raise ImageError("a JPEG with this colour subsampling is not read", remedy="save it as PNG") from error
        raise
    if header.mode == "CMYK":  # stored inverted, as Adobe does
        return Image.frombytes("CMYK", (pixels.shape[1], pixels.shape[0]), (255 - pixels).tobytes())
    return Image.fromarray(pixels[:, :, 0] if header.mode == "L" else pixels)


def _eight_bits(image: Image.Image, path: str | Path) -> tuple[np.ndarray, str]:
    """uint8 (H, W) of one channel of 16 or 32 bits, and how it was reduced."""
    wide = np.asarray(image)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageError("pixel values lie outside 16 bits", file=path, remedy="save it as 8-bit or 16-bit unsigned")
    if wide.max() <= 255:
        return wide.astype(np.uint8), "values up to 255 kept"
    if wide.max() < TWELVE_BITS:
        raise _unclear_range(path, f"end at {wide.max()}")
    return (wide.astype(np.uint32) >> 8).astype(np.uint8), "high byte kept"


def _unclear_range(path: str | Path, said: str) -> ImageError:
    return ImageError(
        f"its 16-bit values {said}: which of them is white is unknown", file=path, remedy="save it with 8 bits"
    )


def _mask_values(path: str | Path) -> np.ndarray:
    """uint8 (H, W) of a mask's file."""
    try:
        image = _open(path)[0]
        if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
            return _eight_bits(image, path)[0]
    except ImageError as error:
        raise MaskError(f"the mask cannot be read: {error.message}", file=path, remedy=error.remedy) from error
    if image.mode not in EIGHT_BIT_MODES:
        raise MaskError(f"mask pixels of type {image.mode} are not supported", file=path, remedy="use 8 bits")
    if image.mode in {"1", "L"}:
        return np.array(image.convert("L"), dtype=np.uint8)
    layers = np.asarray(image.convert("RGBA")).astype(np.int16)
    # JPEG colour conversion may move a grey by a level or two; more is colour.
    if np.ptp(layers[:, :, :3], axis=2).max() > 8:
        raise MaskError("the mask is coloured", file=path, remedy="supply a binary mask (0 and 255)")
    return np.where(layers[:, :, 3] > MASK_THRESHOLD, layers[:, :, 0], 0).astype(np.uint8)


def _resize_nearest(pixels: np.ndarray, shape: tuple[int, int], path: str | Path) -> np.ndarray:
    height, width = shape
    expected = pixels.shape[1] * height / pixels.shape[0]
    if abs(expected - width) > max(1.0, ASPECT_TOLERANCE * width):
        raise MaskError(
            f"the mask is {_by(pixels.shape)}, its image {_by(shape)}, and the aspect ratios differ",
            file=path,
            remedy="supply the mask that belongs to this image",
        )
    rows = ((np.arange(height) + 0.5) * pixels.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * pixels.shape[1] / width).astype(np.intp)
    return pixels[rows[:, None], columns[None, :]]


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
