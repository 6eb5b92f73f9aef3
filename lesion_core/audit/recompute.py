"""Do the numbers follow: the score store from the runs' scores, these from weights and images, pixels from images."""

from __future__ import annotations

import filecmp
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.audit.answer import NOT_ASKED, Answer
from lesion_core.audit.current import Current, run_folders
from lesion_core.files import read_parquet
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.harmonize import harmonize_image, read_original
from lesion_core.pixels.reference import read_reference
from lesion_core.record.outputs import TEST_MASKS
from lesion_core.scores import COLUMNS, KEYS, gather, read_scores
from lesion_core.seeding import generator
from lesion_core.settings import Plan, Scoring, SegmentationMethod
from lesion_core.settings.run import Run, task_of

TASKS = ("segmentation", "classification")


def score_store(root: Path, plan: Plan) -> Answer:
    """The score store holds exactly the rows of the runs' own score files."""
    answer = Answer("Do the score tables hold exactly the runs' scores?")
    layout, rows = Layout(root), 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in TASKS:
            again = Path(folder) / f"{kind}.parquet"
            gather([path for path in _score_files(root, plan, kind) if path.is_file()], kind, again)
            store = layout.scores(kind)
            rows += read_parquet(again, ["run_id"]).num_rows
            if not filecmp.cmp(again, store, shallow=False):
                answer.problems += _differing_rows(again, store, kind)
    answer.evidence = f"{rows} rows gathered anew from the runs' files, byte for byte"
    return answer


def _score_files(root: Path, plan: Plan, kind: str) -> list[Path]:
    name = {kind: "scores.parquet", "joint": f"scores_{kind}.parquet"}
    if kind == "classification":
        name["derived"] = "scores.parquet"
    folders = [(folder, task_of(folder)) for folder in run_folders(root, plan)]
    return [folder / name[task] for folder, task in folders if task in name]


def _differing_rows(again: Path, store: Path, kind: str) -> list[str]:
    name = f"scores/{store.name}"
    keyed = []
    for path in (again, store):
        rows = read_scores(path, kind)
        keyed.append({tuple(row[key] for key in KEYS[kind]): row for row in rows})
    wrong = sorted(key for key in keyed[0].keys() | keyed[1].keys() if keyed[0].get(key) != keyed[1].get(key))
    return [f"{name}: {' / '.join(key)} is not the run's own score" for key in wrong] or [
        f"{name}: the rows are the runs' own, the file's bytes are not"
    ]


def scores(root: Path, plan: Plan, scoring: Scoring, count: int, *, seed: int, tolerance: float, device: str) -> Answer:
    """A drawn sample of scores, computed anew from the images' harmonized pixels and the runs' weights.

    Args:
        plan: whose runs.
        scoring: datasets, prompts, refinement, batch size: as the scores were made.
        count: how many images are drawn, one of each run before a second of any; 0 draws none.
        seed: of the draw.
        tolerance: largest difference of a score; 0 demands the same bits, which one machine gives.
    """
    answer = Answer("Do sampled scores recompute from weights and images?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    from lesion_core.audit.rescore import rescore  # torch, which nothing else of the audit needs

    drawn = _draw(root, plan, count, seed)
    compared, largest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, ((path, kind), images) in enumerate(sorted(drawn.items())):
            again = Path(folder) / f"{number}.parquet"
            rescore(root, path.parent, kind, scoring, images, again, device)
            answer.problems += _other_masks(root, again.with_suffix(".zip"), path.with_name(TEST_MASKS), tolerance > 0)
            found = {tuple(row[key] for key in KEYS[kind]): row for row in read_scores(again, kind)}
            for row in read_scores(path, kind):
                if (row["dataset"], row["image_id"]) not in images:
                    continue
                key = tuple(row[name] for name in KEYS[kind])
                compared += 1
                difference = _difference(row, found.get(key), kind)
                largest = max(largest, difference)
                if difference > tolerance:
                    name = path.relative_to(root).as_posix()
                    answer.problems.append(f"{name}: {' / '.join(key[1:])} recomputes with a difference {difference:g}")
    answer.evidence = (
        f"{compared} rows of {len(drawn)} score files computed anew, largest difference {largest:g},"
        f" allowed {tolerance:g}. A score that recomputes shows what these weights give on that image,"
        " not that training gave them, nor that each bit of them is the trained one: for that their SHA-256 in"
        " manifest.json stands"
    )
    return answer


def _other_masks(root: Path, again: Path, stored: Path, of_machine: bool) -> list[str]:
    """Masks that scoring anew wrote and that are others in the run's archive; ``of_machine``: true ones alone.

    Predicted ones may differ by pixels on another machine.
    """
    if not again.is_file():
        return []  # a classifier's
    name = stored.relative_to(root).as_posix()
    with zipfile.ZipFile(again) as right, zipfile.ZipFile(stored) as here:
        asked = [item for item in right.namelist() if item.startswith("truth/") or not of_machine]
        held = set(here.namelist())
        wrong = [item for item in asked if item not in held or right.read(item) != here.read(item)]
    return [f"{name}: {item} is not the mask that scoring gives" for item in wrong]


def embeddings(root: Path, plan: Plan, count: int, *, seed: int, device: str) -> Answer:
    """A drawn sample of stored embeddings, computed anew by the run's encoder, is the stored one bit for bit."""
    answer = Answer("Do sampled embeddings recompute from pixels and weights?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    using = []
    for folder in run_folders(root, plan) if Layout(root).embeddings.is_dir() else ():
        spec = Run.load(folder).spec
        if isinstance(spec, SegmentationMethod) and spec.model.embedding_cache != "none":
            using.append(folder)
    if not using:
        answer.skipped = "these results hold no stored embeddings"
        return answer
    from lesion_core.audit.rescore import reembed

    pick, compared = generator(seed, "audit", "embeddings"), 0
    for place in pick.permutation(len(using))[:count]:
        stored, same = reembed(root, using[place], pick, device)
        compared += stored is not None
        if stored is not None and not same:
            answer.problems.append(f"{stored.relative_to(root).as_posix()}: another embedding than the encoder gives")
    answer.evidence = f"{compared} embeddings, each of another run's training, computed anew and compared bit for bit"
    return answer


def pixels(root: Path, plan: Plan, count: int, *, seed: int) -> Answer:
    """A drawn sample of images, harmonized anew, has the stored pixels."""
    answer = Answer("Do sampled pixels recompute from the images?")
    if count == 0:
        answer.skipped = NOT_ASKED
        return answer
    layout = Layout(root)
    rows = read_parquet(layout.catalog, ["dataset", "image_id", "path"]).to_pylist()
    where = {(row["dataset"], row["image_id"]): root / row["path"] for row in rows}
    ways = {run.pixels: run.harmonization for run in map(Run.load, run_folders(root, plan))}
    used = {home: way for home, way in ways.items() if way.histogram == "specification"}
    references = {home: read_reference(layout.reference(home)) for home in used}
    current = Current.of_results(root, plan)
    found = sorted(root.glob("protocols/*/*/pixels/*/*/index.csv"))
    folders = [path.parent for path in found if current.owns(path.relative_to(root).parts)]
    arrays = [Harmonized.open(folder) for folder in folders]
    everything = [(number, row) for number, data in enumerate(arrays) for row in range(len(data))]
    chosen = generator(seed, "audit", "pixels").permutation(len(everything))[:count]
    for number, row in sorted(everything[position] for position in chosen):
        data = arrays[number]
        image_id = data.index[row]["image_id"]
        home = "/".join(folders[number].parts[-5:-3])
        original = read_original(where[data.name, image_id], data.size, ways[home])
        made = harmonize_image(original, data.size, references.get(home), ways[home], data.names)
        if not np.array_equal(made, data.images[row]):
            answer.problems.append(
                f"{folders[number].relative_to(root).as_posix()}/images.npy: {image_id} has other pixels"
            )
    answer.evidence = f"{len(chosen)} of {len(everything)} stored images harmonized anew and compared bit for bit"
    return answer


def _draw(root: Path, plan: Plan, count: int, seed: int) -> dict[tuple[Path, str], set[tuple[str, str]]]:
    """``count`` images of runs: (score file, kind) -> {(dataset, image_id)}; each run has one before any has two."""
    pick = generator(seed, "audit", "scores")
    waiting: list[tuple[tuple[Path, str], list[tuple[str, str]]]] = []
    for kind in TASKS:
        for path in sorted(path for path in _score_files(root, plan, kind) if path.is_file()):
            rows = read_parquet(path, ["dataset", "image_id"]).to_pylist()
            images = sorted({(row["dataset"], row["image_id"]) for row in rows})
            waiting.append(((path, kind), [images[place] for place in pick.permutation(len(images))]))
    waiting = [waiting[place] for place in pick.permutation(len(waiting))]
    longest = max((len(images) for _, images in waiting), default=0)
    turns = [(file, images[turn]) for turn in range(longest) for file, images in waiting if turn < len(images)]
    drawn: dict[tuple[Path, str], set[tuple[str, str]]] = defaultdict(set)
    for file, image in turns[:count]:
        drawn[file].add(image)
    return drawn


def _difference(stored: dict[str, Any], again: dict[str, Any] | None, kind: str) -> float:
    """Largest difference of two rows' numbers; infinite where a word or a count differs or the row is missing."""
    if again is None:
        return float("inf")
    measured = [name for name, hint in COLUMNS[kind].items() if hint is float]
    counts = [name for name in ("tp", "fp", "fn", "tn") if name in stored]
    total = sum(stored[name] for name in counts) or 1
    words = [name for name in stored if name not in measured and name not in counts]
    if any(stored[name] != again[name] for name in words):
        return float("inf")
    moved = max((abs(stored[name] - again[name]) / total for name in counts), default=0.0)
    return max(moved, *(abs(stored[name] - again[name]) for name in measured))
