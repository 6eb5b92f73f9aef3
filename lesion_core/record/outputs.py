"""provenance.json of a job that trains nothing: what it opened, and the hashes of what it wrote, taken once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lesion_core.files import read_json, sha256_file, write_json
from lesion_core.record import observe

NAME = "provenance.json"
INDEXES = ("index.csv", "masks.csv")  # files that stand for the arrays beside them
IMAGES = "data/"  # and masks, as unpacked
TEST_MASKS = "test_masks.zip"  # of a run: true outlines of test images, which its scoring stored


def record_job(record: Path, root: Path, outputs: Iterable[Path]) -> None:
    """Write {opened, outputs} of this process's job; to be called when its outputs are complete.

    ``opened``: images and masks that it opened since ``observe.begin``, as the catalog names them, and what scoring
    stored of test masks. ``outputs``: SHA-256 by name.

    Args:
        record: ``provenance.json`` or ``<name>.provenance.json``, in the folder of the outputs.
        outputs: files in the record's folder that are large, or that no rule declares.
    """
    opened = observe.opened_under(root) or []
    told = {name for name in opened if name.startswith(IMAGES) or name.endswith(f"/{TEST_MASKS}")}
    hashes = {path.name: sha256_file(path) for path in sorted(outputs)}
    write_record(record, hashes, opened=sorted(told | observe.own_opened(root)))


def write_record(record: Path, outputs: Mapping[str, str], **more: Any) -> None:
    """Write a job's record: ``outputs`` by their paths from the record's folder, and what else it tells."""
    write_json(record, {"outputs": dict(outputs), **more})


def recorded_outputs(record: Path) -> dict[Path, str]:
    """File -> SHA-256 as a record tells; left out: what is gone, or younger than the record, which vouches for it no
    more. Empty where there is no record, or one of a run, which has no ``outputs``.
    """
    try:
        outputs, written = read_json(record).get("outputs", {}), record.stat().st_mtime_ns
    except (OSError, ValueError):
        return {}
    files = {record.parent / name: digest for name, digest in outputs.items()}
    return {path: digest for path, digest in files.items() if path.is_file() and path.stat().st_mtime_ns <= written}


def array_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each ``.npy`` file of ``folder``, by name: as recorded where the record holds, read anew elsewhere."""
    known = recorded_outputs(folder / NAME)
    return {path.name: known.get(path) or sha256_file(path) for path in arrays_of(folder)}


def arrays_of(folder: Path) -> list[Path]:
    """The arrays of a folder, sorted; hidden ones are half-written."""
    return sorted(folder.glob("[!.]*.npy"))
