"""Rows of ``predictions.csv``, each on disk as soon as its files are, so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesion_core.files import write_text
from lesion_core.progress import say

NAME = "predictions.part.jsonl"


class FinishedRows:
    """The rows that an earlier run left in a folder, and those of this one."""

    def __init__(self, out: Path, made_with: Mapping[str, Any]) -> None:
        """Read what was made with the same files and options; nothing is written before `begin`.

        Args:
            out: folder of the masks; each line of its ``NAME`` is JSON: ``made_with``, then (image's stamp, row) pairs.
            made_with: what decides a row: SHA-256 of weights, options.
        """
        self.path = out / NAME
        first = json.dumps(made_with, sort_keys=True)
        lines = self.path.read_text("utf-8").split("\n") if self.path.is_file() else []
        self._kept = lines[:-1] if lines[:1] == [first] else [first]  # a kill may have cut the last line short
        pairs = [json.loads(line) for line in self._kept[1:]]
        self._rows = {row["image_id"]: (stamp, row) for stamp, row in pairs if (out / row["mask"]).is_file()}

    def begin(self) -> None:
        """Write what was taken up; the folder exists by now."""
        write_text(self.path, "\n".join([*self._kept, ""]))

    def of(self, images: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """The rows of those images, by id, whose files have not changed since."""
        found = {name: self._rows[name][1] for name in images if self._stamp(name) == _stamp(images[name])}
        if found:
            say(f"{len(found)} of {len(images)} images were finished before")
        return found

    def add(self, image: Path, row: Mapping[str, Any]) -> None:
        """Put a row on disk, after its files."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps([_stamp(image), row]) + "\n")

    def _stamp(self, name: str) -> list[int] | None:
        return self._rows[name][0] if name in self._rows else None


def _stamp(image: Path) -> list[int]:
    found = image.stat()
    return [found.st_size, found.st_mtime_ns]
