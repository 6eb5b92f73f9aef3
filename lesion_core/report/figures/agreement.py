"""Bland and Altman's plot of lesion areas: does a method draw lesions too large or too small, and which?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lesion_core.report.figures.style import GUIDE, PALETTE, Drawn, Source, new_figure
from lesion_core.report.formats import dataset_name

MOST_METHODS = 4
LIMITS = 1.96  # SDs of the 95 % limits of agreement


def bland_altman(source: Source) -> Drawn | None:
    """Predicted minus true area against their mean, per test image at native size (Lancet 1986), first seeds."""
    lines = {dataset: shown for dataset in source.datasets if (shown := _shown(source, dataset))}
    if not lines:
        return None
    columns = max(map(len, lines.values()))
    figure, axes = new_figure(7.4, 2.3 * len(lines) + 0.2, len(lines), columns, sharex="row", sharey="row")
    for line, (dataset, shown) in zip(axes, lines.items(), strict=True):
        for axis in line[len(shown) :]:
            axis.set_visible(False)
        for axis, (name, runs) in zip(line, shown, strict=False):
            rows = source.store.segmentation[runs[0], dataset, source.plan.prompt_of(name), "native"]
            _panel(axis, rows, source.plan.name_of(name))
        line[0].set_ylabel(f"{dataset_name(dataset)}\npredicted − true area\n(% of the image)")
        line[0].set_xlim(left=0)
    caption = (
        "Lesion areas as per cent of the image, one point per test image at native size, first seed, under the prompt"
        " that a method is meant for. Line: mean difference; dashed: its 95 % limits of agreement (1.96 SD)."
    )
    return Drawn(figure, "Agreement of lesion areas", caption)


def areas(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true lesion areas as per cent of the image, float64 (N,), from pixel counts."""
    counts = rows[["tp", "fp", "fn", "tn"]].to_numpy(dtype=np.float64)
    pixels = counts.sum(axis=1)
    return 100 * (counts[:, 0] + counts[:, 1]) / pixels, 100 * (counts[:, 0] + counts[:, 2]) / pixels


def _shown(source: Source, dataset: str) -> list[tuple[str, list[str]]]:
    """The proposed method and the first few it is compared with, in the table's order."""
    methods = source.segmenters(dataset)
    proposed = source.plan.figure_segmenter
    others = [name for name in methods if name != proposed][: MOST_METHODS - (proposed in methods)]
    return [(name, runs) for name, runs in methods.items() if name in others or name == proposed]


def _panel(axis: Axes, rows: pd.DataFrame, name: str) -> None:
    predicted, true = areas(rows)
    difference = predicted - true
    axis.plot((predicted + true) / 2, difference, "o", ms=2.5, alpha=0.6, color=PALETTE[0], mew=0)
    middle = float(difference.mean())
    spread = LIMITS * float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    axis.axhline(0, **GUIDE)
    axis.axhline(middle, color=PALETTE[1], lw=1.4)
    for limit in (middle - spread, middle + spread):
        axis.axhline(limit, color=PALETTE[1], lw=1.0, ls="--")
    axis.set_title(f"{name}\n{middle:+.1f} ± {spread:.1f}", fontsize=8)
    axis.set_xlabel("mean of both areas (%)", fontsize=8)
