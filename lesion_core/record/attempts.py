"""What a training did in all its attempts: one that was stopped goes on in another process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lesion_core.record import observe


class Attempts:
    """This attempt at a job, and the earlier ones whose work it goes on with.

    An attempt counts up to its last checkpoint, in which its record lies: what it did afterwards is lost together with
    the work, so that the total is of all that the result can depend on.

    Args:
        root: ``results/<profile>``; opened files are named below it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.started = Path(root), time.time()
        self._earlier: dict[float, dict[str, Any]] = {}

    def state(self) -> list[dict[str, Any]]:
        """One record per attempt, this one's as of now, for a checkpoint: numbers, strings and None."""
        return [
            *self._earlier.values(),
            {
                "started": self.started,
                "seconds": time.time() - self.started,
                "peak_memory_mb": observe.peak_memory_mb(),
                "gpu_energy_joules": observe.gpu_energy_joules(),
                "opened": observe.opened_under(self.root),
            },
        ]

    def resume(self, saved: list[dict[str, Any]]) -> None:
        """Take over what a checkpoint tells; of two checkpoints of one job (two stages) the later one's word counts."""
        self._earlier |= {record["started"]: record for record in saved}

    def total(self) -> dict[str, Any]:
        """``started`` of the first attempt (s since 1970), sums of ``seconds`` and ``gpu_energy_joules``, the largest
        ``peak_memory_mb``, and all files ``opened``; None for what one of the attempts did not record."""
        records = self.state()
        peaks = {kind: [record["peak_memory_mb"][kind] for record in records] for kind in ("host", "gpu")}
        energies = [record["gpu_energy_joules"] for record in records]
        opened = [record["opened"] for record in records]
        return {
            "started": min(record["started"] for record in records),
            "seconds": sum(record["seconds"] for record in records),
            "peak_memory_mb": {
                kind: max((peak for peak in found if peak is not None), default=None) for kind, found in peaks.items()
            },
            "gpu_energy_joules": None if None in energies else round(sum(energies), 1),
            "opened": None if None in opened else sorted(set().union(*opened)),
        }
