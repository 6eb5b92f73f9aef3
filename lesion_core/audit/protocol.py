"""Was the experiment conducted as it must be: no leak across splits, sealed test masks, selection on validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lesion_core.audit.answer import Answer
from lesion_core.audit.integrity import run_folders
from lesion_core.errors import LesionError
from lesion_core.files import read_csv, read_json, read_parquet
from lesion_core.paths import Layout

SELECTED_BY = {"segmentation": "val_dice", "classification": "val_selection", "joint": "val_selection"}
HISTORY_COLUMNS = ("epoch", "step", "lr")  # and what starts with train_ or val_


def splits(root: Path) -> Answer:
    """The leakage certificate, computed anew from the catalog, its edges and the split tables."""
    from lesion_core.data.certificate import certify

    answer = Answer("Do the splits hold?")
    layout = Layout(root)
    found = certify(layout.catalog, layout.edges, layout.certificate.parent)
    recorded = read_json(layout.certificate)
    for pair in found["crossing"]:
        sides = [f"{pair[side]['dataset']}/{pair[side]['image_id']} ({pair[side]['split']})" for side in "ab"]
        answer.problems.append(f"splits: {' and '.join(sides)} share a {pair['reason']}")
    for dataset, part in found["splits"].items():
        if recorded["splits"].get(dataset) != part:
            answer.problems.append(f"splits/{dataset}.csv: not the table that certificate.json speaks of")
    if found != recorded and not answer.problems:
        answer.problems.append("splits/certificate.json: not what is computed from the catalog and the split tables")
    checked = ", ".join(f"{count} {reason}" for reason, count in found["edges_checked"].items())
    images = sum(sum(part["counts"].values()) for part in found["splits"].values())
    answer.evidence = f"certificate recomputed: {images} images, edges checked: {checked}"
    return answer


def sealed(root: Path, plan: Any) -> Answer:
    """No training job opened a test image's mask, and no harmonized array holds one."""
    answer = Answer("Were test masks left alone by training and selection?")
    layout = Layout(root)
    rows = read_parquet(layout.catalog, ["dataset", "image_id", "mask_path"]).to_pylist()
    split = {
        (dataset, row["image_id"]): row["split"]
        for dataset in {row["dataset"] for row in rows}
        for row in read_csv(layout.split(dataset))
    }
    masks = {row["mask_path"] for row in rows if row["mask_path"] and split[row["dataset"], row["image_id"]] == "test"}
    opened = jobs = 0
    for folder in run_folders(root, plan, trained=True):
        read = read_json(folder / "provenance.json").get("opened")
        name = folder.relative_to(root).as_posix()
        if read is None:
            answer.problems.append(f"{name}/provenance.json: does not tell which files the job opened")
            continue
        jobs += 1
        opened += len(read)
        answer.problems += [f"{path}: a test mask, opened by {name}" for path in sorted(masks & set(read))]
    arrays = 0
    for index in sorted((root / "harmonized").glob("*/*/index.csv")):
        arrays += 1
        answer.problems += _unsealed(root, index, split)
    answer.evidence = (
        f"{jobs} training jobs opened {opened} files, none of the {len(masks)} test masks among them;"
        f" {arrays} harmonized arrays hold no mask of a test image"
    )
    if answer.problems:
        answer.evidence = f"{jobs} training jobs, {len(masks)} test masks, {arrays} harmonized arrays looked at"
    return answer


def _unsealed(root: Path, index: Path, split: dict[tuple[str, str], str]) -> list[str]:
    """What is wrong with one harmonized dataset: masks it should not have, or other splits than the split table's."""
    import numpy as np

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
    held = len(np.load(index.with_name("masks.npy"), mmap_mode="r"))
    if held != named:
        problems.append(f"{name}: masks.npy holds {held} masks, the index names {named}")
    return problems


def selection(root: Path, plan: Any) -> Answer:
    """Each run's epoch is the one that its validation history selects."""
    answer = Answer("Was each checkpoint chosen on validation images?")
    trained = fixed = 0
    for folder in run_folders(root, plan, trained=True):
        task, name = folder.parent.name, folder.relative_to(root).as_posix()
        history = read_csv(folder / "history.csv")
        extra = read_json(folder / "provenance.json")["extra"]
        strangers = [key for key in (history[0] if history else {}) if not _of_training_or_validation(key)]
        if strangers:
            answer.problems.append(f"{name}/history.csv: columns of neither training nor validation: {strangers}")
        if not history or "best_epoch" not in extra:
            fixed += 1
            continue
        trained += 1
        best = best_epoch([float(row[SELECTED_BY[task]]) for row in history])
        if best != extra["best_epoch"]:
            answer.problems.append(
                f"{name}/history.csv: {SELECTED_BY[task]} selects epoch {best}, provenance.json has"
                f" {extra['best_epoch']}"
            )
    answer.evidence = (
        f"{trained} histories: the best epoch by validation recomputed; {fixed} runs have no epochs to choose from"
    )
    return answer


def best_epoch(values: list[float]) -> int:
    """1-based epoch with the greatest value, the first of equals: the engine's rule.

    Raises:
        LesionError: a value is not finite.
    """
    if not all(math.isfinite(value) for value in values):
        raise LesionError("A validation value is not finite")
    return values.index(max(values)) + 1


def _of_training_or_validation(column: str) -> bool:
    return column in (*HISTORY_COLUMNS, "c") or column.startswith(("train_", "val_"))
