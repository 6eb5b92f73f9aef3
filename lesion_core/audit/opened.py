"""Was a test mask read outside scoring: by what each job recorded that it opened, and by what the arrays hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lesion_core.audit.answer import Answer
from lesion_core.audit.current import Current, run_folders
from lesion_core.files import read_array, read_csv, read_json, read_parquet
from lesion_core.paths import Layout
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.outputs import TEST_MASKS
from lesion_core.settings import Plan
from lesion_core.settings.run import task_of

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
    split = {
        (dataset, row["image_id"]): row["split"]
        for dataset in {row["dataset"] for row in rows}
        for row in read_csv(layout.split(dataset))
    }
    masks = {row["mask_path"] for row in rows if row["mask_path"] and split[row["dataset"], row["image_id"]] == "test"}
    current = Current.of_results(root, plan)
    jobs: Counter[str] = Counter()
    shown: set[str] = set()
    opened = 0
    for kind, made, record in _records(layout, plan, current):
        told = read_json(record).get("opened") if record.is_file() else None
        if told is None:
            answer.problems.append(f"{_name(record, root)}: does not tell which files the job opened")
            continue
        jobs[kind] += 1
        opened += len(told)
        secret, stored = masks & {*told}, {path for path in told if path.endswith(f"/{TEST_MASKS}")}
        (shown if kind == DISPLAY else secret).update(stored)
        answer.problems += [f"{path}: a test mask, opened by {_name(made, root)}" for path in sorted(secret)]
    arrays = _owned(layout.harmonized("*", "*") / "index.csv", root, current)
    for index in arrays:
        answer.problems += _unsealed(root, index, split)
    looked = ", ".join(f"{count} of {kind}" for kind, count in jobs.items())
    verdict = "" if answer.problems else "; none of them among what was opened or in an array"
    answer.evidence = (
        f"{len(masks)} test masks; jobs ({looked}) opened {opened} files; {len(arrays)} harmonized arrays{verdict};"
        f" for display alone, figures 8 and 9 and the page opened {len(shown)} archives of true outlines that scoring"
        " stored"
    )
    return answer


def _records(layout: Layout, plan: Plan, current: Current) -> Iterator[tuple[str, Path, Path]]:
    """(kind of job, what it made, its record) of every job that must not open a test mask."""
    root = layout.root
    for folder in run_folders(root, plan):
        if task_of(folder) != "derived":  # nothing is trained: it is scored alone
            yield "training", folder, folder / RECORD
    yield "the reference histogram", layout.reference, layout.reference.with_name(RECORD)
    for path in _owned(layout.harmonized("*", "*") / "index.csv", root, current):
        yield "harmonization", path.parent, path.with_name(RECORD)
    for path in _owned(layout.pseudo_masks("*", "*") / "masks.csv", root, current):
        yield "pseudo-masks", path.parent, path.with_name(RECORD)
    for path in _owned(layout.robustness("*"), root, current):
        yield "robustness", path, path.with_suffix(f".{RECORD}")
    yield DISPLAY, layout.figures, layout.figures / RECORD
    yield DISPLAY, layout.report, layout.figures / f"page.{RECORD}"


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
