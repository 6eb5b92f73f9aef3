"""Atomic writes and content hashes: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from lesion_core.errors import FormatError

CHUNK_BYTES = 1 << 20
# What `atomic_path` writes to: it names the machine, for jobs of a cluster share their disk.
PARTIAL = re.compile(r"\..*\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.part(\.[^.]*)?")
HOST = re.sub(r"[^A-Za-z0-9-]", "-", os.uname().nodename) or "host"
ABANDONED_SECONDS = 3600.0  # after which another machine's half-written file counts as left behind
MAKE_AGAIN = "delete the file and let Snakemake make it again; if it is your own, fix it"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, delete it on error.

    The temporary name keeps the suffix, since many writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{HOST}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a disk that fills says no name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


class Record(dict[str, Any]):
    """A mapping that was read from ``file``: a key that it lacks is a fault of the file, and told so."""

    file: Path

    def __missing__(self, key: str) -> Any:
        raise FormatError(f"It has no '{key}'", file=self.file, ids=[str(key)], remedy=MAKE_AGAIN)


def _record(path: Path, content: Any) -> Record:
    record = Record(content)
    record.file = path
    return record


def remove_partials(root: str | Path) -> list[Path]:
    """Delete what killed processes left half-written under ``root``; returns what was deleted.

    A file whose process lives on this machine stays, and one of another machine until it has been still for an hour.
    """
    removed = []
    for folder, _, names in os.walk(root):
        for name in names:
            match = PARTIAL.fullmatch(name)
            path = Path(folder) / name
            if match and not being_written(path, match["host"], int(match["pid"])):
                path.unlink(missing_ok=True)
                removed.append(path)
    return sorted(removed)


def remove_others(folder: Path, kinds: Iterable[str], keep: Collection[str]) -> None:
    """Delete what earlier settings left: files of a name that is there in all ``kinds`` (.csv, ...) and not kept."""
    names = [{path.stem for path in folder.glob(f"*{kind}")} for kind in kinds]
    for name in set.intersection(*names) - set(keep):
        for kind in kinds:
            (folder / f"{name}{kind}").unlink()


def being_written(path: Path, host: str, pid: int) -> bool:
    """Whether the process that a partial file names may still be at work: alive here, or elsewhere not long still."""
    if host == HOST:
        return _alive(pid)
    try:
        return time.time() - path.stat().st_mtime < ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    write_bytes(path, text.encode("utf-8"))


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Its SHA-256 identifies settings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n")


def read_text(path: str | Path) -> str:
    """Read UTF-8.

    Raises:
        FormatError: the file is something else.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"It is no text: {error}", file=path, remedy=MAKE_AGAIN) from error


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Read one JSON value of type ``kind``; mappings in it are `Record`.

    Raises:
        FormatError: the file is no JSON, or another kind of value.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _record(path, pairs))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise FormatError(f"It is no JSON: {error}", file=path, remedy=MAKE_AGAIN) from error
    if not isinstance(value, kind):
        raise FormatError(f"It holds no {kind.__name__}", file=path, remedy=MAKE_AGAIN)
    return value


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write dict rows as CSV with ``\\n`` line ends, atomically; unknown keys raise ValueError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: str | Path, *, ragged: bool = False, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a CSV with a header into rows (`Record`) of strings; a byte-order mark is dropped.

    Args:
        path: the file.
        delimiter: between cells.
        ragged: let rows of another length than the header's through, as ``csv.DictReader`` gives them.

    Raises:
        FormatError: the file is no UTF-8, no CSV, or a row has more or fewer cells than the header.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows: list[dict[str, str]] = [_record(path, row) for row in csv.DictReader(handle, delimiter=delimiter)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"It is no CSV: {error}", file=path, remedy=MAKE_AGAIN) from error
    odd = [] if ragged else [number for number, row in enumerate(rows, 1) if None in row or None in row.values()]
    if odd:
        named = [f"row {number}" for number in odd]
        raise FormatError("Rows have more or fewer cells than the header", file=path, ids=named, remedy=MAKE_AGAIN)
    return rows


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_parquet(path: str | Path, columns: Sequence[str] | None = None, *, needs: Sequence[str] = ()) -> Any:
    """Read a Parquet file as a pyarrow.Table.

    Args:
        path: the file.
        columns: read these alone.
        needs: where all are read, those that must be there.

    Raises:
        FormatError: the file is no Parquet, or lacks a column.
    """
    path = Path(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read(columns=None if columns is None else list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        if not path.is_file():  # Arrow's own error does not name the path as Python's does
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise FormatError(f"It is no Parquet: {error}", file=path, remedy=MAKE_AGAIN) from error
    if missing := sorted({*(columns or ()), *needs} - {*table.schema.names}):
        raise FormatError("It lacks columns", file=path, ids=missing, remedy=MAKE_AGAIN)
    return table


def read_array(path: str | Path, *, mapped: bool = False) -> np.ndarray:
    """Read a NumPy array (.npy), as a read-only memory map if ``mapped``.

    Raises:
        FormatError: the file is no array, or cut short.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"It is no NumPy array: {error}", file=path, remedy=MAKE_AGAIN) from error
    if not isinstance(array, np.ndarray):
        raise FormatError("It is no single NumPy array", file=path, remedy=MAKE_AGAIN)
    return array


def write_parquet(path: str | Path, table: pyarrow.Table) -> None:
    """Write a pyarrow.Table atomically; same table, same bytes."""
    with atomic_path(path) as partial:
        pyarrow.parquet.write_table(table, partial, compression="zstd")
