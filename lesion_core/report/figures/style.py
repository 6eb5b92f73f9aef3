"""One look for all figures: readable in print, and for colour-blind readers (Okabe and Ito's palette)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lesion_core.files import atomic_path
from lesion_core.report.measures import Measure
from lesion_core.report.score_store import Store
from lesion_core.settings import Plan

# Okabe and Ito, https://jfly.uni-koeln.de/color/ ; yellow is left out, it vanishes on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GUIDE: dict[str, Any] = {"color": "#999999", "lw": 0.8, "ls": ":"}  # a line to compare with: a diagonal, a zero
DPI = 150
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.title_fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "lesion",
}


@dataclass(frozen=True)
class Source:
    """What figures are drawn from."""

    root: Path
    plan: Plan
    store: Store

    @classmethod
    def read(cls, root: Path, plan: Plan) -> Source:
        """Read the score store."""
        return cls(root, plan, Store.read(root))

    @property
    def datasets(self) -> list[str]:
        """Datasets with segmentation scores, by name."""
        return sorted({key[1] for key in self.store.segmentation})

    def segmenters(self, dataset: str) -> dict[str, list[str]]:
        """Compared methods with segmentation scores on a dataset -> their runs."""
        return self._compared(dataset, {key[0] for key in self.store.segmentation if key[1] == dataset})

    def classifiers(self, dataset: str) -> dict[str, list[str]]:
        """Compared methods with classification scores on a dataset -> their runs."""
        return self._compared(dataset, {key[0] for key in self.store.classification if key[1] == dataset})

    def mean_dice(self, runs: list[str], dataset: str, prompt: str = "none", resolution: str = "native") -> float:
        """Mean over images and runs; NaN where no run was scored so."""
        value = self.store.measure(runs, Measure("segmentation", dataset, "dice", prompt, resolution))
        return math.nan if value is None else value.mean

    def _compared(self, dataset: str, scored: set[str]) -> dict[str, list[str]]:
        """The methods of the table that compares most of them on this dataset; all where none compares any."""
        tables = [table for table in self.plan.tables.values() if table.dataset == dataset]
        table = max(tables, key=lambda table: sum(row.method in self.plan.runs for row in table.rows), default=None)
        named = {row.method for row in table.rows} if table else set()
        names = named & set(self.plan.runs) or set(self.plan.runs)
        found = {name: [run for run in runs if run in scored] for name, runs in self.plan.runs.items() if name in names}
        return {name: runs for name, runs in found.items() if runs}


@dataclass(frozen=True)
class Drawn:
    """A figure with its title, its caption and its pixels per inch."""

    figure: Figure
    title: str
    caption: str
    dpi: int = DPI

    def save(self, folder: Path, name: str) -> None:
        """Write PDF and PNG without dates, so that same scores give same bytes."""
        self._settle()
        for suffix, dated in (("pdf", "CreationDate"), ("png", "Software")):
            with atomic_path(folder / f"{name}.{suffix}") as partial:
                self.figure.savefig(partial, dpi=self.dpi, metadata={dated: None})

    def _settle(self) -> None:
        """Lay the figure out once and round: the solver's last digits depend on where in memory it works."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        for axis in self.figure.axes:
            left, bottom, width, height = (round(value, 6) for value in axis.get_position(original=True).bounds)
            axis.set_position((left, bottom, width, height))


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure (inches) and its axes, (rows, columns) array, in the common style; no pyplot, no global state."""
    style.use(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, row by row, each so many inches wide and high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = new_figure(width * columns, height * rows, rows, columns)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, axis: Axes, title: str | None = None, columns: int = 5) -> None:
    """One legend for the whole figure, below it, where it hides no data."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), title=title)


def colour(number: int) -> str:
    """The colour of the n-th method, dataset or group."""
    return PALETTE[number % len(PALETTE)]


def marker(number: int) -> str:
    """The marker of the n-th method."""
    return MARKERS[number % len(MARKERS)]


def heatmap(axis: Axes, shares: np.ndarray, texts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A matrix of shares, float (R, C) in 0..1, each with its text."""
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.1, aspect="auto")
    for place in np.ndindex(*shares.shape):
        ink = "white" if shares[place] > 0.6 else "black"
        axis.text(place[1], place[0], str(texts[place]), ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.grid(visible=False)


def outlined(axis: Axes, mask: np.ndarray, **line: Any) -> None:
    """The outline of a bool mask (H, W) on a ground of the other lightness; an empty or full mask has none."""
    if mask.any() and not mask.all():
        axis.contour(mask, [0.5], colors="black" if line["colors"] == "white" else "white", linewidths=2.2)
        axis.contour(mask, [0.5], **line)


def name_ticks(axis: Axes, names: Mapping[str, Any] | Sequence[str], first: int = 0) -> None:
    """Slanted names along the horizontal axis."""
    axis.set_xticks(range(first, first + len(names)), list(names), rotation=30, ha="right")
