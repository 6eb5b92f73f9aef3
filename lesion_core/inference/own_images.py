"""A person's own images, all looked at before the first prediction; imports no torch, so that answers come at once."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lesion_core.acquire.images import inspect_image
from lesion_core.acquire.parallel import in_threads
from lesion_core.acquire.readers.rows import list_files
from lesion_core.errors import SHOWN_IDS, ImageError
from lesion_core.paths import IMAGE_SUFFIXES
from lesion_core.progress import say

FORMULA = ("=", "+", "-", "@")  # a spreadsheet would compute such a cell
MOST_NAME_BYTES = 200  # most file systems take 255, and a half-written mask has a longer name


def list_images(folder: Path) -> dict[str, Path]:
    """Images of a folder and its subfolders by image id: the path below ``folder`` without ending; sorted.

    Hidden files are none; what else is no image by its ending is said.

    Raises:
        ImageError: the folder is missing or empty, masks or names would collide (on any file system), or a name could
            not be written safely; and see ``list_files``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError("The folder of images does not exist", file=folder, remedy="give an existing folder")
    paths = [path for place in _folders(folder) for path in list_files(place)]
    if not paths:
        remedy = f"put files ending in {', '.join(IMAGE_SUFFIXES)} there"
        raise ImageError("No images in the folder", file=folder, remedy=remedy)
    _say_left_out(folder, paths)
    found = [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]
    alike = Counter(_folded(name) for name, _ in found)
    _refuse(folder, "Images differ only in extension or in case", [n for n, _ in found if alike[_folded(n)] > 1])
    _refuse(folder, "Names that a spreadsheet takes for a formula", [n for n, _ in found if n.startswith(FORMULA)])
    _refuse(folder, "Names too long", [n for n, path in found if len(path.name.encode()) > MOST_NAME_BYTES])
    return dict(sorted(found))


def broken_images(images: dict[str, Path], *, skip: bool, workers: int | None = 1) -> dict[str, str]:
    """What is wrong with each image that cannot be read, by image id; every file is decoded.

    Args:
        images: paths by image id.
        skip: return them; otherwise they are refused.
        workers: see ``in_threads``.

    Raises:
        ImageError: naming all of them, unless ``skip``.
    """
    told = in_threads(_what_is_wrong, list(images.values()), "check", workers)
    broken = {name: message for name, message in zip(images, told, strict=True) if message is not None}
    if broken and not skip:
        first = next(iter(broken))
        raise ImageError(
            f"{len(broken)} of {len(images)} images cannot be read; {first}: {broken[first]}",
            file=images[first],
            ids=broken,
            remedy="fix or remove them, or let --skip-broken leave them out and name them in predictions.csv",
        )
    return broken


def _what_is_wrong(path: Path) -> str | None:
    try:
        inspect_image(path)
    except ImageError as error:
        return error.message
    return None


def _folders(folder: Path) -> Iterator[Path]:
    yield folder
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from _folders(below)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refuse(folder: Path, message: str, names: list[str]) -> None:
    if names:
        raise ImageError(message, file=folder, ids=names, remedy="rename these images")


def _say_left_out(folder: Path, paths: list[Path]) -> None:
    taken = set(paths)
    files = (path for place in _folders(folder) for path in place.iterdir() if not path.is_dir())
    left = sorted(path.relative_to(folder).as_posix() for path in files if path not in taken)
    if left:
        more = f" and {len(left) - SHOWN_IDS} more" if len(left) > SHOWN_IDS else ""
        named = ascii(", ".join(left[:SHOWN_IDS]))
        say(f"left out, since only {', '.join(IMAGE_SUFFIXES)} are read: {named}{more}")
