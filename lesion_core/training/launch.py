"""Start several processes of one job on this machine, and end them all as soon as one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lesion_core.errors import RunError

RENDEZVOUS = "LESION_RENDEZVOUS"
POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
CAUSE_SECONDS = 1.0
TYPED_ERROR = 2
PARENT = "LESION_LAUNCHER"
MEETING = ("MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether this process is one of several, started by ``launch`` or by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def demand_processes(processes: int) -> None:
    """Refuse to train in other processes than the run's settings say, or in ones that could not find each other.

    Raises:
        RunError: WORLD_SIZE is not ``processes`` (which is part of the run's identity, since sums depend on it), or the
            environment does not say which of them this is and where they meet.
    """
    if not launched():
        return
    count = int(os.environ["WORLD_SIZE"])
    if count != processes:
        raise RunError(
            f"{count} processes were started (WORLD_SIZE) for a run of {processes}",
            remedy=f"torchrun --nproc-per-node {processes} -m lesion_core.cli train ..., or set compute.processes to "
            f"{count}; plain `lesion train` starts them itself (unset WORLD_SIZE)",
        )
    needed = ["RANK", *(() if RENDEZVOUS in os.environ else MEETING)]
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise RunError(
            f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set",
            remedy="start with torchrun, which sets them, or unset WORLD_SIZE: `lesion train` starts processes itself",
        )


def process_rank() -> int:
    """Number of this process, 0 if it is the only one; known before the processes have met."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


def launch(command: Sequence[str], processes: int) -> None:
    """Run ``command`` in ``processes`` processes that find each other over loopback, and wait for them.

    Each gets RANK, LOCAL_RANK and WORLD_SIZE, as torchrun sets them. They share this process's output.

    Raises:
        RunError: one died; the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="lesion-") as folder:
        common = {
            **os.environ,
            "WORLD_SIZE": str(processes),
            RENDEZVOUS: str(Path(folder) / "rendezvous"),
            PARENT: str(os.getpid()),
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
        }
        jobs: list[subprocess.Popen] = []
        try:
            for rank in range(processes):
                env = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                jobs.append(subprocess.Popen(list(command), env=env))
            _wait(jobs)
        finally:
            _end(jobs)


def watch_launcher() -> None:
    """End this process when its launcher is gone (killed, so that it could not end us itself)."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-launcher").start()


def _wait(jobs: list[subprocess.Popen]) -> None:
    while True:
        codes = [job.poll() for job in jobs]
        if all(code == 0 for code in codes):
            return
        if any(codes):
            # Who died tears the others' connections; what follows may be seen first.
            time.sleep(CAUSE_SECONDS)
            rank, code = _cause([job.poll() for job in jobs])
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
            raise RunError(
                f"Process {rank} of {len(jobs)} ended {how}; the others were stopped",
                remedy="see its message above; start again to go on from the last checkpoint",
            )
        time.sleep(POLL_SECONDS)


def _cause(codes: list[int | None]) -> tuple[int, int]:
    """Rank and exit status of the likeliest culprit: killed, then a typed error (2), then any other."""
    failed = [(rank, code) for rank, code in enumerate(codes) if code]
    return min(failed, key=lambda item: (item[1] > 0, item[1] != TYPED_ERROR, item[0]))


def _end(jobs: list[subprocess.Popen]) -> None:
    for job in jobs:
        if job.poll() is None:
            job.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for job in jobs:
        try:
            job.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
