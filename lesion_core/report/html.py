"""The page's templates: Jinja2 with autoescape, and the filters that they use."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_core.acquire.images import encode_image, read_image
from lesion_core.errors import FormatError
from lesion_core.files import MAKE_AGAIN
from lesion_core.report.formats import metric_name

DATA_FILES = ("report/templates",)
TEMPLATES = Path(__file__).resolve().parent / "templates"
LARGE_BYTES = 300_000
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_QUALITY = 88


def environment() -> Environment:
    """The page's templates by file name; a name that a template uses and that was not given is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is None or not name.endswith(".md"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    made.filters |= {
        "number": number,
        "picture": picture,
        "metric": metric_name,
        "source_hash": source_hash,
        "zip": zip,
    }
    return made


def source_hash(script: str) -> str:
    """What a Content-Security-Policy calls the one script that it lets run: ``sha256-`` and the digest in base64."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}"


def number(text: str) -> str:
    """A number of a CSV as it is shown: whole numbers whole, others with four figures."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.0f}" if value.is_integer() and abs(value) >= 2 else f"{value:.4g}"


def picture(path: Path) -> str:
    """A PNG as a data address; large files as JPEG, so that the page stays light.

    Raises:
        FormatError: the file is no PNG, or cut short: the page would show a hole.
    """
    content, kind = path.read_bytes(), "png"
    if not (content.startswith(PNG_START) and content.endswith(PNG_END)):
        raise FormatError("It is no whole PNG", file=path, remedy=MAKE_AGAIN)
    if len(content) > LARGE_BYTES:
        encoded = encode_image(read_image(path), ".jpg", cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        if len(encoded) < len(content):
            content, kind = encoded, "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
