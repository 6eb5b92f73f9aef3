"""One pipeline, or one command that changes results, at a time in a results folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from lesion_core.errors import RunError

NAME = ".lock"


def hold(root: Path) -> IO[str]:
    """Take the lock of a results folder; it lasts until the handle is closed or the process ends, however it ends.

    Args:
        root: ``results/<profile>``; made if it does not exist.

    Raises:
        RunError: another process works there.
        OSError: the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    handle = open(root / NAME, "w")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise RunError(f"Another run works in {root}", remedy="wait for it to end, or stop it") from None
    return handle
