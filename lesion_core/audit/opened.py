"""Was a test mask read outside scoring: by what each job recorded that it opened, and by what the arrays hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lesion_core.audit.answer import Answer
from lesion_core.audit.current import Current, run_folders
from lesion_core.files import read_array, read_csv, read_json, read_parquet
from lesion_core.paths import Layout
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.outputs import TEST_MASKS
from lesion_core.settings import Plan
from lesion_core.settings.run import Run

DISPLAY = "display"  # jobs that may open what scoring stored, to show it
Splits = dict[tuple[str, str], str]  # (dataset, image id) -> train, val or test


def masks_closed(root: Path, plan: Plan) -> Answer:
    """No job but scoring opened a test image's mask or what scoring stored of it; no harmonized array holds one.

    What a job opened is what it recorded itself, in the ``provenance.json`` of what it made.
    Scoring opens test masks, as it must: ``score_*``, ``explain``, ``audit_pseudo_masks``. Downloading, unpacking and
    the catalog come before there is a split. Figures and page may show true outlines that scoring stored: it is told.
    """
    answer = Answer("Were test masks left alone by everything but scoring?")
    layout = Layout(root)
    rows = read_parquet(layout.catalog, ["dataset", "image_id", "mask_path"]).to_pylist()
    splits = {home: _splits_of(layout, home, rows) for home in sorted(set(plan.protocols.values()))}
    masks = {
        home: {
            row["mask_path"] for row in rows if row["mask_path"] and split[row["dataset"], row["image_id"]] == "test"
        }
        for home, split in splits.items()
    }
    current = Current.of_results(root, plan)
    jobs: Counter[str] = Counter()
    shown: set[str] = set()
    opened = 0
    for kind, home, made, record in _records(layout, plan, current):
        told = read_json(record).get("opened") if record.is_file() else None
        if told is None:
            answer.problems.append(f"{_name(record, root)}: does not tell which files the job opened")
            continue
        jobs[kind] += 1
        opened += len(told)
        secret = {*told} & (set[str]().union(*masks.values()) if home is None else masks[home])
        stored = {path for path in told if path.endswith(f"/{TEST_MASKS}")}
        (shown if kind == DISPLAY else secret).update(stored)
        answer.problems += [f"{path}: a test mask, opened by {_name(made, root)}" for path in sorted(secret)]
    arrays = _owned(layout.pixels("*/*", "*", "*") / "index.csv", root, current)
    for index in arrays:
        answer.problems += _unsealed(root, index, splits[plan.protocols[_home_of(index, root)]])
    looked = ", ".join(f"{count} of {kind}" for kind, count in jobs.items())
    verdict = "" if answer.problems else "; none of them among what was opened or in an array"
    answer.evidence = (
        f"{sum(map(len, masks.values()))} test masks of {len(masks)} splits; jobs ({looked}) opened {opened} files;"
        f" {len(arrays)} harmonized arrays{verdict}; for display alone, figures and page opened {len(shown)}"
        " archives of true outlines that scoring stored"
    )
    return answer


def _records(layout: Layout, plan: Plan, current: Current) -> Iterator[tuple[str, str | None, Path, Path]]:
    """(kind of job, home of its splits, what it made, its record) of every job that must not open a test mask."""
    root = layout.root
    homes = {}
    for folder in run_folders(root, plan):
        run = Run.load(folder)
        homes[run.run_id] = run.split_tables
        if run.task != "derived":  # nothing is trained: it is scored alone
            yield "training", run.split_tables, folder, folder / RECORD
    for home, split_tables in plan.protocols.items():
        if (path := layout.reference(home)).is_file():
            yield "the reference histogram", split_tables, path, path.with_name(RECORD)
    for path in _owned(layout.pixels("*/*", "*", "*") / "index.csv", root, current):
        yield "harmonization", plan.protocols[_home_of(path, root)], path.parent, path.with_name(RECORD)
    for path in _owned(layout.pseudo_masks("*", "*") / "masks.csv", root, current):
        yield "pseudo-masks", homes[path.parts[-3]], path.parent, path.with_name(RECORD)
    for path in _owned(layout.robustness("*"), root, current):
        yield "robustness", homes[path.stem], path, path.with_suffix(f".{RECORD}")
    yield DISPLAY, None, layout.figures, layout.figures / RECORD
    yield DISPLAY, None, layout.report, layout.figures / f"page.{RECORD}"


def _splits_of(layout: Layout, home: str, rows: list[dict[str, Any]]) -> Splits:
    return {
        (dataset, row["image_id"]): row["split"]
        for dataset in {row["dataset"] for row in rows}
        for row in read_csv(layout.split(home, dataset))
    }


def _home_of(index: Path, root: Path) -> str:
    return "/".join(index.relative_to(root).parts[1:3])


def _owned(pattern: Path, root: Path, current: Current) -> list[Path]:
    """Files of a pattern that belong to the matrix, sorted."""
    found = root.glob(_name(pattern, root))
    return sorted(path for path in found if current.owns(path.relative_to(root).parts))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _unsealed(root: Path, index: Path, split: Splits) -> list[str]:
    """What is wrong with one harmonized dataset: masks it should not have, or other splits than the split table's."""
    name, dataset = index.relative_to(root).as_posix(), index.parent.parent.name
    entries = read_csv(index)
    problems = []
    for entry in entries:
        expected = split.get((dataset, entry["image_id"]))
        if entry["split"] != expected:
            problems.append(f"{name}: {entry['image_id']} is '{entry['split']}', the split table says '{expected}'")
        if entry["split"] == "test" and int(entry["mask_row"]) >= 0:
            problems.append(f"{name}: the test image {entry['image_id']} has a mask")
    named = sum(int(entry["mask_row"]) >= 0 for entry in entries)
    held = len(read_array(index.with_name("masks.npy"), mapped=True))
    if held != named:
        problems.append(f"{name}: masks.npy holds {held} masks, the index names {named}")
    return problems
