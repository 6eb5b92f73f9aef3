"""Which GPU a job takes where a machine has several: each its own, held by a lock that dies with the process.

Without it all jobs of `snakemake --resources gpu=4` would compute on the first GPU. A scheduler that has chosen already
(CUDA_VISIBLE_DEVICES is set) is left alone.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

from lesion_core.errors import RunError
from lesion_core.progress import say
from lesion_core.record import observe
from lesion_core.training.launch import launched

CHOICE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 1.0
_held: list[int] = []


def take_gpus(count: int, folder: Path | None = None) -> list[str]:
    """Reserve ``count`` of this machine's GPUs for this process and show them to CUDA; waits until so many are free.

    To be called before CUDA starts in this process. Nothing is reserved where the choice is made already (by a
    scheduler, by a person, or by the launcher for its processes) or where there is one GPU or none.

    Args:
        count: how many the job uses.
        folder: of the locks; None: one per user and machine under the temporary folder.

    Returns:
        Their names; empty if nothing was reserved.

    Raises:
        RunError: the machine has fewer.
    """
    if CHOICE in os.environ or launched():
        return []
    names = observe.gpu_uuids()
    if len(names) < 2:
        return []
    if count > len(names):
        raise RunError(
            f"{count} GPUs are asked for and there are {len(names)}", remedy="lower compute.processes, or use more GPUs"
        )
    place = folder or Path(tempfile.gettempdir()) / f"lesion-gpus-{os.getuid()}"
    place.mkdir(parents=True, exist_ok=True)
    said = False
    while not (taken := _try(names, count, place)):
        if not said:
            say(f"waiting: fewer than {count} of {len(names)} GPUs are free")
            said = True
        time.sleep(POLL_SECONDS)
    _held.extend(taken.values())
    os.environ[CHOICE] = ",".join(taken)
    return list(taken)


def _try(names: list[str], count: int, place: Path) -> dict[str, int]:
    """``count`` free GPUs with their locks' descriptors, or none: two jobs must not wait for each other's share."""
    taken: dict[str, int] = {}
    with open(place / "choosing.lock", "w") as choosing:
        fcntl.flock(choosing, fcntl.LOCK_EX)
        for name in names:
            handle = os.open(place / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            taken[name] = handle
            if len(taken) == count:
                return taken
        for handle in taken.values():
            os.close(handle)
    return {}
