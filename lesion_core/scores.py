"""The score store: two Parquet tables from which every table, test, interval and figure is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.arrow import table_of
from lesion_core.errors import ScoreError
from lesion_core.files import read_parquet, write_parquet
from lesion_core.settings import CLASSES

if TYPE_CHECKING:
    import pyarrow

IDENTITY = {
    "run_id": "string",
    "method": "string",
    "dataset": "string",
    "split": "string",
    "seed": "int64",
    "image_id": "string",
    "lesion_id": "string",
}
SEGMENTATION = {
    **IDENTITY,
    "prompt": "string",
    "resolution": "string",
    "dice": "float64",
    "iou": "float64",
    "sensitivity": "float64",
    "specificity": "float64",
    "accuracy": "float64",
    "tp": "int64",
    "fp": "int64",
    "fn": "int64",
    "tn": "int64",
}
CLASSIFICATION = {
    **IDENTITY,
    "label": "string",
    "predicted": "string",
    **{f"p_{name}": "float64" for name in CLASSES},
    "temperature": "float64",  # fitted to validation images: calibrated probabilities are softmax(log p / temperature)
    "mask_flag": "string",  # empty, full: the mask cut nothing out and the whole photograph was shown; else ""
}
COLUMNS = {"segmentation": SEGMENTATION, "classification": CLASSIFICATION}
KEYS = {
    "segmentation": ("run_id", "dataset", "image_id", "prompt", "resolution"),
    "classification": ("run_id", "dataset", "image_id"),
}


def schema(kind: str) -> pyarrow.Schema:
    """Arrow schema of ``segmentation`` or ``classification`` scores."""
    import pyarrow

    return pyarrow.schema([(name, getattr(pyarrow, dtype)()) for name, dtype in COLUMNS[kind].items()])


def write_scores(path: Path, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write score rows sorted by run, dataset, image (prompt, resolution), atomically, same bytes for same rows.

    Raises:
        ScoreError: two rows have the same key, a row has other columns, or a score is missing or not finite.
    """
    keys = KEYS[kind]
    rows = list(rows)
    _refuse_gaps(rows, kind, path)
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    _refuse_twins(ordered, keys, path)
    write_parquet(path, table_of(ordered, COLUMNS[kind]))


def _refuse_gaps(rows: list[Mapping[str, Any]], kind: str, path: Path) -> None:
    columns = COLUMNS[kind]
    needed = [name for name in columns if name != "lesion_id"]
    measured = [name for name, dtype in columns.items() if dtype == "float64"]
    for row in rows:
        name = f"{row.get('run_id')}/{row.get('image_id')}"
        if row.keys() != columns.keys():
            wrong = sorted(row.keys() ^ columns.keys())
            raise ScoreError(f"Not a {kind} score: columns {', '.join(wrong)}", file=path, ids=[name])
        if any(row[key] is None for key in needed) or not all(math.isfinite(row[key]) for key in measured):
            raise ScoreError("A score is missing or not finite", file=path, ids=[name], remedy="score the run again")


def _refuse_twins(ordered: list[Mapping[str, Any]], keys: tuple[str, ...], path: Path) -> None:
    identities = [tuple(row[key] for key in keys) for row in ordered]
    twins = sorted({str(a) for a, b in itertools.pairwise(identities) if a == b})
    if twins:
        raise ScoreError("Two scores for the same image and run", file=path, ids=twins, remedy="score the run again")


def gather(paths: Iterable[Path], kind: str, out: Path) -> None:
    """Join the runs' score files into one store.

    Raises:
        ScoreError: a file's columns are not the store's.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(paths):
        rows.extend(read_scores(path, kind))
    write_scores(out, kind, rows)


def read_scores(path: Path, kind: str) -> list[dict[str, Any]]:
    """Score rows as dicts.

    Raises:
        ScoreError: the file is missing, unreadable, or has other columns.
    """

    try:
        table = read_parquet(path)
    except (OSError, ValueError) as error:
        raise ScoreError(f"Scores cannot be read: {error}", file=path, remedy="run the scoring rule again") from error
    if table.schema.names != list(COLUMNS[kind]):
        raise ScoreError(
            f"Not a {kind} score table: its columns are {', '.join(table.schema.names)}",
            file=path,
            remedy="run the scoring rule again",
        )
    return table.to_pylist()
