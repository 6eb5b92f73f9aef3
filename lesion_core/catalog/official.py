"""Official splits: what a release or a paper prescribes, as far as groups of images allow it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lesion_core import settings
from lesion_core.catalog.stratify import Prescribed
from lesion_core.errors import SplitError

SPLIT_OF_PART = {"training": "train", "validation": "val", "test": "test"}
# Where a group goes whose images a release puts into several parts: the training copy follows its twin.
SIDES = ("test", "val", "train")
ORDER = ("train", "val", "test")


def prescribe(rows: Sequence[Mapping[str, Any]], splits: settings.Splits) -> tuple[Prescribed, list[str]]:
    """Turn ``splits.official`` into constraints on groups.

    A release's images keep their parts; images of other datasets in the same group follow. A release without
    a validation part (ISIC 2016) gives a share of its training part to validation, val / (train + val). Where a
    release puts one group into several parts, ``on_conflict`` decides: ``error`` refuses, naming the images;
    ``move`` takes the group's training images to the test side (or to validation, if it is that).

    Args:
        rows: of the catalog.
        splits: ``official``, ``on_conflict`` and the common fractions.

    Returns:
        The constraints, and "dataset/image_id: part to split" of what was moved, sorted.

    Raises:
        SplitError: a dataset has no parts, lacks one that is needed, other images than the counts add up to, or its
            parts part a group.
    """
    shares: dict[str, Mapping[str, float]] = {}
    counts: dict[str, Mapping[str, int]] = {}
    parted = frozenset(name for name, wanted in splits.official.items() if wanted == "release")
    by_dataset: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_dataset[row["dataset"]].append(row)
    for dataset, wanted in splits.official.items():
        own = by_dataset[dataset]
        if wanted == "release":
            shares[dataset] = _release_shares(dataset, own, splits)
        else:
            counts[dataset] = dict(zip(ORDER, wanted, strict=True))
            if sum(wanted) != len(own):
                raise SplitError(
                    f"{dataset}'s official counts add up to {sum(wanted)}, the catalog has {len(own)} images of it",
                    ids=[dataset],
                    remedy="give counts that add up to the images there are, or take it out of splits.official",
                )
            shares[dataset] = {name: count / len(own) for name, count in counts[dataset].items()}
    allowed, moved = _allowed((row for name in sorted(parted) for row in by_dataset[name]), shares, splits)
    return Prescribed(allowed, shares, counts, parted), moved


def _release_shares(dataset: str, own: Sequence[Mapping[str, Any]], splits: settings.Splits) -> dict[str, float]:
    parts = Counter(row["part"] for row in own)
    lacking = [part for part in ("training", "test") if not parts[part]]
    if lacking or None in parts:
        raise SplitError(
            f"{dataset} has no {' and no '.join(lacking) or 'stated'} part here, so its release does not split it",
            ids=[dataset],
            remedy="leave it out of splits.official, or give image counts [train, val, test]",
        )
    share = {split: parts[part] / len(own) for part, split in SPLIT_OF_PART.items()}
    if not parts["validation"]:
        share["val"] = share["train"] * splits.val / (splits.train + splits.val)
        share["train"] -= share["val"]
    return share


def _allowed(
    rows: Iterable[Mapping[str, Any]], shares: Mapping[str, Mapping[str, float]], splits: settings.Splits
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The splits each group may stand in, and what was moved against its release."""
    groups: dict[str, list[tuple[Mapping[str, Any], frozenset[str]]]] = defaultdict(list)
    listed = list(rows)
    with_validation = {row["dataset"] for row in listed if row["part"] == "validation"}
    for row in listed:
        split = SPLIT_OF_PART[row["part"]]
        open_to_validation = split == "train" and row["dataset"] not in with_validation
        options = frozenset(("train", "val")) if open_to_validation and shares[row["dataset"]]["val"] > 0 else {split}
        groups[row["group_id"]].append((row, frozenset(options)))
    allowed: dict[str, Sequence[str]] = {}
    conflicts, moved = [], []
    for group, members in sorted(groups.items()):
        common = frozenset.intersection(*(options for _, options in members))
        if common:
            allowed[group] = tuple(sorted(common))
            continue
        conflicts += [f"{row['dataset']}/{row['image_id']} ({row['part']})" for row, _ in members]
        side = next(name for name in SIDES if any(name in options for _, options in members))
        allowed[group] = (side,)
        moved += [
            f"{row['dataset']}/{row['image_id']}: {row['part']} to {side}"
            for row, options in members
            if side not in options
        ]
    if conflicts and splits.on_conflict == "error":
        raise SplitError(
            "official splits that part images of one group",
            ids=conflicts,
            remedy="set splits.on_conflict to move, which takes training images to the test side of their group",
        )
    return allowed, sorted(moved)
