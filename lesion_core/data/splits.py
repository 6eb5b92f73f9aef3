"""Leak-free splits: every group gets one split across all datasets, stratified by dataset and class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core import settings
from lesion_core.data.catalog import read_images
from lesion_core.data.certificate import SPLITS, write_certificate
from lesion_core.errors import SplitError
from lesion_core.files import write_csv
from lesion_core.progress import say
from lesion_core.seeding import generator

COLUMNS = ("image_id", "group_id", "split")
# Where the first groups of a class go if there are not enough for all splits: learn it, then test it.
PRIORITY = ("train", "test", "val")
COVERED_FROM = 3  # groups; a class with as many must stand in every split

Cell = tuple[str, str]  # (dataset, class); "" is "no label"


def build_splits(catalog: Path, edges: Path, splits: settings.Splits, out_dir: Path) -> None:
    """Write ``<dataset>.csv`` (image_id, group_id, split) for every dataset, then the leakage certificate.

    Args:
        catalog: images.parquet.
        edges: edges.parquet, for the certificate.
        splits: seed and fractions.
        out_dir: folder of the split tables, ``certificate.json`` or ``certificate.failed.json``.

    Raises:
        SplitError: a dataset or a class cannot stand in every split.
        LeakageError: an edge crosses a split after all.
    """
    rows = read_images(Path(catalog))
    fractions = {"train": splits.train, "val": splits.val, "test": splits.test}
    assigned = split_groups(
        [(row["group_id"], row["dataset"], row["label"] or "") for row in rows], fractions, splits.seed
    )
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tables[row["dataset"]].append(
            {"image_id": row["image_id"], "group_id": row["group_id"], "split": assigned[row["group_id"]]}
        )
    out_dir = Path(out_dir)
    for dataset, table in sorted(tables.items()):
        write_csv(out_dir / f"{dataset}.csv", COLUMNS, sorted(table, key=lambda row: row["image_id"]))
        counts = Counter(row["split"] for row in table)
        say(f"splits: {dataset}: " + ", ".join(f"{name} {counts[name]}" for name in SPLITS))
    write_certificate(Path(catalog), Path(edges), out_dir)


def split_groups(images: Iterable[tuple[str, str, str]], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Assign a split to every group.

    Greedy iterative stratification (after Sechidis, Tsoumakas, Vlahavas, ECML 2011, for groups): cells of
    (dataset, class) from the rarest to the commonest; a cell's groups from the largest, ties in seeded order;
    each goes where it keeps all of its cells closest to their fractions. The last groups of a cell are
    kept for splits that have none of it yet.

    Args:
        images: (group_id, dataset, class) of every photograph, class "" without a label; in any order.
        fractions: share of images for "train", "val" and "test"; a split with share 0 stays empty.
        seed: the same seed and photographs give the same splits, in whatever order they come.

    Raises:
        SplitError: a dataset has fewer groups than splits, or a class with three groups or more cannot stand
            in every split.
    """
    members: dict[str, Counter[Cell]] = defaultdict(Counter)
    for group, dataset, label in images:
        members[group][(dataset, label)] += 1
    groups = sorted(members)
    generator(seed, "splits").shuffle(groups)
    names = [name for name in PRIORITY if fractions[name] > 0]
    cells = sorted({cell for counts in members.values() for cell in counts})
    columns = {cell: column for column, cell in enumerate(cells)}
    weights = np.zeros((len(groups), len(cells)))
    for row, group in enumerate(groups):
        for cell, count in members[group].items():
            weights[row, columns[cell]] = count
    _require_enough_groups(cells, weights, len(names))
    chosen = _Assignment(weights, np.array([fractions[name] for name in names])).run()
    _require_covered(cells, weights, chosen, names)
    return {group: names[choice] for group, choice in zip(groups, chosen, strict=True)}


class _Assignment:
    """The greedy pass and the repair: ``weights`` (groups, cells) image counts, ``shares`` (splits,)."""

    def __init__(self, weights: np.ndarray, shares: np.ndarray) -> None:
        self.weights = weights
        self.shares = shares
        self.totals = weights.sum(axis=0)
        self.filled = np.zeros((len(shares), len(self.totals)))
        self.present = np.zeros(self.filled.shape, dtype=np.int64)  # groups of each cell in each split
        self.groups_of_cell = (weights > 0).sum(axis=0)
        self.chosen = np.full(len(weights), -1)

    def run(self) -> np.ndarray:
        order = sorted(range(len(self.totals)), key=lambda cell: (self.groups_of_cell[cell], cell))
        for cell in order:
            waiting = np.flatnonzero((self.weights[:, cell] > 0) & (self.chosen < 0))
            waiting = waiting[np.argsort(-self.weights[waiting].sum(axis=1), kind="stable")]
            for position, group in enumerate(waiting):
                self._place(int(group), cell, left=len(waiting) - position)
        self._repair()
        return self.chosen

    def _place(self, group: int, cell: int, left: int) -> None:
        allowed = np.arange(len(self.shares))
        empty = np.flatnonzero(self.present[:, cell] == 0)
        if len(empty) >= left:
            # Splits stand in order of priority, so a cell of two groups gives one to train and one to test.
            allowed = empty if self.groups_of_cell[cell] >= COVERED_FROM else empty[:1]
        self._put(group, int(allowed[np.argmin(self._cost(group)[allowed])]))

    def _cost(self, group: int) -> np.ndarray:
        """For every split, how far the group takes its cells from their fractions of what is placed so far.

        Fractions of what is placed, not of the whole: else a small cell, placed first, would follow the large
        deficit of a large cell that its groups also belong to.
        """
        own = self.weights[group]
        touched = own > 0
        own, filled = own[touched], self.filled[:, touched]
        targets = self.shares[:, None] * (filled.sum(axis=0) + own)
        change = (filled + own - targets) ** 2 - (filled - targets) ** 2
        return (change / self.totals[touched]).sum(axis=1)

    def _put(self, group: int, split: int) -> None:
        self._take(group)
        self.filled[split] += self.weights[group]
        self.present[split] += self.weights[group] > 0
        self.chosen[group] = split

    def _take(self, group: int) -> None:
        split = self.chosen[group]
        if split >= 0:
            self.filled[split] -= self.weights[group]
            self.present[split] -= self.weights[group] > 0
            self.chosen[group] = -1

    def _repair(self) -> None:
        """Move groups into splits that lack a coverable cell, without uncovering another."""
        need = self._missing()
        while need:
            moved = any(self._cover(split, cell) for cell, split in need)
            still = self._missing()
            if not moved or len(still) >= len(need):
                return
            need = still

    def _missing(self) -> list[tuple[int, int]]:
        coverable = self.groups_of_cell >= max(COVERED_FROM, len(self.shares))
        return [(int(cell), int(split)) for cell, split in np.argwhere((self.present == 0).T & coverable[:, None])]

    def _cover(self, split: int, cell: int) -> bool:
        holders = np.flatnonzero((self.weights[:, cell] > 0) & (self.chosen != split))
        movable = [
            int(group) for group in holders if (self.present[self.chosen[group]][self.weights[group] > 0] > 1).all()
        ]
        if not movable:
            return False
        self._put(min(movable, key=lambda group: self.weights[group].sum()), split)
        return True


def _require_enough_groups(cells: Sequence[Cell], weights: np.ndarray, splits: int) -> None:
    for dataset in sorted({dataset for dataset, _ in cells}):
        columns = [column for column, cell in enumerate(cells) if cell[0] == dataset]
        groups = int((weights[:, columns] > 0).any(axis=1).sum())
        if groups < splits:
            raise SplitError(
                f"{dataset} has {groups} groups of photographs for {splits} splits",
                ids=[dataset],
                remedy="add photographs, or look in edges.parquet for what joins so many of them",
            )


def _require_covered(cells: Sequence[Cell], weights: np.ndarray, chosen: np.ndarray, names: Sequence[str]) -> None:
    lacking = []
    for column, (dataset, label) in enumerate(cells):
        holders = weights[:, column] > 0
        if holders.sum() < max(COVERED_FROM, len(names)):
            continue
        absent = [name for number, name in enumerate(names) if number not in chosen[holders]]
        if absent:
            lacking.append(f"{dataset}/{label or 'no label'} not in {' and '.join(absent)}")
    if lacking:
        raise SplitError(
            "classes that cannot stand in every split",
            ids=lacking,
            remedy="add photographs of these classes, or look in edges.parquet for what joins their groups",
        )
