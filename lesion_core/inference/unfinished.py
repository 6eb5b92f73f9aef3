"""Pseudo-masks under way: arrays on disk and a journal, so that a killed job goes on and a reader sees none of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import read_csv, read_json, write_csv, write_json
from lesion_core.progress import say

COLUMNS = ("image_id", "area", "components", "confidence", "border_turning", "flags")
ARRAYS = ("probabilities.npy", "masks.npy")


@dataclass
class Unfinished:
    """uint8 (N, S, S) probabilities and masks in a work folder, and the lines of masks.csv so far.

    ``save`` brings pixels to the disk before the journal that counts them, so the journal never promises too much.
    """

    folder: Path
    probabilities: np.ndarray
    masks: np.ndarray
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, count: int, size: int, identity: str) -> Unfinished:
        """Go on with a work folder of the same identity; start anew otherwise.

        Args:
            folder: created; what lies in it of another identity, or broken, is deleted.
            count, size: N and S of the arrays.
            identity: of everything that the masks depend on.
        """
        shape = (count, size, size)
        known = (folder / "identity.json").exists()
        try:
            if read_json(folder / "identity.json", str) == identity:
                arrays = [np.load(folder / name, mmap_mode="r+") for name in ARRAYS]
                rows = read_csv(folder / "journal.csv") if (folder / "journal.csv").is_file() else []
                if all(array.shape == shape and array.dtype == np.uint8 for array in arrays) and len(rows) <= count:
                    return cls(folder, *arrays, rows)
        except (OSError, ValueError, EOFError):
            pass
        if known:
            say(f"{folder} is broken, or of other weights, data, code or package versions; starting anew")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        arrays = [np.lib.format.open_memmap(folder / name, "w+", np.uint8, shape) for name in ARRAYS]
        write_json(folder / "identity.json", identity)
        return cls(folder, *arrays)

    def add(self, probability: np.ndarray, described: tuple[np.ndarray, dict[str, Any]]) -> None:
        """The next image: probability float32 (S, S), its mask bool (S, S) and its line."""
        mask, row = described
        self.probabilities[len(self.rows)] = np.round(probability * 255).astype(np.uint8)
        self.masks[len(self.rows)] = mask.astype(np.uint8) * 255
        self.rows.append(row)

    def save(self) -> None:
        """Bring what is done to the disk."""
        self.probabilities.flush()
        self.masks.flush()
        write_csv(self.folder / "journal.csv", COLUMNS, self.rows)

    def finish(self, out: Path) -> None:
        """Put the arrays in their place, then masks.csv, which vouches for them; remove the work folder."""
        (out / "masks.csv").unlink(missing_ok=True)
        self.save()
        for name in ARRAYS:
            os.replace(self.folder / name, out / name)
        write_csv(out / "masks.csv", COLUMNS, self.rows)
        shutil.rmtree(self.folder)
