"""Lets content decide after a pull, a clone or a copy: what Snakemake knows of each file, kept beside the results.

Snakemake compares times and keeps its records in ``.snakemake``. A pull gives files new times and brings no records.
The pipeline's last job writes the records into ``snapshot.json``; ``lesion restore`` hands them back to Snakemake, and
files their recorded times, where the SHA-256 is the recorded one. Any other file counts as new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snakemake import persistence
from snakemake.persistence.file import FilePersistence

from lesion_core.audit.manifest import Made, read_manifest
from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file, write_json
from lesion_core.paths import Layout
from lesion_core.sharing.jobs import jobs_of, read_snapshot
from lesion_core.sharing.lock import hold

FORMAT = 6  # of Snakemake's records, that of Snakemake 9.27: another one may mean something else
STORE = Path(".snakemake")
SLACK_SECONDS = 0.01  # a record has the file's own time, rounded to a float


def check_store(root: Path, backend: str) -> None:
    """Before any job: can a snapshot be made of Snakemake's records, and has one that came by a pull been restored?

    Args:
        root: ``results/<profile>``, as the rules name it.
        backend: what ``--persistence-backend`` says.

    Raises:
        RunError: no, with what to do.
    """
    if backend != "file":
        raise RunError(
            f"Snakemake's records are to be kept in another store ({backend}), from which no snapshot can be made",
            remedy="call snakemake without --persistence-backend",
        )
    store, snapshot = open_store(), Layout(root).snapshot
    if snapshot.is_file() and not any(store._read_record(f"{root}/{file}") for file in read_json(snapshot)):
        raise RunError(
            "These results came by a pull or a copy: by their times all would be computed again",
            file=root,
            remedy=f"`lesion restore --root {root}` lets content decide; to compute all again, delete {snapshot}",
        )


def open_store() -> FilePersistence:
    """Snakemake's records of the working directory.

    Raises:
        RunError: they have another format.
    """
    if persistence.RECORD_FORMAT_VERSION != FORMAT:
        raise RunError(
            f"Snakemake's records have format {persistence.RECORD_FORMAT_VERSION}, a snapshot needs format {FORMAT}",
            remedy="install the Snakemake of requirements.lock",
        )
    return FilePersistence()


def save(root: Path) -> None:
    """Write ``root/snapshot.json``: {path: {sha256, record: what Snakemake recorded}}.

    Files that something else has written since their job ended are left out.

    Args:
        root: ``results/<profile>``, with its manifest.

    Raises:
        RunError: there is no manifest, or Snakemake has no records of these results that can be read.
    """
    store, root = open_store(), _as_rules_say(root)
    hashes = read_manifest(root).hashes
    files = {
        name: {"sha256": hashes.get(name) or sha256_file(root / name), "record": dict(record.items())}
        for name, record in _records(root, store)
    }
    if not files:
        raise RunError("Snakemake has no records of these results", file=root, remedy="call it where it was called")
    write_json(Layout(root).snapshot, files)


def made_so_far(root: Path) -> list[Made]:
    """The jobs that made what lies in the results, for the manifest, which a job writes too; none without Snakemake's.

    Raises:
        RunError: as `open_store`.
    """
    if not STORE.is_dir():  # Snakemake would make the folder
        return []
    root = _as_rules_say(root)
    records = {name: {"record": record} for name, record in _records(root, open_store())}
    return [Made(job.rule, job.started, job.ended, job.inputs, job.outputs) for job in jobs_of(root, records)]


def restore(root: Path) -> tuple[int, list[str]]:
    """Hand Snakemake its records, and files their recorded times, where the content is the recorded one.

    Returns:
        How many files were restored, and those that are here with another content.

    Raises:
        RunError: there is no snapshot, a pipeline works there, or Snakemake's records have another format.
    """
    root = _as_rules_say(root)
    snapshot, store = read_snapshot(root), open_store()
    restored, changed = 0, []
    with hold(root):
        for inside, entry in sorted(snapshot.items()):
            path = root / inside
            known = store._read_record(path.as_posix())
            if not path.is_file() or (known is not None and _as_recorded(path, known)):
                continue
            if sha256_file(path) != entry["sha256"]:
                changed.append(inside)
                continue
            record = persistence.MetadataRecord(**entry["record"])
            os.utime(path, (record.endtime, record.endtime))
            store._write_record(path.as_posix(), record)
            restored += 1
    return restored, changed


def _records(root: Path, store: FilePersistence) -> Iterator[tuple[str, persistence.MetadataRecord]]:
    """(path relative to the results, record) of every file that is as its job left it, sorted."""
    for path in sorted(root.rglob("*")):
        record = store._read_record(path.as_posix())
        if record is not None and path.is_file() and _as_recorded(path, record):
            yield path.relative_to(root).as_posix(), record


def _as_recorded(path: Path, record: persistence.MetadataRecord) -> bool:
    """Whether nothing has written the file since its job ended."""
    return record.endtime is not None and path.stat().st_mtime <= record.endtime + SLACK_SECONDS


def _as_rules_say(root: Path) -> Path:
    """The folder relative to the checkout, as Snakemake's records name it."""
    return Path(os.path.relpath(root))
