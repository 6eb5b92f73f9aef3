"""Are the files the recorded ones: content, settings, inputs, code and package versions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lesion_core.audit.answer import Answer
from lesion_core.audit.current import run_folders
from lesion_core.audit.manifest import NO_RESULTS, Manifest, product_files
from lesion_core.errors import LesionError
from lesion_core.files import read_json, sha256_file
from lesion_core.paths import Layout, entry_of
from lesion_core.record.calls import NAME as CALLS
from lesion_core.record.calls import read_calls
from lesion_core.record.own_files import own_files
from lesion_core.record.provenance import STAGES, VERSIONED, code_hash
from lesion_core.settings import Plan
from lesion_core.settings.run import Run, task_of

PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)


def files(root: Path, plan: Plan, manifest: Manifest) -> Answer:
    """Every recorded file is there with its bytes, no other lies among the results; and the own dataset's files.

    Those lie outside ``root``: the catalog records them. Files that nothing vouches for are counted by their place.
    """
    answer = Answer("Are all files the ones that were recorded?")
    recorded, catalog = manifest.files, Layout(root).catalog
    changed = _changed(root, recorded)
    answer.problems += changed.values()
    answer.problems += [
        f"{name}: recorded, but nothing that the pipeline makes has this name"
        for name in sorted(recorded)
        if (entry := entry_of(Path(name).parts)) is None or entry.kind != "product"
    ]
    answer.evidence = f"{len(recorded) - len(changed)} of {len(recorded)} files have the SHA-256 in manifest.json"
    try:
        strangers = set(product_files(root, plan)) - recorded.keys()
    except LesionError as error:
        answer.problems.append(f"what else lies here cannot be told: {error}")
        strangers = set()
    answer.problems += [f"{name}: no result that was recorded" for name in sorted(strangers)]
    unvouched: Counter[str] = Counter()
    for parts in sorted(path.relative_to(root).parts for path in root.rglob("*") if not path.is_dir()):
        if "/".join(parts) in recorded.keys() | strangers:
            continue
        place = _unvouched(parts)
        unvouched[place] += 1
        if not place:
            answer.problems.append(f"{'/'.join(parts)}: nothing that the pipeline makes has this name")
    answer.evidence += "; nothing vouches for " + ", ".join(
        f"{n} of {place}" for place, n in unvouched.items() if place
    )
    name = catalog.relative_to(root).as_posix()
    if name in changed:
        answer.evidence += f"; not asked: the own dataset's files, since {name} is not the recorded one"
    elif catalog.is_file() and (own := own_files(catalog)):
        changed = _changed(root, own)
        answer.problems += changed.values()
        answer.evidence += f", {len(own) - len(changed)} of the own dataset's {len(own)} files that in {name}"
    return answer


def _unvouched(parts: tuple[str, ...]) -> str:
    """In words, what a file is that the manifest does not record; empty: nothing known."""
    entry = entry_of(parts)
    if parts[-1].startswith("."):
        return f"hidden files ({parts[-1]})"
    if entry is None:
        return ""
    if entry.kind != "product":
        return entry.name
    return f"{entry.name} ({parts[-1] if parts[-1] in NO_RESULTS else 'earlier settings'})"


def _changed(root: Path, recorded: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with files, by name: gone, or of another content than is recorded."""
    problems = {}
    for name, expected in sorted(recorded.items()):
        if not (root / name).is_file():
            problems[name] = f"{name}: missing"
        elif sha256_file(root / name) != expected:
            problems[name] = f"{name}: its SHA-256 is not the recorded {expected[:12]}..."
    return problems


def settings(root: Path, plan: Plan) -> Answer:
    """Each run's settings give its id, and are those of its provenance."""
    answer = Answer("Are each run's settings the ones that its id was made of?")
    count = 0
    for folder in run_folders(root, plan):
        name = folder.relative_to(root).as_posix()
        count += 1
        run = Run.load(folder)
        if run.run_id.rsplit("-", 1)[1] != folder.name.rsplit("-", 1)[1]:
            answer.problems.append(f"{name}/settings.yaml: hashes to {run.run_id}")
        if read_json(folder / "provenance.json")["settings"] != run.model_dump(mode="json"):
            answer.problems.append(f"{name}/settings.yaml: differs from the settings in provenance.json")
    answer.evidence = f"{count} runs: the id recomputed from settings.yaml, and compared with provenance.json"
    return answer


def inputs(root: Path, plan: Plan, manifest: Manifest) -> Answer:
    """What each run says it read, and what the manifest says of each job, is what the manifest records of these files.

    Whether the files themselves are the recorded ones is what `files` answers.
    """
    answer = Answer("Was each result made from the files that lie here?")
    runs = {folder.name: read_json(folder / "provenance.json")["inputs"] for folder in run_folders(root, plan)}
    jobs = {job.name: job.inputs for job in manifest.jobs if job.rule}
    hashes = manifest.hashes
    for maker, read in [*runs.items(), *jobs.items()]:
        for name, expected in sorted(read.items()):
            if name in hashes and expected != hashes[name]:
                answer.problems.append(f"{name}: {maker} was made from another content")
            elif maker in runs and name not in hashes:
                answer.problems.append(f"{name}: not recorded, an input of {maker}")
    told = [sum(map(len, read.values())) for read in (runs, jobs)]
    answer.evidence = (
        f"{told[0]} input hashes of {len(runs)} runs' provenance.json and {told[1]} of {len(jobs)} jobs compared with"
        " what manifest.json records of these files"
    )
    return answer


def code(root: Path, plan: Plan) -> Answer:
    """The code that trained the runs is this checkout's, but for comments and docstrings."""
    answer = Answer("Is the code that trained the runs the code of this checkout?")
    commits, count, dirty = set(), 0, 0
    for folder in run_folders(root, plan):
        recorded = read_json(folder / "provenance.json")["code"]
        commits.add(recorded.get("commit", "no checkout")[:12])
        count += 1
        dirty += bool(recorded.get("dirty"))
        task = task_of(folder)
        here = code_hash(STAGES.get(task, f"lesion_core.training.{task}"))
        if recorded["hash"] != here:
            answer.problems.append(f"{folder.relative_to(root).as_posix()}: code {recorded['hash']}, here {here}")
    answer.evidence = (
        f"{count} runs: hash over the syntax trees of all modules that training imports;"
        f" commits {', '.join(sorted(commits))}, {dirty} of them dirty"
    )
    return answer


def versions(root: Path, plan: Plan, lock: Path) -> Answer:
    """The packages that decide numbers had the lock's versions in all runs, and in the calls that made these results.

    A run tells its own; those of scores, tables and figures are told by the call of the pipeline that made them.
    Calls that ended before the first of the runs began are of results that are gone.
    """
    answer = Answer("Do the package versions match requirements.lock?")
    if not lock.is_file():
        answer.skipped = f"{lock} is not here: run from a checkout"
        return answer
    pins: dict[str, set[str]] = {}
    for pin in PIN.finditer(lock.read_text(encoding="utf-8")):
        pins.setdefault(_normal(pin["name"]), set()).add(pin["version"])
    runs = {folder.name: read_json(folder / "provenance.json") for folder in run_folders(root, plan)}
    began = min((run["started"] for run in runs.values()), default="")
    calls = {f"{CALLS}, {call['started']}": call for call in read_calls(root) if call["ended"] >= began}
    compared = sorted(name for name in VERSIONED if _normal(name) in pins)
    for name in compared:
        # A local build tag (+cpu) is not part of the version that a lock pins.
        allowed = {version.split("+")[0] for version in pins[_normal(name)]}
        for who, told in [*runs.items(), *calls.items()]:
            version = told["packages"].get(name, "of no recorded version")
            if version.split("+")[0] not in allowed:
                answer.problems.append(f"{who}: {name} {version}, the lock has {' or '.join(sorted(allowed))}")
    if not compared:
        answer.problems.append(f"{lock.name}: pins none of the packages that decide numbers")
    answer.evidence = f"{', '.join(compared)} of {len(runs)} runs and {len(calls)} calls compared with {lock.name}"
    return answer


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
