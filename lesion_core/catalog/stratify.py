"""Assign a split to every group of images: stratified by dataset and class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lesion_core.errors import SplitError
from lesion_core.seeding import generator

# Where the first groups of a class go if there are not enough for all splits: learn it, then test it.
PRIORITY = ("train", "test", "val")
COVERED_FROM = 3  # groups; a class with as many must stand in every split

Cell = tuple[str, str]  # (dataset, class); "" is "no label"


def split_groups(
    images: Iterable[tuple[str, str, str]],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, str]:
    """Assign a split to every group.

    Greedy iterative stratification (after Sechidis, Tsoumakas, Vlahavas, ECML 2011, for groups): cells of (dataset,
    class) from the rarest to the commonest; a cell's groups from the largest, ties in seeded order; each goes where it
    keeps all of its cells closest to their shares. The last groups of a cell are kept for splits that have none of it
    yet.

    Args:
        images: (group_id, dataset, class) of every image, class "" without a label; in any order.
        fractions: share of images for "train", "val" and "test"; a split with share 0 stays empty.
        seed: the same seed and images give the same splits, in whatever order they come.

    Raises:
        SplitError: a dataset has fewer groups than splits, or a class with three groups or more cannot stand in every
            split.
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
    chosen = Assignment(weights, np.array([fractions[name] for name in names])).run()
    _require_covered(cells, weights, chosen, names)
    return {group: names[choice] for group, choice in zip(groups, chosen, strict=True)}


class Assignment:
    """The greedy pass and its repairs.

    Args:
        weights: float (groups, cells), images of each cell in each group.
        shares: float (splits,), sum 1.
    """

    def __init__(self, weights: np.ndarray, shares: np.ndarray) -> None:
        self.weights = weights
        self.shares = shares[:, None]
        self.totals = weights.sum(axis=0)
        self.filled = np.zeros((len(shares), weights.shape[1]))
        self.present = np.zeros(self.filled.shape, dtype=np.int64)  # groups of each cell in each split
        self.groups_of_cell = (weights > 0).sum(axis=0)
        self.coverable = self.groups_of_cell >= max(COVERED_FROM, len(shares))
        self.chosen = np.full(len(weights), -1)

    def run(self) -> np.ndarray:
        """The split of every group, intp (groups,), an index into the splits."""
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
        if len(empty) and len(empty) >= left:
            # Splits stand in order of priority, so a cell of two groups gives one to train and one to test.
            allowed = empty if self.groups_of_cell[cell] >= COVERED_FROM else empty[:1]
        self._put(group, int(allowed[np.argmin(self._cost(group)[allowed])]))

    def _cost(self, group: int) -> np.ndarray:
        """For every split, how far the group takes its cells from their shares of what is placed so far.

        Shares of what is placed, not of the whole: else a small cell, placed first, would follow the large
        deficit of a large cell that its groups also belong to.
        """
        own = self.weights[group]
        touched = own > 0
        own, filled = own[touched], self.filled[:, touched]
        targets = self.shares * (filled.sum(axis=0) + own)
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
        return [(int(cell), int(split)) for cell, split in np.argwhere((self.present == 0).T & self.coverable[:, None])]

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
                f"{dataset} has {groups} groups of images for {splits} splits",
                ids=[dataset],
                remedy="add images, or look in edges.parquet for what joins so many of them",
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
            remedy="add images of these classes, or look in edges.parquet for what joins their groups",
        )
