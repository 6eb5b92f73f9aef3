"""One kind of what is kept, with its size: a row of the table that `lesion cache` shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1e6


@dataclass
class Part:
    """One kind of what is kept.

    Attributes:
        name: for a table.
        kept: by ``--trim``.
        units: name (a run's id, a folder) -> its files and folders, which go together; empty where they are kept.
        files: how many.
        size: in bytes.
    """

    name: str
    kept: bool
    units: dict[str, list[Path]] = field(default_factory=dict)
    files: int = 0
    size: int = 0

    def add(self, unit: str, path: Path) -> None:
        """Count a file, or all files of a folder, as part of a unit."""
        self.units.setdefault(unit, []).append(path)
        self.count(path)

    def count(self, path: Path) -> None:
        """Count a file, or all files of a folder."""
        for file in files_of(path):
            self.files += 1
            self.size += file.lstat().st_size


def files_of(path: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder; links are not followed."""
    if path.is_symlink() or path.is_file():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def megabytes(size: int) -> str:
    """Bytes as megabytes (10^6), to a tenth."""
    return f"{size / MEGABYTE:,.1f}"


def table(parts: Iterable[Part]) -> str:
    """One line for each kind: name, files, megabytes, and whether ``--trim`` keeps it."""
    parts = list(parts)
    width = max(len(part.name) for part in parts)
    lines = [f"{'what':<{width}}  {'files':>9}  {'MB':>11}  --trim"]
    for part in parts:
        fate = "keeps it" if part.kept else f"removes it ({len(part.units)})" if part.units else "removes it"
        lines.append(f"{part.name:<{width}}  {part.files:>9,}  {megabytes(part.size):>11}  {fate}")
    return "\n".join(lines)
