"""What Snakemake ran to make a result: one record per job, from its notes in ``snapshot.json`` and its benchmarks."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from lesion_core.audit.manifest import Made
from lesion_core.errors import RunError
from lesion_core.files import canonical_json, read_csv, read_json
from lesion_core.sharing import snapshot

LOGS = "logs/"
SETTINGS = re.compile(r"(?<=--settings )'(?:[^']|'\"'\"')*'")
PLACES = ("ph2", "custom")  # of the data section: where photographs lie on somebody's disk
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
        command: the shell line, settings included, without places on this machine's disk.
        started, ended: UTC, ISO 8601, to the second.
        inputs, outputs, logs: relative to the results' root.
        usage: column of the benchmark -> value, of ``MEASURED``.
    """

    rule: str
    command: str
    started: str
    ended: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    usage: dict[str, float]

    @property
    def tool(self) -> str:
        """The program that the rule calls, e.g. ``lesion train``."""
        return " ".join(self.command.split()[:2])


def jobs_of(root: Path, wanted: set[str]) -> list[Job]:
    """The jobs that made ``wanted`` files of a finished result, by start and name.

    Args:
        root: ``results/<profile>``.
        wanted: relative to ``root``; jobs that made none of them are left out.

    Raises:
        RunError: there is no snapshot.
    """
    content = read_json(root / snapshot.NAME) if (root / snapshot.NAME).is_file() else None
    if not content or not content["notes"]:
        raise RunError(
            "Snakemake's notes of these results are missing",
            file=root / snapshot.NAME,
            remedy="call snakemake to the end once more; it writes them",
        )
    outputs: dict[tuple[str, str], list[str]] = defaultdict(list)
    notes: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for name, entry in sorted(content["files"].items()):
        note = content["notes"][entry["note"]]
        if note.get("shellcmd"):
            outputs[note["rule"], note["shellcmd"]].append(name)
            notes[note["rule"], note["shellcmd"]].append(note)
    prefix = f"{_prefix(content, root)}/"
    jobs = [
        _job(root, prefix, rule, command, made, notes[rule, command])
        for (rule, command), made in outputs.items()
        if not wanted.isdisjoint(made)
    ]
    return sorted(jobs, key=lambda job: (job.started, job.rule, job.command))


def made_so_far(root: Path, state: Path = snapshot.STATE) -> list[Made]:
    """The jobs that made what lies in the results, by Snakemake's notes; for a manifest, which is written by a job.

    Args:
        root: ``results/<profile>``, as Snakemake names it.
        state: Snakemake's folder of notes.
    """
    prefix = f"{root.as_posix()}/"
    outputs: dict[tuple[str, ...], list[str]] = defaultdict(list)
    notes: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, note in snapshot.notes(state, root.as_posix()):
        if not note.get("incomplete") and note.get("log"):
            job = (note["rule"], *note["log"])
            outputs[job].append(name.removeprefix(prefix))
            notes[job] = note
    return [
        Made(
            rule=note["rule"],
            started=_stamp(note["starttime"]),
            ended=_stamp(note["endtime"]),
            inputs=tuple(sorted({name.removeprefix(prefix) for name in note["input"] if name.startswith(prefix)})),
            outputs=tuple(outputs[job]),
        )
        for job, note in notes.items()
    ]


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


def _job(root: Path, prefix: str, rule: str, command: str, made: list[str], notes: list[dict[str, Any]]) -> Job:
    first = notes[0]
    inputs, logs = (
        tuple(sorted({name.removeprefix(prefix) for name in first.get(key) or () if name.startswith(prefix)}))
        for key in ("input", "log")
    )
    return Job(
        rule=rule,
        command=SETTINGS.sub(_public, command),
        started=_stamp(min(note["starttime"] for note in notes)),
        ended=_stamp(max(note["endtime"] for note in notes)),
        inputs=inputs,
        outputs=tuple(made),
        logs=logs,
        usage=_usage(root, rule, logs),
    )


def _prefix(content: dict[str, Any], root: Path) -> str:
    """How Snakemake names the results' root: notes hold inputs by it, whatever it is called here."""
    folder = f"/{root.name}/"
    for note in content["notes"]:
        for name in note.get("log") or ():
            if folder in f"/{name}":
                return f"/{name}".partition(folder)[0].lstrip("/") + f"/{root.name}"
    return root.as_posix()


def _public(quoted: re.Match[str]) -> str:
    """Settings in a shell line without places on this machine's disk."""
    settings = json.loads(shlex.split(quoted[0])[0])
    if isinstance(settings.get("data"), dict):
        settings["data"] |= {name: None for name in PLACES if name in settings["data"]}
    if not str(settings.get("mirror") or "").startswith("http") and "mirror" in settings:
        settings["mirror"] = None
    return shlex.quote(canonical_json(settings))


def _usage(root: Path, rule: str, logs: tuple[str, ...]) -> dict[str, float]:
    for log in logs:
        if log.startswith(LOGS):
            path = root / "benchmarks" / Path(log.removeprefix(LOGS)).with_suffix(".tsv")
        else:  # a run's log lies in its folder
            path = root / "benchmarks" / rule / Path(log).parents[1].name / f"{Path(log).parent.name}.tsv"
        if path.is_file():
            row = next(iter(read_csv(path, delimiter="\t")), {})
            return {name: float(row[name]) for name in MEASURED if row.get(name) not in (None, "", "NA", "-")}
    return {}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
