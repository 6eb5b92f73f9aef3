"""Identity of a user's own dataset by content: an edit in place leaves a folder's time, all that Snakemake compares."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesion_core.acquire.readers.rows import list_files
from lesion_core.files import canonical_json, read_json, sha256_file, sha256_text, write_json
from lesion_core.settings import Custom

SETTLED_NS = 2_000_000_000  # coarsest clock of a file system (FAT): a younger file may change and keep its times


def own_content(custom: Custom, memory: Path) -> str:
    """SHA-256 over the names and bytes of the table, the images and the masks, as the reader lists them.

    A file is hashed when its size or one of its times is not the remembered one. The time of its last change of any
    kind (ctime) is among them, which no program can set: an edit that puts the old time back is seen as well.

    Args:
        custom: where the dataset lies; what is absent or cannot be read counts as such, for the catalog tells of it.
        memory: JSON file with the hashes of earlier calls; to lose it costs time alone.
    """
    known = _remembered(memory)
    remembered: dict[str, Any] = {}
    content: list[tuple[str, str, str | None]] = []
    for part, path in _files(custom):
        name = path.absolute().as_posix()
        now = time.time_ns()
        try:
            seen = path.stat()
            stamp = [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
            old = known.get(name)
            digest = old["sha256"] if old and old["stamp"] == stamp else sha256_file(path)
        except OSError:
            content.append((part, path.name, None))
            continue
        content.append((part, path.name, digest))
        if max(stamp[1:]) < now - SETTLED_NS:
            remembered[name] = {"stamp": stamp, "sha256": digest}
    if remembered != known:
        with suppress(OSError):
            write_json(memory, remembered)
    return sha256_text(canonical_json(content))


def _files(custom: Custom) -> Iterator[tuple[str, Path]]:
    yield "csv", Path(custom.csv).expanduser()
    for part, place in (("images", custom.images), ("masks", custom.masks)):
        with suppress(OSError):
            yield from ((part, path) for path in (list_files(Path(place).expanduser()) if place else ()))


def _remembered(memory: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return read_json(memory)
    return {}
