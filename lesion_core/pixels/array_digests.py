"""Content of the memory-mapped arrays beside an index: hashed once when they are written, not by every training job."""

from __future__ import annotations

import json
from pathlib import Path

from lesion_core.files import sha256_file, write_json

RECORD = "arrays.json"
INDEXES = ("index.csv", "masks.csv")  # files that stand for the arrays beside them


def record_arrays(folder: Path) -> None:
    """Hash all arrays of ``folder`` and write ``arrays.json``; to be called when they are complete."""
    write_json(folder / RECORD, {path.name: sha256_file(path) for path in _arrays(folder)})


def array_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each ``.npy`` file of ``folder``, by name.

    What ``record_arrays`` wrote is believed for arrays that are not younger than the record; others are read.
    """
    record = folder / RECORD
    try:
        known, written = json.loads(record.read_text(encoding="utf-8")), record.stat().st_mtime_ns
    except (OSError, ValueError):
        known, written = {}, 0
    digests = {}
    for path in _arrays(folder):
        believed = isinstance(known, dict) and path.name in known and path.stat().st_mtime_ns <= written
        digests[path.name] = known[path.name] if believed else sha256_file(path)
    return digests


def _arrays(folder: Path) -> list[Path]:
    # Hidden ones are half-written.
    return sorted(path for path in folder.glob("*.npy") if not path.name.startswith("."))
