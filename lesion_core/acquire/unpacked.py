"""Releases as people have them: unpacked folders and loose images beside the official tables, packed anew."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lesion_core.acquire.registry import Release
from lesion_core.errors import DownloadError
from lesion_core.files import CHUNK_BYTES, read_csv
from lesion_core.paths import IMAGE_SUFFIXES

FIXED_DATE = (1980, 1, 1, 0, 0, 0)
Members = list[tuple[str, Path]]


def unpacked_members(release: Release, folder: Path) -> dict[str, Members]:
    """What a mirror's folder holds of a release's archives without being one: archive -> (member, file), sorted.

    ``HAM10000_images_part_1/`` stands for ``HAM10000_images_part_1.zip``. Where none of the images' archives is there
    in any form, the images that the release's table names may lie loose: beside the table, in ``images/`` or in a
    folder called like the dataset. They stand for the first of these archives, and the others hold none.

    Raises:
        DownloadError: a folder holds symbolic links.
    """
    archives = [file.name for file in release.fetched() if file.name.endswith(".zip")]
    absent = [name for name in archives if not (folder / name).is_file()]
    found = {name: below(folder / Path(name).stem) for name in absent if (folder / Path(name).stem).is_dir()}
    table, column, *images = release.loose or ("", "")
    if images and (folder / table).is_file() and set(images) <= set(absent) - set(found):
        ids = {row.get(column) for row in read_csv(folder / table)}
        for place in (folder, folder / "images", folder / release.name):
            files = place.iterdir() if place.is_dir() else ()
            own = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.stem in ids)
            if own:
                return found | {name: [] for name in images} | {images[0]: [(path.name, path) for path in own]}
    return found


def below(top: Path) -> Members:
    """Files below a folder by their path in it; one that holds a single folder of its own name is that one."""
    inner = top / top.name
    if inner.is_dir():
        top = inner
    entries = sorted(top.rglob("*"), key=lambda entry: entry.relative_to(top).as_posix())
    links = [entry.relative_to(top).as_posix() for entry in entries if entry.is_symlink()]
    if links:
        raise DownloadError(
            "the folder holds symbolic links", file=top, ids=links, remedy="put real files in their place"
        )
    return [(entry.relative_to(top).as_posix(), entry) for entry in entries if entry.is_file()]


def pack(members: Iterable[tuple[str, Path]], top: str, target: Path) -> None:
    """Pack files below a folder called ``top``, uncompressed and with fixed dates: equal files give equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in members:
            member = zipfile.ZipInfo(str(PurePosixPath(top, name)), FIXED_DATE)
            member.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(member, "w") as sink:
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)
