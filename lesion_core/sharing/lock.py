"""One pipeline, or one command that changes results, at a time in a results folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from lesion_core.errors import RunError

NAME = ".lock"


def hold(root: Path) -> FileLock:
    """Take the lock of a results folder: until it is released, the ``with`` block or the process ends.

    Args:
        root: ``results/<profile>``; made if it does not exist.

    Raises:
        RunError: another process works there.
        OSError: the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / NAME)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(f"Another run works in {root}", remedy="wait for it to end, or stop it") from None
    return lock
