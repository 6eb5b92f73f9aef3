"""Contours at native resolution, images chosen by rule (best to worst of the method)."""

from __future__ import annotations

import math
from contextlib import ExitStack

from lesion_core.files import read_parquet
from lesion_core.paths import Layout
from lesion_core.report.figures.style import DPI, PALETTE, Drawn, Source, new_figure, outlined
from lesion_core.report.formats import dataset_name
from lesion_core.report.images import MaskArchive, small_image
from lesion_core.settings.paper import Figure

CHOSEN = (("best", 1.0), ("upper quartile", 0.75), ("median", 0.5), ("lower quartile", 0.25), ("worst", 0.0))
WIDTH = 7.4
MOST_BASELINES = 5
MOST_PIXELS = 768  # of an image's longer side, as it is drawn: PH2's; 30 such synthetic images are 1.3 MB of the page


def choose(scores: dict[str, float]) -> list[tuple[str, str]]:
    """(name of the place, image id) at fixed quantiles of the proposed method's Dice; ties by id."""
    ordered = sorted(scores, key=lambda image: (scores[image], image))
    return [(name, ordered[round(share * (len(ordered) - 1))]) for name, share in CHOSEN]


def contours(source: Source, asked: Figure) -> Drawn | None:
    """The method beside the first few others, each under the prompt that it is meant for; None where it did not run."""
    dataset, proposed = asked.dataset, asked.method
    methods = source.segmenters(dataset)
    if proposed not in methods:
        return None
    shown = [*[name for name in methods if name != proposed][:MOST_BASELINES], proposed]
    rows = {
        name: source.store.segmentation[methods[name][0], dataset, source.plan.prompt_of(name), "native"]
        for name in shown
    }
    dice = {name: dict(zip(own["image_id"], own["dice"], strict=True)) for name, own in rows.items()}
    chosen = choose(dice[proposed])
    table = read_parquet(Layout(source.root).catalog, ["dataset", "image_id", "path"])
    files = {row["image_id"]: source.root / row["path"] for row in table.to_pylist() if row["dataset"] == dataset}
    with ExitStack() as stack:
        archives = {name: stack.enter_context(MaskArchive(source.root, methods[name][0])) for name in shown}
        truths = [archives[proposed].true(dataset, image_id) for _, image_id in chosen]
        heights = [truth.shape[0] / truth.shape[1] for truth in truths]
        height = sum(heights) * (WIDTH - 0.3) / len(shown) + 0.22 * len(chosen) + 0.25
        figure, axes = new_figure(WIDTH, height, len(chosen), len(shown), height_ratios=heights)
        widest = 0
        for line, truth, (place, image_id) in zip(axes, truths, chosen, strict=True):
            image = small_image(files[image_id], MOST_PIXELS)
            widest = max(widest, image.shape[1])
            extent = (-0.5, truth.shape[1] - 0.5, truth.shape[0] - 0.5, -0.5)
            for axis, name in zip(line, shown, strict=True):
                axis.imshow(image, extent=extent)
                outlined(axis, truth, colors="black", linewidths=1.0)
                mask = archives[name].scored(dataset, image_id)
                outlined(axis, mask, colors=PALETTE[1 if name == proposed else 4], linewidths=1.2)
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
                axis.set_xlabel(f"Dice {dice[name][image_id]:.3f}", fontsize=7, labelpad=1)
            line[0].set_ylabel(place, fontsize=7)
    for axis, name in zip(axes[0], shown, strict=True):
        axis.set_title(source.plan.name_of(name), fontsize=8)
    ours = source.plan.name_of(proposed)
    caption = (
        f"{dataset_name(dataset)} test images at the best, quartile, median and worst Dice of {ours}"
        f" (first seed), chosen by that rule. Black: truth; orange: {ours}; blue: the"
        " others; all at native resolution, under the prompt that a method is meant for. The images below them are at"
        f" their native size up to {MOST_PIXELS} pixels on the longer side, larger ones are reduced to that."
    )
    return Drawn(figure, asked.title, caption, dpi=max(DPI, math.ceil(widest * len(shown) / WIDTH)))
