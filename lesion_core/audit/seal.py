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

SHOWING = (f"figures/{RECORD}", f"figures/page.{RECORD}")  # what the figures and the page opened, to show it
Splits = dict[tuple[str, str], str]  # (dataset, image id) -> train, val or test


def sealed(root: Path, plan: Plan) -> Answer:
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
    opened = 0
    for kind, name, record in _records(root, plan, current):
        read = _opened(root / record)
        if read is None:
            answer.problems.append(f"{record}: does not tell which files the job opened")
            continue
        jobs[kind] += 1
        opened += len(read)
        secret = masks & read | {path for path in read if path.endswith(f"/{TEST_MASKS}")}
        answer.problems += [f"{path}: a test mask, opened by {name}" for path in sorted(secret)]
    arrays = [path for path in layout.harmonized_files("index.csv") if _owned(root, path, current)]
    for index in arrays:
        answer.problems += _unsealed(root, index, split)
    looked = ", ".join(f"{count} of {kind}" for kind, count in jobs.items())
    shown = _shown(root, masks, answer)
    verdict = "" if answer.problems else "; none of them among what was opened or in an array"
    answer.evidence = (
        f"{len(masks)} test masks; jobs ({looked}) opened {opened} files; {len(arrays)} harmonized arrays{verdict};"
        f" for display alone, figures 8 and 9 and the page opened {shown} archives of true outlines that scoring stored"
    )
    return answer


def _records(root: Path, plan: Plan, current: Current) -> Iterator[tuple[str, str, str]]:
    """(kind of job, what it made, its record) of every job that must not open a test mask."""
    for folder in run_folders(root, plan):
        name = folder.relative_to(root).as_posix()
        if task_of(folder) != "derived":  # nothing is trained: it is scored alone
            yield "training", name, f"{name}/{RECORD}"
    yield "the reference histogram", "harmonized/reference.npy", f"harmonized/{RECORD}"
    made = {"harmonization": "harmonized/*/*/index.csv", "pseudo-masks": "pseudo_masks/*/*/masks.csv"}
    for kind, pattern in made.items():
        for path in sorted(root.glob(pattern)):
            if _owned(root, path, current):
                folder = path.parent.relative_to(root).as_posix()
                yield kind, folder, f"{folder}/{RECORD}"
    for path in sorted(root.glob("robustness/*.csv")):
        if _owned(root, path, current):
            yield "robustness", f"robustness/{path.name}", f"robustness/{path.stem}.{RECORD}"


def _owned(root: Path, path: Path, current: Current) -> bool:
    return current.owns(path.relative_to(root).parts)


def _opened(record: Path) -> set[str] | None:
    """Files that a job recorded; None where it recorded nothing."""
    if not record.is_file():
        return None
    names = read_json(record).get("opened")
    return None if names is None else set(names)


def _shown(root: Path, masks: set[str], answer: Answer) -> int:
    """How many runs' stored outlines the figures and the page opened; a test mask itself is a problem there too."""
    archives: set[str] = set()
    for name in SHOWING:
        read = _opened(root / name)
        if read is None:
            answer.problems.append(f"{name}: does not tell which files the job opened")
            continue
        answer.problems += [f"{path}: a test mask, opened by the job of {name}" for path in sorted(masks & read)]
        archives.update(path for path in read if path.endswith(f"/{TEST_MASKS}"))
    return len(archives)


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
