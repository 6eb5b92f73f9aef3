"""Typed errors: each names the file, the ids and the remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SHOWN_IDS = 10
# What an operating system says of a disk that takes no more, or of a path, and what to do about it.
NO_SUCH = "check the path; what belongs in a results folder is made by Snakemake: call it again"
STORAGE = {
    errno.ENOSPC: "free space there and call again: what is finished stays",
    errno.EDQUOT: "free space of your quota and call again: what is finished stays",
    errno.EROFS: "make the folder writable, or work in another one",
    errno.EACCES: "make the folder writable, or work in another one",
    errno.ENOENT: NO_SUCH,
    errno.ENOTDIR: NO_SUCH,
    errno.EISDIR: "a file is needed here: check the path",
    errno.ENAMETOOLONG: "give the file a shorter name: while it is written, some 40 letters more are added",
    errno.EEXIST: "a folder is needed here: check the path, or move the file away",
}


class LesionError(Exception):
    """Base of all errors that a user can fix.

    Args:
        message: what is wrong, one sentence without a full stop.
        file: the file concerned, if one is.
        ids: image, lesion or run ids concerned; the first ten are printed, all are kept in ``ids``.
        remedy: what to do about it, one sentence.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        ids: Iterable[str] = (),
        remedy: str = "",
    ) -> None:
        self.message = message
        # a name that is no UTF-8 must not break the message
        self.file = None if file is None else os.fsencode(file).decode("utf-8", "backslashreplace")
        self.ids = tuple(ids)
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [self.message]
        if self.file is not None:
            parts.append(f"file: {self.file}")
        if self.ids:
            more = f" and {len(self.ids) - SHOWN_IDS} more" if len(self.ids) > SHOWN_IDS else ""
            parts.append(f"ids: {', '.join(self.ids[:SHOWN_IDS])}{more}")
        if self.remedy:
            parts.append(f"remedy: {self.remedy}")
        return "\n  ".join(parts)


class SettingsError(LesionError):
    """A key of params.yaml, a profile or a command line is unknown, mistyped or impossible."""


class DownloadError(LesionError):
    """A file cannot be fetched, or is not the file it should be."""


class ArchiveError(LesionError):
    """An archive is corrupt, unsafe or not laid out as its release."""


class ImageError(LesionError):
    """An image does not decode or cannot be used."""


class MaskError(LesionError):
    """A mask is missing, has no image, or cannot be read as a lesion mask."""


class CatalogError(LesionError):
    """Metadata or labels do not fit the images."""


class SplitError(LesionError):
    """A split cannot be made as asked."""


class LeakageError(SplitError):
    """An edge (lesion, image id, near-duplicate) crosses a split."""


class WeightsError(LesionError):
    """Weights are missing, renamed, of another shape or of another content."""


class RunError(LesionError):
    """A run's folder is incomplete or does not fit what is asked of it."""


class ScoreError(LesionError):
    """Scores are missing or do not fit the runs."""


class StorageError(LesionError):
    """The disk is full, a folder cannot be written, or there is no such file or folder."""


class FormatError(LesionError, ValueError):
    """A file is not what its ending says, or lacks a key or column that it should have."""


@contextmanager
def about(file: str | Path) -> Iterator[None]:
    """Typed errors from inside that name no file get this one."""
    try:
        yield
    except LesionError as error:
        if error.file is not None:
            raise
        raise type(error)(error.message, file=file, ids=error.ids, remedy=error.remedy) from error


def storage_error(error: OSError) -> StorageError | None:
    """``error`` as a typed one where the disk or a path is the cause; None where neither is."""
    remedy = STORAGE.get(error.errno or 0)
    if remedy is None or (error.filename is None and remedy is NO_SUCH):
        return None
    return StorageError(str(error.strerror), file=error.filename, remedy=remedy)
