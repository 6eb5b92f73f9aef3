"""A folder that is there whole or not at all; `lesion_core.files.atomic_path` does the same for a file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesion_core.errors import RunError
from lesion_core.files import HOST, PARTIAL, being_written
from lesion_core.sharing.part import files_of

FULL = (errno.ENOSPC, errno.EDQUOT)
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; rename it to ``path`` on success, delete it on error.

    Args:
        path: must not exist. What killed calls left half-written of it is deleted first.

    Raises:
        RunError: ``path`` exists, now or when it is to be renamed.
        OSError: the disk is full (then it names ``path``), or takes no folder there.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_halves(path)
    partial = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # in a container every call may have one number
        partial.mkdir()
        yield partial
        for file in files_of(partial):
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        partial.rename(path)
    except OSError as error:
        if error.errno in TAKEN:
            refuse_existing(path)
        # A copy names its source first, and a partial name is gone when the message is read.
        if error.errno in FULL or str(error.filename).startswith(str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise RunError where there is something at ``path``, a link that leads nowhere included."""
    if os.path.lexists(path):
        raise RunError("The folder exists", file=path, remedy="name another, or delete it")


def remove_halves(path: Path) -> list[Path]:
    """Delete what killed calls left half-written of the folder ``path``; returns what was deleted."""
    removed = []
    for folder in sorted(path.parent.glob(".*.part")):
        match = PARTIAL.fullmatch(folder.name)
        if match is None or folder.name != f".{path.name}.{match['host']}.{match['pid']}.part" or not folder.is_dir():
            continue
        latest = max([folder, *files_of(folder)], key=_changed)
        if not being_written(latest, match["host"], int(match["pid"])):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return 0.0
