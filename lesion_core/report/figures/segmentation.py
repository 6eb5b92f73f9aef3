"""Figures of segmentation scores."""

from __future__ import annotations

import numpy as np

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.report.extra_tables import PROMPTS
from lesion_core.report.figures.style import (
    PALETTE,
    Drawn,
    Source,
    colour,
    legend_below,
    marker,
    name_ticks,
    new_figure,
)
from lesion_core.report.formats import dataset_name, metric_name


def dice_distribution(source: Source) -> Drawn | None:
    """Distribution of per-image Dice by method, one panel per dataset."""
    if not source.datasets:
        return None
    figure, axes = new_figure(7.2, 3.4, 1, len(source.datasets), sharey=True)
    for axis, dataset in zip(axes[0], source.datasets, strict=True):
        methods = source.segmenters(dataset)
        rows = {
            source.plan.name_of(name): [
                source.store.segmentation[run, dataset, source.plan.prompt_of(name), "native"] for run in runs
            ]
            for name, runs in methods.items()
        }
        values = [np.concatenate([own["dice"].to_numpy() for own in seeds]) for seeds in rows.values()]
        places = np.arange(1, len(values) + 1)
        parts = axis.violinplot(values, places, showextrema=False, widths=0.8)
        for number, body in enumerate(parts["bodies"]):
            body.set(facecolor=colour(number), alpha=0.35)
        axis.boxplot(values, positions=places, widths=0.22, showfliers=False, medianprops={"color": "black"})
        axis.plot(places, [np.mean(part) for part in values], "D", color="white", markeredgecolor="black", ms=5)
        name_ticks(axis, rows, first=1)
        images = len(next(iter(rows.values()))[0])
        axis.set(title=f"{dataset_name(dataset)} (n = {images})", ylim=(0, 1.02))
    axes[0][0].set_ylabel("Dice per image, native size")
    caption = (
        "Dice of every test image at native size, all seeds, under the prompt that a method is meant for. Boxes:"
        " quartiles; diamonds: means."
    )
    return Drawn(figure, "Distribution of Dice", caption)


def prompt_worth(source: Source) -> Drawn | None:
    """The same weights under every prompt: what a prompt made from the truth is worth."""
    present = [name for name in PROMPTS if any(key[2] == name for key in source.store.segmentation)]
    if len(present) < 2:
        return None
    oracles = next((place for place, name in enumerate(present) if name.startswith("oracle")), len(present))
    figure, axes = new_figure(7.2, 3.6, 1, len(source.datasets), sharey=True)
    for axis, dataset in zip(axes[0], source.datasets, strict=True):
        number = 0
        for name, runs in source.segmenters(dataset).items():
            means = [source.mean_dice(runs, dataset, prompt) for prompt in present]
            if np.isfinite(means).sum() < 2:
                continue
            axis.plot(means, marker=marker(number), color=colour(number), label=source.plan.name_of(name))
            number += 1
        if oracles < len(present):
            axis.axvspan(oracles - 0.5, len(present) - 0.5, color="#f2e6d9", zorder=0)
        name_ticks(axis, [name.replace("_", " ") for name in present])
        axis.set_title(dataset_name(dataset))
    legend_below(figure, axes[0][0])
    axes[0][0].set_ylabel("mean Dice, native size")
    caption = "The same weights under each prompt. Prompts on the shaded ground are made from the true mask."
    return Drawn(figure, "What a prompt is worth", caption)


def native_and_model_size(source: Source) -> Drawn | None:
    """Mean Dice scored at native size beside mean Dice scored at the model's size."""
    if not source.datasets:
        return None
    figure, axes = new_figure(7.2, 3.2, 1, len(source.datasets), sharey=True)
    for axis, dataset in zip(axes[0], source.datasets, strict=True):
        methods = source.segmenters(dataset)
        for number, resolution in enumerate(("native", "model")):
            values = [source.mean_dice(runs, dataset, resolution=resolution) for runs in methods.values()]
            places = np.arange(len(values)) + (number - 0.5) * 0.36
            bars = axis.bar(places, values, 0.34, color=PALETTE[number], label=f"{resolution} size")
            axis.bar_label(bars, fmt="%.3f", fontsize=6, rotation=90, padding=2)
        name_ticks(axis, list(map(source.plan.name_of, methods)))
        axis.set(title=dataset_name(dataset), ylim=(0, 1.15), yticks=np.linspace(0, 1, 6))
    axes[0][0].set_ylabel("mean Dice per image")
    legend_below(figure, axes[0][0])
    return Drawn(figure, "Dual scoring", "The same predictions scored at the image's own and at the model's size.")


def effects(source: Source) -> Drawn | None:
    """Forest plot: proposed minus other per image, with bootstrap intervals."""
    path = Layout(source.root).statistics("tests")
    tests = [row for row in read_csv(path) if row["level"] == "image" and row["ci_low"]] if path.is_file() else []
    if not tests:
        return None
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for test in sorted(tests, key=lambda row: (row["compared"], row["dataset"], row["proposed"], row["other"])):
        groups.setdefault((test["compared"], test["dataset"], test["metric"], test["proposed"]), []).append(test)
    heights = [len(own) + 1 for own in groups.values()]
    figure, axes = new_figure(7.2, 0.6 + 0.24 * sum(heights), len(groups), 1, height_ratios=heights, sharex=True)
    for axis, ((_, dataset, metric, proposed), own) in zip(axes[:, 0], groups.items(), strict=True):
        ink = PALETTE[1] if metric == "accuracy" else PALETTE[0]
        middle, low, high = ([100 * float(t[name]) for t in own] for name in ("difference", "ci_low", "ci_high"))
        axis.hlines(range(len(own)), low, high, color=ink, lw=1.6)
        axis.plot(middle, range(len(own)), "s", color=ink, ms=4)
        axis.set_yticks(range(len(own)), [source.plan.name_of(test["other"]) for test in own], fontsize=7)
        axis.set_ylim(len(own) - 0.5, -0.5)
        axis.axvline(0, color="black", lw=0.8)
        title = f"{dataset_name(dataset)}, {metric_name(metric)}: {source.plan.name_of(proposed)} minus"
        axis.set_title(title, fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("difference in percentage points")
    caption = "Mean difference over test images; 95 % BCa intervals from a bootstrap clustered by lesion."
    return Drawn(figure, "Effects", caption)
