"""The page's templates: Jinja2 with autoescape, and the filters that they use."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
from jinja2 import DictLoader, Environment, StrictUndefined

from lesion_core.errors import FormatError
from lesion_core.files import MAKE_AGAIN, read_text

HERE = Path(__file__).resolve().parent
# named one by one: a change of a named file is a change of the code
FILES = (
    *("templates/page.html", "templates/page.css", "templates/page.js", "templates/trace.js", "templates/gallery.js"),
    *("templates/macros.html", "templates/summary.html", "templates/data.html", "templates/certificate.html"),
    *("templates/tables.html", "templates/statistics.html", "templates/ledger.html", "templates/figures.html"),
    *("templates/gallery.html", "templates/licences.html", "templates/runs.html", "templates/environment.html"),
)
LARGE_BYTES = 300_000
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_QUALITY = 88


def environment() -> Environment:
    """The page's templates by file name; a name that a template uses and nobody gave is an error."""
    made = Environment(
        loader=DictLoader({Path(name).name: read_text(HERE / name) for name in FILES}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    made.filters |= {"number": number, "picture": picture}
    return made


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
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise FormatError("It does not decode", file=path, remedy=MAKE_AGAIN)
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        if len(encoded) < len(content):
            content, kind = encoded, "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
