"""Performance by demographic subgroup, from ``statistics/subgroups.csv`` where the profile makes it."""

from __future__ import annotations

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.progress import say
from lesion_core.report.display_names import dataset_name
from lesion_core.report.figures.style import Drawn, Source, colour, legend_below, marker, new_figure
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
    methods = list(dict.fromkeys(row["method"] for row in rows))
    groups: dict[str, dict[str, str]] = {}  # attribute -> group -> number of images
    for row in rows:
        groups.setdefault(row["attribute"], {})[row["group"]] = row["n"]
    heights = [max(2, len(own)) for own in groups.values()]
    height = 0.9 + 0.32 * sum(heights) + 0.35 * len(heights)
    figure, axes = new_figure(7.2, height, len(groups), 1, height_ratios=heights, sharex=True)
    for axis, (attribute, counts) in zip(axes[:, 0], groups.items(), strict=True):
        for number, method in enumerate(methods):
            shift = (number - (len(methods) - 1) / 2) * 0.7 / len(methods)
            own = [row for row in rows if (row["attribute"], row["method"]) == (attribute, method)]
            places = [list(counts).index(row["group"]) + shift for row in own]
            for place, row in zip(places, own, strict=True):
                if row["low"] and row["high"]:
                    axis.plot([float(row["low"]), float(row["high"])], [place, place], color=colour(number), lw=1.2)
            values = [float(row["value"]) for row in own]
            axis.plot(values, places, marker(number), color=colour(number), ms=4, label=source.plan.name_of(method))
        axis.set_yticks(range(len(counts)), [f"{group} (n = {n})" for group, n in counts.items()], fontsize=7)
        axis.invert_yaxis()
        axis.set_title(attribute.replace("dx_type", "diagnosis confirmed by").replace("_", " "), fontsize=9, loc="left")
    axes[-1, 0].set_xlabel(f"{metric_name(metric)}, {dataset_name(dataset)}")
    legend_below(figure, axes[0, 0])
    caption = "Groups of test images by what their metadata say, with 95 % intervals; missing values are a group."
    return Drawn(figure, "Subgroups", caption)
