"""Bland and Altman's plot of lesion areas: does a method draw lesions too large or too small, and which?"""

from __future__ import annotations

import numpy as np

from lesion_core.report.figures.style import PALETTE, Drawn, Source, dataset_name, method_name, new_figure

MOST_METHODS = 4
LIMITS = 1.96  # SDs of the 95 % limits of agreement


def bland_altman(source: Source) -> Drawn | None:
    """Predicted minus true area against their mean, per test image at native size (Lancet 1986), first seeds."""
    datasets = sorted({key[1] for key in source.store.segmentation})
    panels = [(dataset, name, runs[0]) for dataset in datasets for name, runs in _shown(source, dataset)]
    if not panels:
        return None
    columns = max(sum(panel[0] == dataset for panel in panels) for dataset in datasets)
    lines = [dataset for dataset in datasets if any(panel[0] == dataset for panel in panels)]
    figure, axes = new_figure(7.4, 2.3 * len(lines) + 0.2, len(lines), columns, sharex="row", sharey="row")
    for line, dataset in enumerate(lines):
        own = [panel for panel in panels if panel[0] == dataset]
        for axis in axes[line][len(own) :]:
            axis.set_visible(False)
        for column, (_, name, run) in enumerate(own):
            _panel(axes[line][column], source, dataset, name, run)
        axes[line][0].set_ylabel(f"{dataset_name(dataset)}\npredicted − true area\n(% of the photograph)")
        axes[line][0].set_xlim(left=0)
    caption = (
        "Lesion areas as per cent of the photograph, one point per test image at native size, first seed. Line: mean"
        " difference; dashed: its 95 % limits of agreement (1.96 SD)."
    )
    return Drawn(figure, "Agreement of lesion areas", caption)


def areas(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true lesion areas as per cent of the photograph, float64 (N,), from pixel counts."""
    counts = np.array([[row[name] for name in ("tp", "fp", "fn", "tn")] for row in rows], dtype=np.float64)
    pixels = counts.sum(axis=1)
    return 100 * (counts[:, 0] + counts[:, 1]) / pixels, 100 * (counts[:, 0] + counts[:, 2]) / pixels


def _shown(source: Source, dataset: str) -> list[tuple[str, list[str]]]:
    """The proposed method and the first few it is compared with, in the table's order."""
    methods = source.segmenters(dataset)
    proposed = source.plan.statistics.segmentation_proposed
    others = [name for name in methods if name != proposed][: MOST_METHODS - (proposed in methods)]
    return [(name, runs) for name, runs in methods.items() if name in others or name == proposed]


def _panel(axis, source: Source, dataset: str, name: str, run: str) -> None:
    predicted, true = areas(source.store.segmentation[run, dataset, "none", "native"])
    difference = predicted - true
    axis.plot((predicted + true) / 2, difference, "o", ms=2.5, alpha=0.6, color=PALETTE[0], mew=0)
    middle = float(difference.mean())
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    axis.axhline(0, color="#999999", lw=0.8, ls=":")
    axis.axhline(middle, color=PALETTE[1], lw=1.4)
    for sign in (-1, 1):
        axis.axhline(middle + sign * LIMITS * spread, color=PALETTE[1], lw=1.0, ls="--")
    axis.set_title(f"{method_name(name)}\n{middle:+.1f} ± {LIMITS * spread:.1f}", fontsize=8)
    axis.set_xlabel("mean of both areas (%)", fontsize=8)
