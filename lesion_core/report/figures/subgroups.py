"""Performance by demographic subgroup, from ``statistics/subgroups.csv`` where the profile makes it."""

from __future__ import annotations

import pandas as pd

from lesion_core.paths import Layout
from lesion_core.progress import say
from lesion_core.report.figures.style import Drawn, Source, colour, legend_below, marker, new_figure
from lesion_core.report.formats import dataset_name, metric_name

COLUMNS = ("method", "dataset", "metric", "attribute", "group", "n", "value", "low", "high")
METRICS = ("balanced_accuracy", "accuracy")  # what is drawn, the first of them that the file has


def subgroups(source: Source) -> Drawn | None:
    """Each group's value with its interval, one panel per attribute (sex, age, site), one marker per method."""
    path = Layout(source.root).statistics("subgroups")
    rows = (
        pd.read_csv(path, keep_default_na=False, na_values=dict.fromkeys(("value", "low", "high"), ""))
        if path.is_file()
        else pd.DataFrame(columns=COLUMNS)
    )
    if missing := sorted({*COLUMNS} - {*rows.columns}):
        say(f"figure subgroups: {path.name} lacks {', '.join(missing)}")
        return None
    rows = rows.dropna(subset="value")
    if rows.empty:
        return None
    dataset = "ham10000" if "ham10000" in set(rows["dataset"]) else rows["dataset"].min()
    rows = rows[rows["dataset"] == dataset]
    metric = next((name for name in METRICS if name in set(rows["metric"])), rows["metric"].min())
    rows = rows[rows["metric"] == metric]
    methods = list(rows["method"].unique())
    groups = {
        name: dict(zip(own["group"], own["n"], strict=True)) for name, own in rows.groupby("attribute", sort=False)
    }
    heights = [max(2, len(own)) for own in groups.values()]
    height = 0.9 + 0.32 * sum(heights) + 0.35 * len(heights)
    figure, axes = new_figure(7.2, height, len(groups), 1, height_ratios=heights, sharex=True)
    for axis, (attribute, counts) in zip(axes[:, 0], groups.items(), strict=True):
        for number, method in enumerate(methods):
            own = rows[(rows["attribute"] == attribute) & (rows["method"] == method)]
            shift = (number - (len(methods) - 1) / 2) * 0.7 / len(methods)
            places = own["group"].map(list(counts).index) + shift
            axis.hlines(places, own["low"], own["high"], color=colour(number), lw=1.2)
            axis.plot(
                own["value"], places, marker(number), color=colour(number), ms=4, label=source.plan.name_of(method)
            )
        axis.set_yticks(range(len(counts)), [f"{group} (n = {n})" for group, n in counts.items()], fontsize=7)
        axis.invert_yaxis()
        axis.set_title(attribute.replace("dx_type", "diagnosis confirmed by").replace("_", " "), fontsize=9, loc="left")
    axes[-1, 0].set_xlabel(f"{metric_name(metric)}, {dataset_name(dataset)}")
    legend_below(figure, axes[0, 0])
    caption = "Groups of test images by what their metadata say, with 95 % intervals; missing values are a group."
    return Drawn(figure, "Subgroups", caption)
