"""What a training asks a scheduler for, from what its kind was measured with in a rehearsal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from lesion_core.errors import SettingsError
from lesion_core.files import read_csv
from lesion_core.plan.work import Counts, training_steps
from lesion_core.settings.kinds import rehearsed_as
from lesion_core.settings.run import Run
from lesion_core.settings.training import Compute

SPARE = 1.25  # memory: caches and workers of a long run
SLOWER = 1.5  # time: validation, a busy disk
START_MINUTES = 30


def read_rehearsal(path: str | None) -> dict[str, dict[str, str]]:
    """Kind -> its row of a rehearsal.csv, of kinds that are done; empty without a path.

    Raises:
        SettingsError: there is no such file.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise SettingsError("There is no rehearsal", file=path, remedy="make rehearsal, or set compute.rehearsal: null")
    return {row["kind"]: row for row in read_csv(Path(path)) if row["memory_mb"]}


def requests_of(
    run: Run,
    runs: Mapping[str, Run],
    measured: Mapping[str, Mapping[str, str]],
    images: Mapping[str, Counts],
    compute: Compute,
) -> dict[str, int]:
    """``mem_mb``, ``gpu_memory_mb`` (MiB) and ``runtime`` (minutes) of a training; as in params.yaml if not measured.

    ``runtime`` is at most that of params.yaml: a job that is stopped goes on from its checkpoint.

    Args:
        run: to be trained.
        runs: its matrix.
        measured: of `read_rehearsal`.
        images: of ``work.image_counts``.
        compute: the amounts of params.yaml.
    """
    row = measured.get(rehearsed_as(run, runs), {})
    asked = {"mem_mb": compute.memory_mb, "gpu_memory_mb": compute.gpu_memory_mb, "runtime": compute.runtime_minutes}
    for name, column in (("mem_mb", "memory_mb"), ("gpu_memory_mb", "gpu_memory_mb")):
        if row.get(column):
            asked[name] = math.ceil(SPARE * float(row[column]))
    if row.get("step_seconds"):
        minutes = SLOWER * training_steps(run, images) * float(row["step_seconds"]) / 60.0
        asked["runtime"] = min(compute.runtime_minutes, START_MINUTES + math.ceil(minutes))
    return asked
