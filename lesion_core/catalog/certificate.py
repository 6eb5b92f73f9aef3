"""The leakage certificate: read the split files again, and look for anything shared across a split.

It does not trust the groups: lesions and image ids are compared anew from the catalog, near-duplicates by equal
bytes and by the verified pairs, other views of a lesion by the verified pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lesion_core.acquire.readers import joining_id
from lesion_core.catalog.confirmation import confirmed_by
from lesion_core.catalog.edges import REASONS
from lesion_core.catalog.entries import SPLITS, read_split
from lesion_core.catalog.table import read_edges, read_images
from lesion_core.errors import LeakageError, SplitError
from lesion_core.files import sha256_file, write_json
from lesion_core.settings.data import Rule

LEAK, LEAK_PUBLISHED = "leak", "leaks, as published"
NAME, FAILED = "certificate.json", "certificate.failed.json"

Key = tuple[str, str]


def write_certificate(catalog: Path, edges: Path, splits_dir: Path, rule: Rule) -> dict[str, Any]:
    """Check the split files and write ``certificate.json`` beside them; return its content.

    Args:
        catalog: images.parquet.
        edges: edges.parquet.
        splits_dir: holds the split files.
        rule: under which they were made; what ``as_published`` leaks is named, not refused.

    Raises:
        SplitError: a split file does not hold exactly the catalog's images, each once.
        LeakageError: something is shared across leak-free splits; ``certificate.failed.json`` tells what.
    """
    certificate = certify(catalog, edges, splits_dir, rule)
    leak = certificate["verdict"] == LEAK
    # A certificate of other splits must not outlive them.
    (splits_dir / (NAME if leak else FAILED)).unlink(missing_ok=True)
    write_json(splits_dir / (FAILED if leak else NAME), certificate)
    if leak:
        ids = [f"{_name(pair['a'])} - {_name(pair['b'])} ({pair['reason']})" for pair in certificate["crossing"]]
        raise LeakageError(
            f"{len(ids)} pairs of images cross the splits",
            file=splits_dir / FAILED,
            ids=ids,
            remedy="run the splits stage again on the present catalog; do not edit split files by hand",
        )
    return certificate


def certify(catalog: Path, edges: Path, splits_dir: Path, rule: Rule) -> dict[str, Any]:
    """The certificate of the split files in ``splits_dir``: {rule, verdict, splits, edges_checked, crossing, leaks,
    confirmed_by}.

    ``crossing``: every pair that stands in two splits; ``leaks``: how many, by reason and datasets; ``confirmed_by``:
    how far the way in which diagnoses were confirmed tells the class. The verdict is on pairs alone.

    Raises:
        SplitError: a split file does not hold exactly the catalog's images, each once.
    """
    rows = read_images(catalog)
    by_dataset: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_dataset[row["dataset"]].add(row["image_id"])
    split_of: dict[Key, str] = {}
    described = {}
    for dataset, image_ids in sorted(by_dataset.items()):
        path = splits_dir / f"{dataset}.csv"
        table = {image_id: row["split"] for image_id, row in read_split(path, image_ids).items()}
        split_of.update({(dataset, image_id): split for image_id, split in table.items()})
        counts = Counter(table.values())
        described[dataset] = {"sha256": sha256_file(path), "counts": {name: counts[name] for name in SPLITS}}
    checked: Counter[str] = Counter()
    crossing = []
    leaks: dict[str, Counter[str]] = defaultdict(Counter)
    for (reason, first, second), value in sorted(_edges(rows, edges).items()):
        unknown = [key for key in (first, second) if key not in split_of]
        if unknown:
            raise SplitError(
                "an edge names an image that is not in the catalog",
                file=edges,
                ids=["/".join(key) for key in unknown],
                remedy="run the catalog stage again",
            )
        checked[reason] += 1
        if split_of[first] != split_of[second]:
            pair = [{"dataset": key[0], "image_id": key[1], "split": split_of[key]} for key in (first, second)]
            crossing.append({"reason": reason, "value": value, "a": pair[0], "b": pair[1]})
            leaks[reason][" - ".join(sorted({first[0], second[0]}))] += 1
    return {
        "rule": rule,
        "verdict": "no leak" if not crossing else LEAK if rule == "leak_free" else LEAK_PUBLISHED,
        "splits": described,
        "edges_checked": {reason: checked[reason] for reason in REASONS},
        "crossing": crossing,
        "leaks": {reason: dict(sorted(counts.items())) for reason, counts in sorted(leaks.items())},
        "confirmed_by": confirmed_by(
            (row["dataset"], split_of[_key(row)], row["dx_type"], row["label"]) for row in rows
        ),
    }


def _edges(rows: Sequence[Mapping[str, Any]], edges: Path) -> dict[tuple[str, Key, Key], float]:
    """All pairs that must not be parted, from the catalog's columns and from edges.parquet."""
    found: dict[tuple[str, Key, Key], float] = {}
    columns = {
        "lesion": {_key(row): row["lesion_id"] for row in rows if row["lesion_id"] is not None},
        "image_id": {_key(row): joining_id(row["image_id"]) for row in rows},
        "near_duplicate": {_key(row): row["sha256"] for row in rows},
    }
    for reason, values in columns.items():
        for first, second in _equal_pairs(values):
            found[reason, first, second] = 1.0
    for edge in read_edges(edges):
        first, second = sorted([(edge["dataset_a"], edge["image_id_a"]), (edge["dataset_b"], edge["image_id_b"])])
        found.setdefault((edge["reason"], first, second), edge["value"])
    return found


def _equal_pairs(values: Mapping[Key, str]) -> Iterator[tuple[Key, Key]]:
    members: dict[str, list[Key]] = defaultdict(list)
    for key, value in sorted(values.items()):
        members[value].append(key)
    for keys in members.values():
        yield from combinations(keys, 2)


def _key(row: Mapping[str, Any]) -> Key:
    return row["dataset"], row["image_id"]


def _name(side: Mapping[str, str]) -> str:
    return f"{side['dataset']}/{side['image_id']} {side['split']}"
