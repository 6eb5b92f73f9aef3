"""What datasets share, and whether anything that trains a segmenter tests a classifier: told from the split files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lesion_core.acquire.readers import joining_id
from lesion_core.catalog.entries import read_split
from lesion_core.catalog.table import read_images
from lesion_core.paths import Layout

# Two images are one patient's if they agree in any of these.
IDENTITIES = {
    "id": lambda row: joining_id(row["image_id"]),
    "bytes": lambda row: row["sha256"],
    "lesion": lambda row: row["lesion_id"],
    "group": lambda row: row["group_id"],
}


def shared_between(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each pair of datasets: images with one id, lesions and groups in common, and how many stand apart.

    Args:
        rows: of the catalog, each with its ``split``.

    Returns:
        {first, second, images, lesions, groups, parted}: ``parted`` counts ids, lesions and groups in common
        whose images stand in different splits.
    """
    places: dict[str, dict[str, dict[str, set[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for row in rows:
        for kind, identity in IDENTITIES.items():
            if identity(row) is not None:
                places[kind][row["dataset"]][identity(row)].add(row["split"])
    found = []
    for first, second in combinations(sorted({row["dataset"] for row in rows}), 2):
        common = {kind: places[kind][first].keys() & places[kind][second].keys() for kind in IDENTITIES}
        parted = sum(
            len(places[kind][first][name] | places[kind][second][name]) > 1
            for kind in IDENTITIES
            for name in common[kind]
        )
        counts = {"images": len(common["id"]), "lesions": len(common["lesion"]), "groups": len(common["group"])}
        found.append({"first": first, "second": second, **counts, "parted": parted})
    return found


def trained_and_tested(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int, list[str]]:
    """Training images with masks, test images with a class, and those of the latter that meet the former.

    Returns:
        Both counts, and "dataset/image_id (id, lesion, ...)" of every test image that agrees with a training one.
    """
    trained = [row for row in rows if row["split"] == "train" and row["mask_path"] is not None]
    tested = [row for row in rows if row["split"] == "test" and row["label"] is not None]
    known = {kind: {identity(row) for row in trained} - {None} for kind, identity in IDENTITIES.items()}
    meeting = []
    for row in tested:
        if reasons := [kind for kind, identity in IDENTITIES.items() if identity(row) in known[kind]]:
            meeting.append(f"{row['dataset']}/{row['image_id']} ({', '.join(reasons)})")
    return len(trained), len(tested), meeting


def read_split_rows(root: Path, home: str) -> list[dict[str, Any]]:
    """The catalog's rows with their ``split``.

    Raises:
        CatalogError: there is no catalog. SplitError: see ``read_split``.
    """
    layout = Layout(root)
    datasets: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in read_images(layout.catalog):
        datasets[row["dataset"]][row["image_id"]] = row
    for dataset, rows in datasets.items():
        for image_id, entry in read_split(layout.split(home, dataset), rows).items():
            rows[image_id]["split"] = entry["split"]
    return [row for rows in datasets.values() for row in rows.values()]


def tell_leakage(root: Path, home: str) -> tuple[str, bool]:
    """Lines for a person, and whether all is well."""
    rows = read_split_rows(root, home)
    lines, clean = [], True
    for pair in shared_between(rows):
        lines.append(
            f"{pair['first']} - {pair['second']}: {pair['images']} images with one id,"
            f" {pair['lesions']} lesions by id, {pair['groups']} groups in common;"
            f" in different splits: {pair['parted']}"
        )
        clean &= pair["parted"] == 0
    trained, tested, meeting = trained_and_tested(rows)
    lines.append(
        f"{trained} images with masks may train a segmenter, {tested} with a class test classifiers;"
        f" of these agree with a training image in id, bytes, lesion or group: {len(meeting)}"
    )
    return "\n".join([*lines, *meeting]), clean and not meeting
