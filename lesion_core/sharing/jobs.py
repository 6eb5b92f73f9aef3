"""What Snakemake ran to make a result: one entry per job, from its records in ``snapshot.json`` and its benchmarks."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_json
from lesion_core.paths import Layout

LOG = re.compile(r"(?P<root>.*?)/(?:logs/(?P<name>.*)|runs/(?P<run>.*)/log)\.txt")
BATCH = re.compile(r"(?P<kind>\w+)_(?P<number>\d+)")  # of runs that one job trains
MEASURED = {  # column of a benchmark -> what it is, and its unit in QUDT
    "s": ("wall-clock time of the job", "https://qudt.org/vocab/unit/SEC"),
    "cpu_time": ("processor time of the job", "https://qudt.org/vocab/unit/SEC"),
    "max_rss": ("largest resident memory of the job", "https://qudt.org/vocab/unit/MebiBYTE"),
}


@dataclass(frozen=True)
class Job:
    """One execution of a rule.

    Attributes:
        rule: its name.
        command: the shell line.
        started, ended: UTC, ISO 8601, to the second.
        inputs, outputs: relative to the results' root.
        usage: column of the benchmark -> value, of ``MEASURED``.
    """

    rule: str
    command: str
    started: str
    ended: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    usage: dict[str, float]

    @property
    def tool(self) -> str:
        """The program that the rule calls, e.g. ``lesion train``."""
        return " ".join(self.command.split()[:2])


def read_snapshot(root: Path) -> dict[str, Any]:
    """What Snakemake recorded of each file: path -> {sha256, record}.

    Raises:
        RunError: there is no snapshot.
    """
    path = Layout(root).snapshot
    if not path.is_file():
        remedy = "`dvc pull` brings it; where it was never made, call snakemake to the end: its last job writes it"
        raise RunError("Snakemake's records of these results are missing", file=path, remedy=remedy)
    return read_json(path)


def jobs_of(root: Path, snapshot: dict[str, Any], wanted: set[str] | None = None) -> list[Job]:
    """The jobs that made the files of a result, by start and name.

    Args:
        snapshot: of `read_snapshot`.
        wanted: relative to ``root``; jobs that made none of these files are left out.
    """
    outputs: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, entry in sorted(snapshot.items()):
        outputs[entry["record"]["rule"], entry["record"]["shellcmd"]][name] = entry["record"]
    jobs = [_job(root, made) for made in outputs.values() if wanted is None or not wanted.isdisjoint(made)]
    return sorted(jobs, key=lambda job: (job.started, job.rule, job.command))


def positions(jobs: list[Job]) -> dict[str, int]:
    """Rule -> place in an order in which a rule comes after all whose outputs it reads; empty if there is none."""
    maker = {name: job.rule for job in jobs for name in job.outputs}
    graph: dict[str, set[str]] = {job.rule: set() for job in jobs}
    for job in jobs:
        graph[job.rule] |= {maker[name] for name in job.inputs if name in maker} - {job.rule}
    places: dict[str, int] = {}
    try:
        for rule in TopologicalSorter({rule: sorted(graph[rule]) for rule in sorted(graph)}).static_order():
            places[rule] = 1 + max((places[before] for before in graph[rule]), default=0)
    except CycleError:
        return {}
    return places


def _job(root: Path, made: dict[str, dict[str, Any]]) -> Job:
    first = next(iter(made.values()))
    log, batch = LOG.fullmatch(first["log"][0]), BATCH.fullmatch(first["rule"])
    assert log is not None, first["log"]
    folder = log["root"]  # when it was computed, whatever it is called here
    trained = f"{batch['kind']}/{batch['number']}" if batch else f"{first['rule']}/{log['run']}"
    return Job(
        rule=first["rule"],
        command=first["shellcmd"],
        started=_stamp(min(record["starttime"] for record in made.values())),
        ended=_stamp(max(record["endtime"] for record in made.values())),
        inputs=tuple(name.removeprefix(f"{folder}/") for name in first["input"] if name.startswith(f"{folder}/")),
        outputs=tuple(made),
        usage=_usage(Layout(root).benchmark(log["name"] or trained)),
    )


def _usage(benchmark: Path) -> dict[str, float]:
    if not benchmark.is_file():
        return {}
    row = next(iter(read_csv(benchmark, delimiter="\t")), {})
    return {name: float(row[name]) for name in MEASURED if row.get(name) not in (None, "", "NA", "-")}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
