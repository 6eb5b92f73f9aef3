"""What a job did in all its attempts and processes: a training that was stopped goes on in another process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lesion_core.files import HOST
from lesion_core.record import observe

# Of a checkpoint that says nothing of those who made it.
UNRECORDED = {"started": math.inf, "seconds": 0.0, "peak_memory_mb": {}, "energy_joules": {}, "opened": None}


class Attempts:
    """This attempt at a job, and the earlier ones whose work it goes on with.

    An attempt counts up to its last checkpoint, in which its record lies: what it did afterwards is lost together with
    the work, so that the total is of all that the result can depend on.

    Args:
        root: ``results/<profile>``; opened files are named below it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.started = Path(root), time.time()
        self.others: list[dict[str, Any]] = []  # this attempt's other processes, by rank: their latest ``own``
        self._earlier: dict[float, dict[str, Any]] = {}

    def own(self) -> dict[str, Any]:
        """What this process did so far."""
        return {
            "machine": HOST,
            "peak_memory_mb": observe.peak_memory_mb(),
            "energy_joules": observe.energy_joules(),
            "opened": observe.opened_under(self.root),
        }

    def state(self) -> list[dict[str, Any]]:
        """One record per attempt, this one's as of now, for a checkpoint: numbers, strings and None."""
        return [*self._earlier.values(), self._this()]

    def resume(self, saved: list[dict[str, Any]] | None) -> None:
        """Take over what a checkpoint tells; of two checkpoints of one job (two stages) the later one's word counts."""
        self._earlier |= {record["started"]: record for record in saved or [UNRECORDED]}

    def total(self) -> dict[str, Any]:
        """``started`` of the first attempt (s since 1970), sums of ``seconds`` and ``energy_joules``, the largest
        process's ``peak_memory_mb``, and all files ``opened``; None for what one of the attempts did not record."""
        records = self.state()
        return {
            "started": min(record["started"] for record in records),
            "seconds": sum(record["seconds"] for record in records),
            **_joined(records, [record["energy_joules"] for record in records]),
        }

    def _this(self) -> dict[str, Any]:
        parts = [self.own(), *self.others]
        # Energy counters are of a whole machine: one process of each tells.
        machines = {part["machine"]: part["energy_joules"] for part in reversed(parts)}
        joined = _joined(parts, machines.values())
        return {"started": self.started, "seconds": time.time() - self.started, **joined}


def _joined(parts: list[dict[str, Any]], energies: Iterable[dict[str, float | None]]) -> dict[str, Any]:
    peaks, joules = {}, {}
    for kind in ("host", "gpu"):
        known = [part["peak_memory_mb"].get(kind) for part in parts]
        peaks[kind] = max((value for value in known if value is not None), default=None)
    for kind in ("cpu", "gpu"):
        used = [energy.get(kind) for energy in energies]
        joules[kind] = None if None in used else round(sum(used), 1)  # a part of a sum would pass for all of it
    lists = [part["opened"] for part in parts]
    opened = None if None in lists else sorted(set().union(*lists))
    return {"peak_memory_mb": peaks, "energy_joules": joules, "opened": opened}
