"""Do the numbers follow: tables and tests from scores, scores from weights and images."""

from __future__ import annotations

import filecmp
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lesion_core.audit.answer import Answer
from lesion_core.audit.current import Current, run_folders
from lesion_core.files import read_parquet
from lesion_core.inference.robustness_table import gather_robustness
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.harmonize import harmonize_image, read_original
from lesion_core.pixels.reference import read_reference
from lesion_core.report.ledger import write_ledger
from lesion_core.report.statistics import write_statistics
from lesion_core.report.subgroups import write_subgroups
from lesion_core.report.tables import write_tables
from lesion_core.scores import COLUMNS, KEYS, gather, read_scores
from lesion_core.seeding import generator
from lesion_core.settings import Plan, Robustness, Scoring, Subgroups
from lesion_core.settings.matrix import tried_runs
from lesion_core.settings.run import Run, task_of

COMPUTED = ("tables", "statistics", "ledger")  # folders that hold nothing but what follows from the others
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


def tables(root: Path, plan: Plan, subgroups: Subgroups, robustness: Robustness) -> Answer:
    """Every table, statistic and verdict, computed anew from the score store, has the same bytes; there is no other.

    ``statistics/robustness.csv`` is joined anew from the runs' own tables under ``robustness/``.
    """
    answer = Answer("Does each table cell recompute from the scores to the last digit?")
    # One thread, as the jobs have: sums of another number of threads round otherwise, and may break a tie.
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        again = Path(folder) / "results"
        again.mkdir()
        for entry in root.iterdir():
            if entry.name not in COMPUTED:
                (again / entry.name).symlink_to(entry.resolve())
        write_tables(again, plan)
        write_statistics(again, plan)
        write_ledger(again, plan)
        write_subgroups(again, plan, subgroups)
        measured = [Layout(again).robustness(run_id) for run_id in tried_runs(plan, robustness)]
        gather_robustness(measured, Layout(again).statistics("robustness"))
        made = sorted(path for part in COMPUTED for path in (again / part).rglob("*.*"))
        for path in made:
            name = path.relative_to(again)
            if not (root / name).is_file():
                answer.problems.append(f"{name.as_posix()}: missing")
            elif not filecmp.cmp(path, root / name, shallow=False):
                answer.problems.append(f"{name.as_posix()}: {_first_difference(path, root / name)}")
        here = {path.relative_to(root) for part in COMPUTED for path in (root / part).rglob("[!.]*.*")}
        strangers = here - {path.relative_to(again) for path in made}
        answer.problems += [f"{name}: follows from none of the scores; delete it" for name in sorted(strangers)]
        cells = read_parquet(Layout(again).cells, ["value"]).column("value")
        count = len(cells) - cells.null_count
    answer.evidence = f"{len(made)} files written anew from scores/, {count} cells of ours among them, byte for byte"
    return answer


def _first_difference(right: Path, here: Path) -> str:
    if right.suffix == ".parquet":
        return "holds other cells than the scores give"
    pairs = zip(
        right.read_text("utf-8").splitlines(), here.read_text("utf-8", errors="replace").splitlines(), strict=False
    )
    for number, (wanted, found) in enumerate(pairs, start=1):
        if wanted != found:
            return f"line {number} is '{found[:80]}', the scores give '{wanted[:80]}'"
    return "has more or fewer lines than the scores give"


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
        answer.skipped = "ask for it with --recompute N"
        return answer
    from lesion_core.audit.rescore import rescore  # torch, which nothing else of the audit needs

    drawn = _draw(root, plan, count, seed)
    compared, largest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, ((path, kind), images) in enumerate(sorted(drawn.items())):
            again = Path(folder) / f"{number}.parquet"
            rescore(root, path.parent, kind, scoring, images, again, device)
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
        f" allowed {tolerance:g}"
    )
    return answer


def pixels(root: Path, plan: Plan, count: int, *, seed: int) -> Answer:
    """A drawn sample of images, harmonized anew, has the stored pixels."""
    answer = Answer("Do sampled pixels recompute from the images?")
    if count == 0:
        answer.skipped = "ask for it with --recompute N"
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
