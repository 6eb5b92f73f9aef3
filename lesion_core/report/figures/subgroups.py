"""Performance by demographic subgroup, from ``statistics/subgroups.csv`` where the profile makes it."""

from __future__ import annotations

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.progress import say
from lesion_core.report.figures.style import (
    MARKERS,
    PALETTE,
    Drawn,
    Source,
    dataset_name,
    legend_below,
    method_name,
    new_figure,
)
from lesion_core.report.formats import metric_name

COLUMNS = ("method", "dataset", "metric", "attribute", "group", "n", "value", "low", "high")
METRICS = ("balanced_accuracy", "accuracy")  # what is drawn, the first of them that the file has


def subgroups(source: Source) -> Drawn | None:
    """Each group's value with its interval, one panel per attribute (sex, age, site), one marker per method."""
    path = Layout(source.root).statistics("subgroups")
    rows = read_csv(path) if path.is_file() else []
    if rows and not set(COLUMNS) <= set(rows[0]):
        say(f"figure subgroups: {path.name} lacks {', '.join(sorted(set(COLUMNS) - set(rows[0])))}")
        return None
    rows = [row for row in rows if row["value"]]
    if not rows:
        return None
    datasets = {row["dataset"] for row in rows}
    dataset = "ham10000" if "ham10000" in datasets else min(datasets)
    measured = {row["metric"] for row in rows if row["dataset"] == dataset}
    metric = next((name for name in METRICS if name in measured), min(measured))
    rows = [row for row in rows if (row["dataset"], row["metric"]) == (dataset, metric)]
    attributes = list(dict.fromkeys(row["attribute"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    groups = {name: list(dict.fromkeys(r["group"] for r in rows if r["attribute"] == name)) for name in attributes}
    heights = [max(2, len(groups[name])) for name in attributes]
    figure, axes = new_figure(
        7.2, 0.9 + 0.32 * sum(heights) + 0.35 * len(heights), len(attributes), 1, height_ratios=heights, sharex=True
    )
    for axis, attribute in zip(axes[:, 0], attributes, strict=True):
        counts = {}
        for number, method in enumerate(methods):
            shift = (number - (len(methods) - 1) / 2) * 0.7 / max(1, len(methods))
            for row in rows:
                if (row["attribute"], row["method"]) != (attribute, method):
                    continue
                place = groups[attribute].index(row["group"]) + shift
                counts[row["group"]] = row["n"]
                color = PALETTE[number % len(PALETTE)]
                if row["low"] and row["high"]:
                    axis.plot([float(row["low"]), float(row["high"])], [place, place], color=color, lw=1.2)
                marker = MARKERS[number % len(MARKERS)]
                axis.plot(float(row["value"]), place, marker, color=color, ms=4)
            axis.plot([], [], MARKERS[number % len(MARKERS)], color=PALETTE[number % len(PALETTE)], ms=4)
            axis.lines[-1].set_label(method_name(method))
        labels = [f"{group} (n = {counts.get(group, '?')})" for group in groups[attribute]]
        axis.set_yticks(range(len(labels)), labels, fontsize=7)
        axis.invert_yaxis()
        axis.set_title(attribute.replace("dx_type", "way of diagnosis").replace("_", " "), fontsize=9, loc="left")
    axes[-1, 0].set_xlabel(f"{metric_name(metric)}, {dataset_name(dataset)}")
    legend_below(figure, axes[0, 0])
    caption = "Groups of test images by what their metadata say, with 95 % intervals; missing values are a group."
    return Drawn(figure, "Subgroups", caption)
