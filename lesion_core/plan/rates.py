"""Seconds of a step: measured in finished runs, or stated by a person."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv, read_json
from lesion_core.paths import Layout
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.kinds import kind_of
from lesion_core.settings.run import Run

STAGE_1 = Path("stage_1")


@dataclass(frozen=True)
class Rate:
    """Seconds of one training step, validation included, measured in a finished run of the same kind.

    Attributes:
        kind: see ``work.kind_of``.
        seconds: per optimisation step.
        batch_size: samples of those steps.
        device: where it was measured.
        run_id: in which run.
    """

    kind: str
    seconds: float
    batch_size: int
    device: str
    run_id: str


def measured_rates(root: Path) -> dict[str, Rate]:
    """Seconds per step of each kind of run in a finished results folder, the slowest of its runs.

    Raises:
        RunError: no run was trained there.
    """
    records = {path.parent: read_json(path) for path in Layout(root).run_files("provenance.json")}
    runs = {record["run_id"]: Run.model_validate(record["settings"]) for record in records.values()}
    rates: dict[str, Rate] = {}
    for folder, record in records.items():
        steps = _last_step(folder) + _last_step(folder / STAGE_1)
        run = runs[record["run_id"]]
        if not steps or isinstance(run.spec, DerivedMethod):
            continue
        training = run.spec.training
        rate = Rate(
            kind_of(run, runs),
            record["extra"]["training_seconds"] / steps,
            training.batch_size * training.accumulation,
            record["device"],
            run.run_id,
        )
        if rate.kind not in rates or rates[rate.kind].seconds < rate.seconds:
            rates[rate.kind] = rate
    if not rates:
        raise RunError("No run was trained here", file=root, remedy="give a finished results folder with --rates")
    return rates


def _last_step(folder: Path) -> int:
    history = folder / "history.csv"
    rows = read_csv(history) if history.is_file() else []
    return int(rows[-1]["step"]) if rows and "step" in rows[-1] else 0


def stated_rates(texts: Iterable[str], runs: Mapping[str, Run]) -> dict[str, Rate]:
    """Rates that a person knows, as ``KIND=SECONDS`` of one step at the batch size of the matrix.

    Raises:
        SettingsError: not of that form, or no run is of that kind.
    """
    kinds = {kind_of(run, runs): run.spec.training for run in runs.values() if not isinstance(run.spec, DerivedMethod)}
    rates = {}
    for text in texts:
        kind, _, number = text.rpartition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = math.nan
        if kind not in kinds or not 0 < seconds < math.inf:
            raise SettingsError(
                f"'{text}' is no rate", ids=sorted(kinds), remedy="give KIND=SECONDS with a kind of the matrix"
            )
        training = kinds[kind]
        rates[kind] = Rate(kind, seconds, training.batch_size * training.accumulation, "your machine", "stated")
    return rates
