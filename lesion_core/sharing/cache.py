"""What a results folder keeps beyond the present matrix, how large it is, and how to let go of it.

Runs of earlier settings stay beside the present ones, since a run's folder is named after its settings: a setting that
is put back finds its runs again. ``trim`` removes them, and nothing that the present matrix is made of: neither what
the last finished pipeline recorded in ``manifest.json`` nor what the profile's settings ask for now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lesion_core.audit.current import HARMONIZED, Current
from lesion_core.audit.manifest import read_manifest, recorded_settings
from lesion_core.files import read_json
from lesion_core.paths import ENTRIES, Layout, run_of
from lesion_core.settings import Plan
from lesion_core.settings import load as config
from lesion_core.sharing import lock
from lesion_core.sharing.part import Part, files_of

TRASH = ".trash"  # where a unit lies between being taken away, in one step, and being deleted
OF_JOBS = ("logs", "benchmarks")


def present_matrix(root: Path) -> Current:
    """What the last finished pipeline made, and what the profile's settings ask for now.

    Raises:
        RunError: no pipeline was finished there, so nothing tells what is current.
        SettingsError: params.yaml or the profile is refused.
    """
    (plan,) = recorded_settings(root, read_manifest(root), plan=Plan)
    asked = config.expand(config.load(plan.profile)).values()
    return Current.of_results(root, plan) | Current.of(asked)


def contents(root: Path) -> list[Part]:
    """Everything under ``root``, by whether the present matrix needs it.

    Raises:
        RunError, SettingsError: as `present_matrix`.
    """
    current = present_matrix(root)
    whole = Part("results", kept=True)
    runs = Part("runs of earlier settings", kept=False)
    arrays = Part("pixels at sizes of earlier settings", kept=False)
    rest = Part("left by an interrupted trim", kept=False)
    for path in _folders_of_runs(root):
        parts = path.relative_to(root).parts
        if not current.owns(parts):
            runs.add(str(run_of(parts)), path)
    gone = [run_id for run_id in runs.units if run_id not in current.places]
    for path in sorted(file for folder in OF_JOBS for file in files_of(root / folder)):
        if run_id := _run_in(path, gone):
            runs.add(run_id, path)
    for path in sorted(root.glob(f"{HARMONIZED[0]}/*/*/")):
        if not current.owns((*path.relative_to(root).parts, "")):
            arrays.add(path.relative_to(root).as_posix(), path)
    used, stale = _embeddings(root, current)
    if (root / TRASH).is_dir():
        rest.add(TRASH, root / TRASH)
    whole.count(root)
    others = [used, runs, arrays, stale, rest]
    whole.files -= sum(part.files for part in others)
    whole.size -= sum(part.size for part in others)
    return [whole, *others]


def trim(root: Path) -> int:
    """Remove what `contents` finds that the present matrix does not need; returns the bytes that this freed.

    Each folder and file goes in one step for whoever looks on, so an interruption leaves whole runs or none; what it
    leaves to be deleted, the next call deletes.

    Raises:
        RunError: another run works there, or `present_matrix` cannot be told.
    """
    with lock.hold(root):
        removed = [part for part in contents(root) if not part.kept]
        trash = root / TRASH
        trash.mkdir(exist_ok=True)
        going = [path for part in removed for paths in part.units.values() for path in paths if path != trash]
        for number, path in enumerate(going):
            os.replace(path, trash / f"{os.getpid()}-{number}")
        shutil.rmtree(trash)
        _remove_empty(root / "embeddings")
    return sum(part.size for part in removed)


def _folders_of_runs(root: Path) -> Iterator[Path]:
    """Files and folders that belong to one run each, those of ``runs/`` first."""
    for folder, depth in ((entry.name, entry.run_at) for entry in ENTRIES if entry.run_at):
        levels = depth - folder.count("/")
        found = sorted(root.glob("/".join([folder, *["*"] * levels])))
        yield from (path for path in found if not path.name.startswith("."))


def _run_in(path: Path, runs: Iterable[str]) -> str:
    """The run that a job's file is named after: ``<run_id>.txt``, ``<run_id>_<dataset>.txt``; empty: none of them."""
    return next((run for run in runs if path.stem == run or path.stem.startswith(f"{run}_")), "")


def _embeddings(root: Path, current: Current) -> tuple[Part, Part]:
    """Stored embeddings that finished runs of the matrix opened, and all others; unfinished runs make theirs anew."""
    used, stale = Part("embeddings", kept=True), Part("embeddings that no finished run read", kept=False)
    layout = Layout(root)
    opened: set[str] = set()
    for run_id, place in current.places.items():
        record = layout.run(place, run_id) / "provenance.json"
        if record.is_file():
            opened.update(read_json(record).get("opened") or ())
    for path in sorted(files_of(layout.embeddings)):
        if path.relative_to(root).as_posix() in opened:
            used.count(path)
        else:
            stale.add(path.relative_to(root).parts[1], path)
    return used, stale


def _remove_empty(folder: Path) -> None:
    for inside, _, _ in os.walk(folder, topdown=False):
        if not any(Path(inside).iterdir()):
            Path(inside).rmdir()
