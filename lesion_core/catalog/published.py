"""Splits as papers publish them: a release's parts, or images drawn one by one; leaks are for the certificate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lesion_core.errors import SplitError
from lesion_core.seeding import generator
from lesion_core.settings import OFFICIAL, SplitRule

SPLIT_OF_PART = {"training": "train", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test")


def published_splits(rows: Iterable[Mapping[str, Any]], rule: SplitRule) -> dict[tuple[str, str], str]:
    """(dataset, image_id) -> split, each dataset by itself.

    A release without a validation part (ISIC 2016) gives some of its training part to validation, val / (train + val).
    Counts and shares are met in a seeded order of the images.

    Args:
        rows: of the catalog.
        rule: ``parts``, shares, seed, and whether counts may be scaled.

    Raises:
        SplitError: a dataset has no parts, or other images than its counts add up to.
    """
    datasets: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["dataset"], row["image_id"])):
        datasets[row["dataset"]].append(row)
    asked = dict[str, Any](rule.parts.items())
    found: dict[tuple[str, str], str] = {}
    for dataset, own in datasets.items():
        order = generator(rule.seed, "published", dataset).permutation(len(own))
        if dataset in OFFICIAL:
            splits = ["test"] * len(own)
        elif asked.get(dataset) == "release":
            splits = _of_release(dataset, own, rule, order)
        else:
            counts = _counts(dataset, asked.get(dataset), len(own), rule)
            splits = np.repeat(ORDER, counts)[np.argsort(order)].tolist()
        found |= {(dataset, row["image_id"]): split for row, split in zip(own, splits, strict=True)}
    return found


def _of_release(dataset: str, own: Sequence[Mapping[str, Any]], rule: SplitRule, order: np.ndarray) -> list[str]:
    parts = Counter(row["part"] for row in own)
    lacking = [part for part in ("training", "test") if not parts[part]]
    if lacking or None in parts:
        raise SplitError(
            f"{dataset} has no {' and no '.join(lacking) or 'stated'} part here, so its release does not split it",
            ids=[dataset],
            remedy="leave it out of the protocol's as_published, or give image counts [train, val, test]",
        )
    splits = [SPLIT_OF_PART[row["part"]] for row in own]
    if not parts["validation"]:
        wanted = round(parts["training"] * rule.val / (rule.train + rule.val))
        for row in [row for row in order if splits[row] == "train"][:wanted]:
            splits[row] = "val"
    return splits


def _counts(dataset: str, asked: Sequence[int] | None, images: int, rule: SplitRule) -> np.ndarray:
    """Images per split, which add up to all: by largest remainders where they are scaled."""
    if asked is not None and sum(asked) != images and not rule.scale_counts:
        raise SplitError(
            f"the protocol splits {dataset} into {list(asked)}, which add up to {sum(asked)}; the catalog has {images}",
            ids=[dataset],
            remedy="give counts that add up to the images there are, or set splits.scale_counts",
        )
    shares = np.array([rule.train, rule.val, rule.test] if asked is None else asked, dtype=float)
    exact = images * shares / shares.sum()
    counts = np.floor(exact + 1e-9).astype(int)
    for split in np.argsort(-(exact - counts), kind="stable")[: images - counts.sum()]:
        counts[split] += 1
    return counts
