"""The score store: two Parquet tables from which every table, test, interval and figure is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints, overload

import pyarrow

from lesion_core.errors import ScoreError
from lesion_core.files import read_parquet, write_parquet


class Score(TypedDict):
    """What all score rows have; ``rule`` is ``as_published`` or ``leak_free``.

    ``lesion_id`` is None where the dataset does not tell.
    """

    run_id: str
    method: str
    protocol: str
    rule: str
    dataset: str
    split: str
    seed: int
    image_id: str
    lesion_id: str | None


class SegmentationScore(Score):
    """One run, image, prompt and resolution (``native`` or ``model``); scores in 0..1, counts in pixels.

    ``thresholded_iou``: 0 where IoU is below 0.65 (ISIC 2018). ``hd95``, ``surface_distance``: shares of the diagonal.
    """

    prompt: str
    resolution: str
    dice: float
    iou: float
    thresholded_iou: float
    sensitivity: float
    specificity: float
    accuracy: float
    hd95: float
    surface_distance: float
    tp: int
    fp: int
    fn: int
    tn: int


class Probabilities(TypedDict):
    """Of the classes of `settings.CLASSES`, sum 1."""

    p_akiec: float
    p_bcc: float
    p_bkl: float
    p_df: float
    p_mel: float
    p_nv: float
    p_vasc: float


class ClassificationScore(Score, Probabilities):
    """One run and image.

    Calibrated probabilities are softmax(log p / temperature), the temperature being fitted to validation images.
    ``mask_flag`` is ``empty`` or ``full`` where the mask cut nothing out and the whole image was shown, else "".
    """

    label: str
    predicted: str
    temperature: float
    mask_flag: str


Kind = Literal["segmentation", "classification"]
ROWS: dict[str, type] = {"segmentation": SegmentationScore, "classification": ClassificationScore}
COLUMNS = {kind: get_type_hints(row) for kind, row in ROWS.items()}
KEYS = {
    "segmentation": ("run_id", "dataset", "image_id", "prompt", "resolution"),
    "classification": ("run_id", "dataset", "image_id"),
}


def schema_of(row: type) -> pyarrow.Schema:
    """The Arrow schema of rows that a TypedDict describes: str, int, float and bool, each ``| None`` where null."""
    names = {str: "string", int: "int64", float: "float64", bool: "bool"}
    hints = {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(row).items()}
    return pyarrow.schema({name: names[hint] for name, hint in hints.items()})


def write_scores(path: Path, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write score rows sorted by run, dataset, image (prompt, resolution), atomically, same bytes for same rows.

    Raises:
        ScoreError: two rows have the same key, a row has other columns, or a score is missing or not finite.
    """
    rows = list(rows)
    _check_complete(rows, kind, path)
    ordered = sorted(rows, key=lambda row: _key(row, kind))
    twins = sorted({str(_key(a, kind)) for a, b in itertools.pairwise(ordered) if _key(a, kind) == _key(b, kind)})
    if twins:
        raise ScoreError("Two scores for the same image and run", file=path, ids=twins, remedy="score the run again")
    write_parquet(path, pyarrow.Table.from_pylist(ordered, schema=schema_of(ROWS[kind])))


def _key(row: Mapping[str, Any], kind: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEYS[kind])


def _check_complete(rows: list[Mapping[str, Any]], kind: str, path: Path) -> None:
    columns = COLUMNS[kind]
    for row in rows:
        name = f"{row.get('run_id')}/{row.get('image_id')}"
        if row.keys() != columns.keys():
            wrong = sorted(row.keys() ^ columns.keys())
            raise ScoreError(f"Not a {kind} score: columns {', '.join(wrong)}", file=path, ids=[name])
        missing = any(row[name] is None for name in columns if name != "lesion_id")
        if missing or not all(math.isfinite(row[name]) for name, hint in columns.items() if hint is float):
            raise ScoreError("A score is missing or not finite", file=path, ids=[name], remedy="score the run again")


def gather(paths: Iterable[Path], kind: str, out: Path) -> None:
    """Join the runs' score files into one store.

    Raises:
        ScoreError: a file's columns are not the store's.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(paths):
        rows.extend(read_scores(path, kind))
    write_scores(out, kind, rows)


@overload
def read_scores(path: Path, kind: Literal["segmentation"]) -> list[SegmentationScore]: ...
@overload
def read_scores(path: Path, kind: Literal["classification"]) -> list[ClassificationScore]: ...
@overload
def read_scores(path: Path, kind: str) -> list[Any]: ...
def read_scores(path: Path, kind: str) -> list[Any]:
    """Score rows.

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
