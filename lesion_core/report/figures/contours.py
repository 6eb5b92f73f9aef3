"""Figures 8 and 9: contours at native resolution, images chosen by rule (best to worst of the proposed)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesion_core.report.figures.style import PALETTE, Drawn, Source, dataset_name, method_name, new_figure
from lesion_core.report.stored_masks import scored_mask, true_mask

CHOSEN = (("best", 1.0), ("upper quartile", 0.75), ("median", 0.5), ("lower quartile", 0.25), ("worst", 0.0))
TRUTH = "#000000"
WIDTH = 7.4
MOST_BASELINES = 5
MOST_PIXELS = 480  # of a photograph's longer side, as it is drawn; contours are those of the native masks


def isic2018(source: Source) -> Drawn | None:
    """Figure 8: ISIC 2018 test images."""
    return _contours(source, "isic2018_task1", "Figure 8")


def ph2(source: Source) -> Drawn | None:
    """Figure 9: PH2 test images."""
    return _contours(source, "ph2", "Figure 9")


def choose(scores: dict[str, float]) -> list[tuple[str, str]]:
    """(name of the place, image id) at fixed quantiles of the proposed method's Dice; ties by id."""
    ordered = sorted(scores, key=lambda image: (scores[image], image))
    return [(name, ordered[round(share * (len(ordered) - 1))]) for name, share in CHOSEN]


def _contours(source: Source, dataset: str, title: str) -> Drawn | None:
    methods = source.segmenters(dataset)
    proposed = source.plan.statistics.segmentation_proposed
    if proposed not in methods:
        return None
    rows = source.store.segmentation[methods[proposed][0], dataset, "none", "native"]
    chosen = choose({row["image_id"]: row["dice"] for row in rows})
    files = _catalog(source.root, dataset)
    shown = [*[name for name in methods if name != proposed][:MOST_BASELINES], proposed]
    first = methods[proposed][0]
    pictures = [
        (_photograph(source.root / files[image_id]), true_mask(source.root, first, dataset, image_id))
        for _, image_id in chosen
    ]
    heights = [truth.shape[0] / truth.shape[1] for _, truth in pictures]
    width = (WIDTH - 0.3) / len(shown)
    height = sum(heights) * width + 0.22 * len(chosen) + 0.25
    figure, axes = new_figure(WIDTH, height, len(chosen), len(shown), height_ratios=heights)
    for line, (place, image_id) in enumerate(chosen):
        photograph, truth = pictures[line]
        rows_high, columns_wide = truth.shape
        extent = (-0.5, columns_wide - 0.5, rows_high - 0.5, -0.5)
        for column, name in enumerate(shown):
            axis = axes[line][column]
            run = methods[name][0]
            mask = scored_mask(source.root, run, dataset, image_id)
            axis.imshow(photograph, extent=extent)
            axis.contour(truth, [0.5], colors="white", linewidths=2.2)
            axis.contour(truth, [0.5], colors=TRUTH, linewidths=1.0)
            if mask.any() and not mask.all():
                axis.contour(mask, [0.5], colors="white", linewidths=2.2)
                axis.contour(mask, [0.5], colors=PALETTE[1 if name == proposed else 4], linewidths=1.2)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
            dice = next(
                row["dice"]
                for row in source.store.segmentation[run, dataset, "none", "native"]
                if row["image_id"] == image_id
            )
            axis.set_xlabel(f"Dice {dice:.3f}", fontsize=7, labelpad=1)
            if line == 0:
                axis.set_title(method_name(name), fontsize=8)
        axes[line][0].set_ylabel(place, fontsize=7)
    caption = (
        f"{dataset_name(dataset)} test images at the best, quartile, median and worst Dice of {method_name(proposed)}"
        f" (first seed), chosen by that rule. Black: truth; orange: {method_name(proposed)}; blue: the"
        " others; all at native resolution."
    )
    return Drawn(figure, title, caption)


def _catalog(root: Path, dataset: str) -> dict[str, str]:
    from lesion_core.files import read_parquet
    from lesion_core.paths import Layout

    table = read_parquet(Layout(root).catalog, ["dataset", "image_id", "path"])
    return {row["image_id"]: row["path"] for row in table.to_pylist() if row["dataset"] == dataset}


def _photograph(path: Path) -> np.ndarray:
    import cv2

    from lesion_core.acquire.images import read_image

    photograph = read_image(path)
    scale = MOST_PIXELS / max(photograph.shape[:2])
    if scale < 1.0:
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return photograph
