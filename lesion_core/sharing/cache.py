"""What a results folder keeps beyond the present matrix, how large it is, and how to prune it.

Runs of earlier settings stay beside the present ones, since a run's folder is named after its settings: a setting that
is put back finds its runs again. ``prune`` deletes them, and nothing that the present matrix is made of: neither what
the last finished pipeline recorded in ``manifest.json`` nor what the profile's settings ask for now.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lesion_core.audit.current import Current
from lesion_core.audit.manifest import read_manifest, recorded_settings
from lesion_core.files import read_json
from lesion_core.paths import ENTRIES, Layout, run_of
from lesion_core.settings import Plan
from lesion_core.settings import load as config
from lesion_core.sharing.lock import hold

OF_JOBS = ("logs", "benchmarks")


@dataclass
class Part:
    """One kind of what is kept: a row of the table that ``lesion cache`` shows.

    Attributes:
        name: for the table.
        stale: the present matrix does not need it.
        units: name (a run's id, a folder) -> its files and folders.
    """

    name: str
    stale: bool
    units: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, unit: str, path: Path) -> None:
        """Count a file, or all files of a folder, as part of a unit."""
        self.units.setdefault(unit, []).append(path)

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [file for paths in self.units.values() for path in paths for file in files_of(path)]

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(file.lstat().st_size for file in self.files)


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
    runs = Part("runs of earlier settings", stale=True)
    arrays = Part("pixels at sizes of earlier settings", stale=True)
    for path in _by_run(root):
        parts = path.relative_to(root).parts
        if not current.owns(parts):
            runs.add(str(run_of(parts)), path)
    gone = [run_id for run_id in runs.units if run_id not in current.places]
    for path in sorted(file for folder in OF_JOBS for file in files_of(root / folder)):
        # a job's files are named <run_id>.txt or <run_id>_<dataset>.txt
        for run_id in gone:
            if path.stem == run_id or path.stem.startswith(f"{run_id}_"):
                runs.add(run_id, path)
    for path in sorted(root.glob("protocols/*/*/pixels/*/*/")):
        if not current.owns((*path.relative_to(root).parts, "")):
            arrays.add(path.relative_to(root).as_posix(), path)
    used, unread = _embeddings(root, current)
    others = [used, runs, arrays, unread]
    counted = {file for part in others for file in part.files}
    rest = Part("results", stale=False, units={"": [file for file in files_of(root) if file not in counted]})
    return [rest, *others]


def prune(root: Path) -> int:
    """Delete what `contents` finds stale; returns the bytes that this freed.

    Raises:
        RunError: another run works there, or `present_matrix` cannot be told.
    """
    with hold(root):
        stale = [part for part in contents(root) if part.stale]
        freed = sum(part.size for part in stale)
        for path in (path for part in stale for paths in part.units.values() for path in paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for folder in sorted((root / "embeddings").rglob("*/"), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
    return freed


def table(parts: Iterable[Part]) -> str:
    """One line for each kind: name, files, megabytes (10^6 bytes), and whether ``--prune`` keeps it."""
    parts = list(parts)
    width = max(len(part.name) for part in parts)
    lines = [f"{'what':<{width}}  {'files':>9}  {'MB':>11}  --prune"]
    for part in parts:
        fate = f"deletes it ({len(part.units)})" if part.stale else "keeps it"
        lines.append(f"{part.name:<{width}}  {len(part.files):>9,}  {part.size / 1e6:>11,.1f}  {fate}")
    return "\n".join(lines)


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder; links are not followed."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_symlink() or file.is_file()]


def _by_run(root: Path) -> Iterator[Path]:
    """Files and folders that belong to one run each."""
    for entry in ENTRIES:
        found = sorted(root.glob("/".join([entry.name, *["*"] * entry.run_at]))) if entry.run_at else []
        yield from (path for path in found if not path.name.startswith("."))


def _embeddings(root: Path, current: Current) -> tuple[Part, Part]:
    """Stored embeddings that finished runs of the matrix read, and all others; unfinished runs make theirs anew."""
    used, unread = Part("embeddings", stale=False), Part("embeddings that no finished run read", stale=True)
    layout = Layout(root)
    opened: set[str] = set()
    for run_id, place in current.places.items():
        record = layout.run(place, run_id) / "provenance.json"
        if record.is_file():
            opened.update(read_json(record).get("opened") or ())
    for path in sorted(files_of(layout.embeddings)):
        name = path.relative_to(root).as_posix()
        (used if name in opened else unread).add(path.relative_to(root).parts[1], path)
    return used, unread
