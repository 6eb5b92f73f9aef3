"""One look for all figures: readable in print, and for colour-blind readers (Okabe and Ito's palette)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.files import atomic_path
from lesion_core.report.names import dataset_name, method_name
from lesion_core.report.values import Store
from lesion_core.settings import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MARKERS", "PALETTE", "Drawn", "Source", "dataset_name", "legend_below", "method_name", "new_figure"]

# Okabe and Ito, https://jfly.uni-koeln.de/color/ ; yellow is left out, it vanishes on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 150
STYLE = {
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

    def segmenters(self, dataset: str) -> dict[str, list[str]]:
        """Compared methods with segmentation scores on a dataset -> their runs."""
        return self._compared(dataset, {key[0] for key in self.store.segmentation if key[1] == dataset})

    def classifiers(self, dataset: str) -> dict[str, list[str]]:
        """Compared methods with classification scores on a dataset -> their runs."""
        return self._compared(dataset, {key[0] for key in self.store.classification if key[1] == dataset})

    def _compared(self, dataset: str, scored: set[str]) -> dict[str, list[str]]:
        """The methods of the paper's comparison on this dataset (its first table with rows), no ablations."""
        # numbered tables are the main paper's; a plan may come sorted by name
        ordered = sorted(self.plan.tables.items(), key=lambda item: (not item[0].startswith("table_"), item[0]))
        table = next((table for _, table in ordered if table.dataset == dataset and table.rows), None)
        names = {row.method for row in table.rows} if table else set(self.plan.runs)
        found = {name: [run for run in runs if run in scored] for name, runs in self.plan.runs.items() if name in names}
        return {name: runs for name, runs in found.items() if runs}


@dataclass(frozen=True)
class Drawn:
    """A figure with its title and caption."""

    figure: Figure
    title: str
    caption: str

    def save(self, folder: Path, name: str) -> None:
        """Write PDF and PNG without dates, so that same scores give same bytes."""
        settle(self.figure)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
            with atomic_path(folder / f"{name}.{suffix}") as partial:
                self.figure.savefig(partial, dpi=DPI, metadata=metadata)


def settle(figure: Figure) -> None:
    """Lay the figure out once and round: the solver's last digits depend on where in memory it works."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position([round(value, 6) for value in axis.get_position(original=True).bounds])


def legend_below(figure: Figure, axis: Any, title: str | None = None, columns: int = 5) -> None:
    """One legend for the whole figure, below it, where it hides no data."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), title=title)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure (inches) and its axes, (rows, columns) array, in the common style; no pyplot, no global state."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
