"""Where networks look: images, the true outline, and each method's map, as the explaining stage stored them."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable

from lesion_core.paths import Layout
from lesion_core.report.figures.style import Drawn, Source, new_figure, outlined
from lesion_core.report.formats import dataset_name, explainer_name
from lesion_core.settings.paper import Figure

EXPLAINERS = ("grad_cam", "rollout")
MOST_ROWS = 5
MAP = "cividis"


Row = tuple[str, str, dict[str, np.ndarray]]


def explanations(source: Source) -> Drawn | None:
    """One row per explained method (first seed, first kept image): image, Grad-CAM, attention roll-out."""
    rows = [row for method in source.plan.runs for row in _kept(source, method, "")[:1]]
    return _drawn(source, rows[:MOST_ROWS], "Where networks look")


def of_method(source: Source, asked: Figure) -> Drawn | None:
    """The kept images of one method on one dataset."""
    return _drawn(source, _kept(source, asked.method, f"{asked.dataset}/")[:MOST_ROWS], asked.title)


def _drawn(source: Source, rows: list[Row], title: str) -> Drawn | None:
    if not rows:
        return None
    figure, axes = new_figure(5.6, 1.75 * len(rows) + 0.3, len(rows), 1 + len(EXPLAINERS))
    for line, (method, name, parts) in zip(axes, rows, strict=True):
        dataset, image_id = name.split("/", 1)
        for axis, explainer in zip(line, ("image", *EXPLAINERS), strict=True):
            axis.set_axis_off()
            axis.set_box_aspect(1)
            if explainer not in parts:
                axis.text(0.5, 0.5, "a CNN has\nno attention", ha="center", va="center", fontsize=8, color="#57606a")
                continue
            axis.imshow(parts["image"])
            if explainer != "image":
                axis.imshow(parts[explainer] / 255.0, cmap=MAP, alpha=0.55, vmin=0, vmax=1)
            outlined(axis, parts["mask"] > 0, colors="white", linewidths=1.0)
        text = f"{source.plan.name_of(method)}\n{dataset_name(dataset)}\n{image_id}"
        line[0].text(-0.06, 0.5, text, fontsize=7, ha="right", va="center", transform=line[0].transAxes)
    for axis, title in zip(axes[0], ("image", *map(explainer_name, EXPLAINERS)), strict=True):
        axis.set_title(title, fontsize=9)
    bar = figure.colorbar(ScalarMappable(cmap=MAP), ax=axes[:, 1:], orientation="horizontal", shrink=0.6, aspect=30)
    bar.set_label("share of the map's maximum", fontsize=8)
    caption = (
        "Yellow: where the answer came from, scaled to each map's maximum; white: the true outline. Segmenters are"
        " asked about the pixels that they call lesion, classifiers about their answer. Images: the first by name."
    )
    return Drawn(figure, title, caption)


def _kept(source: Source, method: str, start: str) -> list[Row]:
    """The kept images of a method's first explained run whose names start so: method, name, and image, mask, maps."""
    paths = [Layout(source.root).explained(run, "npz") for run in source.plan.runs.get(method, [])]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    with np.load(path) as kept:
        names = sorted(key.removesuffix("/image") for key in kept.files if key.endswith("/image"))
        return [
            (
                method,
                name,
                {key.removeprefix(f"{name}/"): kept[key] for key in kept.files if key.startswith(f"{name}/")},
            )
            for name in names
            if name.startswith(start)
        ]
