"""Pieces of the page: sortable tables and embedded pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2

from lesion_core.acquire.images import encode_image, read_image
from lesion_core.errors import FormatError
from lesion_core.files import MAKE_AGAIN

LARGE_BYTES = 300_000
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_QUALITY = 88


def table(
    caption: str, columns: Sequence[str], rows: Sequence[str], *, text: Sequence[str] = (), identity: str = ""
) -> str:
    """A sortable table that scrolls by itself on a narrow screen.

    Args:
        caption: what a screen reader calls it.
        columns: headings.
        rows: ``<tr>`` elements.
        text: headings of columns that hold text (aligned left); the first always does.
        identity: the table's id.
    """
    head = "".join(
        f'<th scope="col"{" class=text" if name in text else ""}><button type="button">{escape(name)}</button></th>'
        for name in columns
    )
    named = f' id="{identity}"' if identity else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table{named} aria-label="{escape(caption)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def number(text: str) -> str:
    """A number of a CSV as it is shown: whole numbers whole, others with four figures."""
    try:
        value = float(text)
    except ValueError:
        return escape(text)
    return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4g}"


def picture(path: Path) -> str:
    """A PNG as a data address; photographs (large files) as JPEG, so that the page stays light.

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


def figure(path: Path, title: str, caption: str) -> str:
    """A picture with its caption."""
    return (
        f'<figure><img alt="{escape(title)}: {escape(caption)}" src="{picture(path)}">'
        f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"
    )
