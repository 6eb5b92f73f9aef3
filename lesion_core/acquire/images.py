"""Decode photographs and masks under stated rules; a file that does not decode whole is refused, never guessed.

Pillow decodes, since it refuses truncated files, where OpenCV returns the decodable part without a word.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesion_core.errors import ImageError, MaskError

if TYPE_CHECKING:
    from PIL.Image import Image

MASK_THRESHOLD = 128  # a pixel above it is lesion, as in the ISIC challenge's scorer
GREY_BAND = (16, 239)  # values between are neither background nor lesion, even after JPEG
MAX_GREY = 0.10  # a file with a larger share of such values is a photograph or a probability map, not a mask
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
REMEDY = "fetch the file again or remove it together with its row in the labels"


@dataclass(frozen=True)
class Mask:
    """A mask as read: ``pixels`` bool (H, W), and what had to be repaired, as (kind, detail) pairs."""

    pixels: np.ndarray
    repairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Photograph:
    """A photograph as read: ``pixels`` uint8 (H, W, 3) RGB, and what was converted, as (kind, detail) pairs."""

    pixels: np.ndarray
    repairs: tuple[tuple[str, str], ...]


def read_image(path: str | Path, at_least: int | None = None) -> np.ndarray:
    """Read a photograph as uint8 RGB of shape (H, W, 3), values 0..255, upright: see :func:`inspect_image`."""
    return inspect_image(path, at_least).pixels


def inspect_image(path: str | Path, at_least: int | None = None) -> Photograph:
    """Read a photograph as uint8 RGB of shape (H, W, 3), values 0..255, upright, and tell what was converted.

    Rules:
        * the EXIF orientation is applied (``rotated``);
        * greyscale is repeated to three channels (``greyscale``);
        * transparent pixels are composited on white (``transparent``);
        * a palette, CMYK or another colour space is converted (``palette``, ``cmyk``, ``colour_space``);
        * of 16 bits per channel the high byte is kept, 65535 becomes 255 (``sixteen_bit``);
        * of several frames the first is read (``frames``).

    Args:
        path: the photograph's file.
        at_least: a JPEG is scaled by 1/2, 1/4 or 1/8 while it is decoded, as far as both sides keep this many
            pixels; None decodes every pixel. Other formats are always decoded whole.

    Raises:
        ImageError: no such file, zero bytes, not an image, truncated, or an unsupported pixel type.
    """
    from PIL import Image, ImageOps

    image, repairs = _open(path, at_least)
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        grey = _high_byte(image, path)
        told = (*repairs, ("sixteen_bit", "high byte kept"), GREY)
        return Photograph(np.repeat(grey[:, :, None], 3, axis=2), tuple(dict.fromkeys(told)))
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
    return Photograph(np.array(image.convert("RGB"), dtype=np.uint8), tuple(repairs))


def read_mask(path: str | Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a lesion mask as bool (H, W): a pixel above 128 is lesion, as in the challenge's scorer.

    Repairs are those of :func:`inspect_mask`; an empty and a full mask are returned as they are.

    Args:
        path: the mask's file.
        shape: (H, W) of its photograph; None skips the comparison.

    Raises:
        MaskError: the file does not decode, is no mask, or its shape cannot be that of its photograph.
    """
    return inspect_mask(path, shape).pixels


def inspect_mask(path: str | Path, shape: tuple[int, int] | None = None) -> Mask:
    """Read a lesion mask and tell what was repaired.

    Rules:
        * several equal channels count as one; transparent pixels are background;
        * two values that are both at most 128 (0 and 1, say): the higher is lesion (``low_values``);
        * more than two values: cut at 128 (``grey_values``), unless over a tenth of the pixels lies
          between 16 and 239, which is refused;
        * another size than the photograph's: nearest neighbour if the aspect ratios agree within one
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
    return Mask(pixels, tuple(repairs))


def _read_bytes(path: str | Path) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", file=path, remedy=REMEDY) from error
    if not content:
        raise ImageError("the file has zero bytes", file=path, remedy=REMEDY)
    return content


def _open(path: str | Path, at_least: int | None = None) -> tuple[Image, list[tuple[str, str]]]:
    """The first frame, all of its pixels decoded (of a JPEG's scaled version, if ``at_least`` allows one).

    With it what only the file tells: orientation, bits and frames, as (kind, detail) pairs.
    """
    from PIL import Image

    content = _read_bytes(path)
    try:
        image = Image.open(io.BytesIO(content))
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        # Pillow reduces 16-bit colour to 8 bits as it decodes; before that the tiles tell.
        deep = any("16" in str(tile[3]) for tile in image.tile)
        image.load()
        turned = image.getexif().get(EXIF_ORIENTATION, 1)
        frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ImageError("the image is implausibly large", file=path, remedy="scale it down") from error
    # Pillow's plugins raise all of these on broken files.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError) as error:
        if content.startswith(b"\xff\xd8") or "truncated" in str(error):
            message = f"the image is truncated or broken ({error})"
        else:
            message = f"the file does not decode as an image ({error})"
        raise ImageError(message, file=path, remedy=REMEDY) from error
    told = []
    if turned in range(2, 9):
        told.append(("rotated", f"EXIF orientation {turned}"))
    if deep:
        told.append(("sixteen_bit", "high byte kept"))
    if frames > 1:
        told.append(("frames", f"the first of {frames}"))
    return image, told


def _high_byte(image: Image, path: str | Path) -> np.ndarray:
    wide = np.asarray(image)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageError("pixel values lie outside 16 bits", file=path, remedy="save it as 8-bit or 16-bit unsigned")
    return (wide.astype(np.uint32) >> 8).astype(np.uint8)


def _mask_values(path: str | Path) -> np.ndarray:
    """uint8 (H, W) of a mask's file."""
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(_open(path)[0])
        if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
            return _high_byte(image, path)
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
