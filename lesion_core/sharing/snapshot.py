"""Lets Snakemake decide by content: what it knows of each file, kept beside the results with the file's hash and time.

Snakemake compares times and keeps its notes in ``.snakemake``, outside the results. A clone, a copy or a pull gives
files new times and leaves the notes behind. ``save`` writes both into ``snapshot.json``; ``restore`` puts them back for
files whose SHA-256 is the recorded one and for no others; ``catch_up`` does what a killed call left undone.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lesion_core.files import canonical_json, read_json, sha256_file, write_json, write_text

NAME = "snapshot.json"
STATE = Path(".snakemake") / "metadata"
NAME_LENGTH = 255  # longest file name; Snakemake folds longer ones into folders that start with @
SLACK_SECONDS = 0.01  # a note has the file's own time, rounded to a float


def save(root: Path, state: Path = STATE) -> None:
    """Write ``root/snapshot.json`` from Snakemake's notes of files there; unchanged files are not hashed again.

    Args:
        root: ``results/<profile>``, as Snakemake names it (relative to the working directory).
        state: Snakemake's folder of notes.
    """
    known = _read(root)["files"]
    kept: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    files: dict[str, dict[str, Any]] = {}
    for name, note in notes(state, root.as_posix()):
        path = Path(name)
        if not path.is_file() or note.get("incomplete"):
            continue
        text = canonical_json(note)
        if text not in places:
            places[text] = len(kept)
            kept.append(note)
        now = path.stat()
        inside = path.relative_to(root).as_posix()
        old = known.get(inside, {})
        same = (old.get("size"), old.get("mtime_ns")) == (now.st_size, now.st_mtime_ns)
        files[inside] = {
            "size": now.st_size,
            "mtime_ns": now.st_mtime_ns,
            "sha256": old["sha256"] if same else sha256_file(path),
            "note": places[text],
        }
    write_json(root / NAME, {"files": files, "notes": kept})


def catch_up(root: Path, finished: Path, state: Path = STATE) -> bool:
    """Save what a call that was killed at its very end could not: the last job was done, the snapshot was not.

    Snakemake calls no hook when there is nothing to be done, so the next call would never write it.

    Args:
        root: ``results/<profile>``.
        finished: what the pipeline's last job writes.
        state: Snakemake's folder of notes.

    Returns:
        Whether ``snapshot.json`` was written; never while a pipeline runs there.
    """
    try:
        ended = finished.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    saved = root / NAME
    if (saved.is_file() and saved.stat().st_mtime_ns >= ended) or _busy(root):
        return False
    save(root, state)
    return True


def restore(root: Path, state: Path = STATE) -> list[str]:
    """Give files their recorded times and Snakemake its notes of them, where something else put the files there.

    A file is left alone when Snakemake's own note is younger than it, for then its job wrote it, and when its content
    is not the recorded one, for then Snakemake shall see that it is new.

    Returns:
        The files that were restored, relative to ``root``; none while a pipeline runs there.
    """
    if _busy(root):
        return []
    snapshot = _read(root)
    restored = []
    for inside, entry in sorted(snapshot["files"].items()):
        path = root / inside
        note = state / _note_name(path.as_posix())
        try:
            now = path.stat()
        except FileNotFoundError:
            continue
        if _wrote_it(note, now.st_mtime):
            continue
        if now.st_size != entry["size"] or sha256_file(path) != entry["sha256"]:
            continue
        if now.st_mtime_ns != entry["mtime_ns"]:
            os.utime(path, ns=(entry["mtime_ns"], entry["mtime_ns"]))
        # without this folder Snakemake would take its notes for those of an old version
        (state.parent / "incomplete").mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(snapshot["notes"][entry["note"]]))
        restored.append(inside)
    return restored


def _busy(root: Path) -> bool:
    """Whether a pipeline holds the results folder's lock."""
    import fcntl

    try:
        with open(root / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _wrote_it(note: Path, mtime: float) -> bool:
    """Whether the job that a note tells of ended after the file was last written."""
    try:
        ended = json.loads(note.read_text(encoding="utf-8")).get("endtime")
    except (OSError, ValueError):
        return False
    return ended is not None and mtime <= ended + SLACK_SECONDS


def _read(root: Path) -> dict[str, Any]:
    try:
        content = read_json(root / NAME)
    except (OSError, ValueError):
        return {"files": {}, "notes": []}
    return content


def notes(state: Path, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, note) of every note whose file lies under ``prefix``, sorted by file."""
    found = []
    for path in state.rglob("*"):
        if path.is_file():
            name = "".join(part.removeprefix("@") for part in path.relative_to(state).parts)
            try:
                file = base64.urlsafe_b64decode(name).decode("utf-8")
            except ValueError:
                continue
            if file.startswith(f"{prefix}/"):
                found.append((file, path))
    for file, path in sorted(found):
        try:
            yield file, json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # half a note of a killed Snakemake, which ignores it too


def _note_name(file: str) -> Path:
    """Where Snakemake keeps its note of ``file``, relative to its folder of notes."""
    name = base64.urlsafe_b64encode(file.encode("utf-8")).decode("ascii")
    step = NAME_LENGTH - 1
    pieces = [name[start : start + step] for start in range(0, len(name), step)]
    return Path(*[f"@{piece}" for piece in pieces[:-1]], pieces[-1])
