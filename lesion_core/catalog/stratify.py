"""Assign a split to every group of images: stratified by dataset and class, within what a release prescribes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lesion_core.errors import SplitError
from lesion_core.seeding import generator

# Where the first groups of a class go if there are not enough for all splits: learn it, then test it.
PRIORITY = ("train", "test", "val")
COVERED_FROM = 3  # groups; a class with as many must stand in every split

Cell = tuple[str, str]  # (dataset, class); "" is "no label"


@dataclass(frozen=True)
class Prescribed:
    """What official splits ask for; empty where nothing is prescribed.

    Attributes:
        allowed: group -> the splits it may stand in.
        shares: dataset -> its own share of images per split, in place of the common fractions.
        counts: dataset -> images per split that must be met exactly.
        parted: datasets whose release says where each image stands, so that coverage is not ours to mend.
    """

    allowed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    parted: frozenset[str] = frozenset()


NOTHING = Prescribed()


def split_groups(
    images: Iterable[tuple[str, str, str]],
    fractions: Mapping[str, float],
    seed: int,
    prescribed: Prescribed = NOTHING,
) -> dict[str, str]:
    """Assign a split to every group.

    Greedy iterative stratification (after Sechidis, Tsoumakas, Vlahavas, ECML 2011, for groups): groups whose split is
    prescribed first; then cells of (dataset, class) from the rarest to the commonest; a cell's groups from the
    largest, ties in seeded order; each goes where it keeps all of its cells closest to their shares. The last groups
    of a cell are kept for splits that have none of it yet. Then groups are moved until prescribed counts are met.

    Args:
        images: (group_id, dataset, class) of every image, class "" without a label; in any order.
        fractions: share of images for "train", "val" and "test"; a split with share 0 stays empty.
        seed: the same seed and images give the same splits, in whatever order they come.
        prescribed: what official splits ask for.

    Raises:
        SplitError: a dataset has fewer groups than splits, a class with three groups or more cannot stand in every
            split, or prescribed counts cannot be met without parting a group.
    """
    members: dict[str, Counter[Cell]] = defaultdict(Counter)
    for group, dataset, label in images:
        members[group][(dataset, label)] += 1
    groups = sorted(members)
    generator(seed, "splits").shuffle(groups)
    asked = [
        prescribed.shares.get(dataset, fractions) for dataset in {key[0] for own in members.values() for key in own}
    ]
    names = [name for name in PRIORITY if any(shares[name] > 0 for shares in asked)]
    cells = sorted({cell for counts in members.values() for cell in counts})
    columns = {cell: column for column, cell in enumerate(cells)}
    weights = np.zeros((len(groups), len(cells)))
    for row, group in enumerate(groups):
        for cell, count in members[group].items():
            weights[row, columns[cell]] = count
    shares = np.array([[prescribed.shares.get(dataset, fractions)[name] for dataset, _ in cells] for name in names])
    allowed = np.array([[name in prescribed.allowed.get(group, names) for name in names] for group in groups])
    # A split that none of a group's datasets fills must not receive the group.
    allowed &= (weights > 0).astype(int) @ (shares > 0).T.astype(int) > 0
    mended = np.array([dataset not in prescribed.parted for dataset, _ in cells])
    _require_enough_groups(cells, weights, len(names), prescribed)
    assignment = Assignment(weights, shares, allowed, mended)
    chosen = assignment.run()
    for dataset, counts in sorted(prescribed.counts.items()):
        own = np.array([cell[0] == dataset for cell in cells])
        others = np.array([cell[0] != dataset and cell[0] in prescribed.counts for cell in cells])
        wanted = np.array([counts[name] for name in names])
        if (reached := assignment.meet(wanted, own, others)) is not None:
            raise SplitError(
                f"{dataset} cannot be split into {_spelled(names, wanted)}: groups of images that must stay"
                f" together allow {_spelled(names, reached)} at the closest that was found",
                ids=[dataset],
                remedy="change the counts, or look in edges.parquet for what joins so many images",
            )
    _require_covered(cells, weights, chosen, names, mended & (shares > 0).all(axis=0))
    return {group: names[choice] for group, choice in zip(groups, chosen, strict=True)}


class Assignment:
    """The greedy pass and its repairs.

    Args:
        weights: float (groups, cells), images of each cell in each group.
        shares: float (splits, cells), columns sum to 1.
        allowed: bool (groups, splits).
        mended: bool (cells,): cells that must be spread over all splits where they can be.
    """

    def __init__(self, weights: np.ndarray, shares: np.ndarray, allowed: np.ndarray, mended: np.ndarray) -> None:
        self.weights = weights
        self.shares = shares
        self.allowed = allowed
        self.totals = weights.sum(axis=0)
        self.filled = np.zeros(shares.shape)
        self.present = np.zeros(shares.shape, dtype=np.int64)  # groups of each cell in each split
        self.groups_of_cell = (weights > 0).sum(axis=0)
        self.coverable = mended & (shares > 0).all(axis=0) & (self.groups_of_cell >= max(COVERED_FROM, len(shares)))
        self.chosen = np.full(len(weights), -1)

    def run(self) -> np.ndarray:
        """The split of every group, intp (groups,), an index into the splits; changed in place by ``meet``."""
        for group in np.flatnonzero(self.allowed.sum(axis=1) == 1):
            self._put(int(group), int(self.allowed[group].argmax()))
        order = sorted(range(len(self.totals)), key=lambda cell: (self.groups_of_cell[cell], cell))
        for cell in order:
            waiting = np.flatnonzero((self.weights[:, cell] > 0) & (self.chosen < 0))
            waiting = waiting[np.argsort(-self.weights[waiting].sum(axis=1), kind="stable")]
            for position, group in enumerate(waiting):
                self._place(int(group), cell, left=len(waiting) - position)
        self._repair()
        return self.chosen

    def meet(self, wanted: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """Move groups until a dataset has exactly the wanted images in each split.

        Args:
            wanted: int (splits,).
            own: bool (cells,), the dataset's cells.
            others: bool (cells,), cells of other datasets whose counts must not change.

        Returns:
            None if the counts are met, else what was reached, (splits,).
        """
        sizes = self.weights[:, own].sum(axis=1)
        # A group that touches nothing else disturbs nothing else.
        elsewhere = self.weights[:, ~own].sum(axis=1)
        free = (sizes > 0) & (self.weights[:, others].sum(axis=1) == 0)
        while True:
            surplus = self.filled[:, own].sum(axis=1) - wanted
            if not surplus.any():
                return None
            giver, taker = int(surplus.argmax()), int(surplus.argmin())
            need = min(surplus[giver], -surplus[taker])
            held = (self.chosen == giver) & free & self.allowed[:, taker] & (sizes <= need)
            candidates = [int(group) for group in np.flatnonzero(held) if self._spared(int(group))]
            if not candidates:
                return self.filled[:, own].sum(axis=1)
            self._put(
                min(candidates, key=lambda group: (elsewhere[group], -sizes[group], self._harm(group, taker))), taker
            )

    def _spared(self, group: int) -> bool:
        """Whether its split keeps every cell that must be covered when the group leaves."""
        held = (self.weights[group] > 0) & self.coverable
        return bool((self.present[self.chosen[group]][held] > 1).all())

    def _harm(self, group: int, split: int) -> float:
        """How much a move takes the group's cells away from their shares."""
        touched = self.weights[group] > 0
        own, filled = self.weights[group][touched], self.filled[:, touched]
        targets = self.shares[:, touched] * self.totals[touched]
        giver = self.chosen[group]
        before = ((filled - targets)[[giver, split]] ** 2 / self.totals[touched]).sum()
        after = ((filled[giver] - own - targets[giver]) ** 2 / self.totals[touched]).sum()
        return float(after + ((filled[split] + own - targets[split]) ** 2 / self.totals[touched]).sum() - before)

    def _place(self, group: int, cell: int, left: int) -> None:
        allowed = np.flatnonzero(self.allowed[group])
        empty = np.array(
            [split for split in allowed if self.present[split, cell] == 0 and self.shares[split, cell] > 0]
        )
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
        targets = self.shares[:, touched] * (filled.sum(axis=0) + own)
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
        holders = np.flatnonzero((self.weights[:, cell] > 0) & (self.chosen != split) & self.allowed[:, split])
        movable = [
            int(group) for group in holders if (self.present[self.chosen[group]][self.weights[group] > 0] > 1).all()
        ]
        if not movable:
            return False
        self._put(min(movable, key=lambda group: self.weights[group].sum()), split)
        return True


def _spelled(names: Sequence[str], counts: np.ndarray) -> str:
    return ", ".join(f"{name} {int(count)}" for name, count in zip(names, counts, strict=True))


def _require_enough_groups(cells: Sequence[Cell], weights: np.ndarray, splits: int, prescribed: Prescribed) -> None:
    for dataset in sorted({dataset for dataset, _ in cells} - prescribed.parted):
        columns = [column for column, cell in enumerate(cells) if cell[0] == dataset]
        groups = int((weights[:, columns] > 0).any(axis=1).sum())
        if groups < splits:
            raise SplitError(
                f"{dataset} has {groups} groups of images for {splits} splits",
                ids=[dataset],
                remedy="add images, or look in edges.parquet for what joins so many of them",
            )


def _require_covered(
    cells: Sequence[Cell], weights: np.ndarray, chosen: np.ndarray, names: Sequence[str], mended: np.ndarray
) -> None:
    lacking = []
    for column, (dataset, label) in enumerate(cells):
        holders = weights[:, column] > 0
        if not mended[column] or holders.sum() < max(COVERED_FROM, len(names)):
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
