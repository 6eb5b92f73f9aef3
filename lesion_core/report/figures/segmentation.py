"""Figures of segmentation scores."""

from __future__ import annotations

import numpy as np

from lesion_core.files import read_csv
from lesion_core.paths import Layout
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


def _datasets(source: Source) -> list[str]:
    return sorted({key[1] for key in source.store.segmentation})


def dice_distribution(source: Source) -> Drawn | None:
    """Distribution of per-image Dice by method, one panel per dataset."""
    datasets = _datasets(source)
    if not datasets:
        return None
    figure, axes = new_figure(7.2, 3.4, 1, len(datasets), sharey=True)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        methods = source.segmenters(dataset)
        values = [
            [row["dice"] for run in runs for row in source.store.segmentation[run, dataset, "none", "native"]]
            for runs in methods.values()
        ]
        places = np.arange(1, len(values) + 1)
        parts = axis.violinplot(values, places, showextrema=False, widths=0.8)
        for number, body in enumerate(parts["bodies"]):
            body.set(facecolor=PALETTE[number % len(PALETTE)], alpha=0.35)
        axis.boxplot(values, positions=places, widths=0.22, showfliers=False, medianprops={"color": "black"})
        axis.plot(places, [np.mean(part) for part in values], "D", color="white", markeredgecolor="black", ms=5)
        axis.set_xticks(places, [method_name(name) for name in methods], rotation=30, ha="right")
        axis.set_title(f"{dataset_name(dataset)} (n = {len(values[0]) // max(1, len(next(iter(methods.values()))))})")
        axis.set_ylim(0, 1.02)
    axes[0][0].set_ylabel("Dice per image, native size")
    caption = "Dice of every test image at native size, all seeds. Boxes: quartiles; diamonds: means."
    return Drawn(figure, "Distribution of Dice", caption)


def prompt_worth(source: Source) -> Drawn | None:
    """The same weights under every prompt: what a prompt made from the truth is worth."""
    datasets = _datasets(source)
    prompts = ("none", "automatic", "automatic_masks", "oracle_click_1", "oracle_click_3", "oracle_box")
    present = [name for name in prompts if any(key[2] == name for key in source.store.segmentation)]
    if len(present) < 2:
        return None
    oracles = next((place for place, name in enumerate(present) if name.startswith("oracle")), len(present))
    figure, axes = new_figure(7.2, 3.6, 1, len(datasets), sharey=True)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        number = 0
        for name, runs in source.segmenters(dataset).items():
            values = [source.store.value(runs, "segmentation", dataset, "dice", prompt) for prompt in present]
            if sum(value is not None for value in values) < 2:
                continue
            axis.plot(
                range(len(present)),
                [np.nan if value is None else value.mean for value in values],
                marker=MARKERS[number % len(MARKERS)],
                color=PALETTE[number % len(PALETTE)],
                label=method_name(name),
            )
            number += 1
        if oracles < len(present):
            axis.axvspan(oracles - 0.5, len(present) - 0.5, color="#f2e6d9", zorder=0)
        axis.set_xticks(range(len(present)), [name.replace("_", " ") for name in present], rotation=30, ha="right")
        axis.set_title(dataset_name(dataset))
    legend_below(figure, axes[0][0])
    axes[0][0].set_ylabel("mean Dice, native size")
    caption = "The same weights under each prompt. Prompts on the shaded ground are made from the true mask."
    return Drawn(figure, "What a prompt is worth", caption)


def native_and_model_size(source: Source) -> Drawn | None:
    """Mean Dice scored at native size beside mean Dice scored at the model's size."""
    datasets = _datasets(source)
    if not datasets:
        return None
    figure, axes = new_figure(7.2, 3.2, 1, len(datasets), sharey=True)
    for axis, dataset in zip(axes[0], datasets, strict=True):
        methods = source.segmenters(dataset)
        for number, resolution in enumerate(("native", "model")):
            found = (
                source.store.value(runs, "segmentation", dataset, "dice", resolution=resolution)
                for runs in methods.values()
            )
            values = [np.nan if value is None else value.mean for value in found]
            places = np.arange(len(values)) + (number - 0.5) * 0.36
            bars = axis.bar(places, values, 0.34, color=PALETTE[number], label=f"{resolution} size")
            axis.bar_label(bars, fmt="%.3f", fontsize=6, rotation=90, padding=2)
        axis.set_xticks(range(len(methods)), [method_name(name) for name in methods], rotation=30, ha="right")
        axis.set_title(dataset_name(dataset))
        axis.set_ylim(0, 1.15)
        axis.set_yticks(np.linspace(0, 1, 6))
    axes[0][0].set_ylabel("mean Dice per image")
    legend_below(figure, axes[0][0])
    return Drawn(figure, "Dual scoring", "The same predictions scored at the photograph's own and at the model's size.")


def effects(source: Source) -> Drawn | None:
    """Forest plot: proposed minus other per image, with bootstrap intervals."""
    path = Layout(source.root).statistics("tests")
    tests = [row for row in read_csv(path) if row["level"] == "image" and row["ci_low"]] if path.is_file() else []
    if not tests:
        return None
    figure, axes = new_figure(7.2, 0.9 + 0.27 * len(tests))
    axis = axes[0][0]
    tests.sort(key=lambda row: (row["table"], row["dataset"], row["other"]), reverse=True)
    for place, test in enumerate(tests):
        middle, low, high = (100 * float(test[name]) for name in ("difference", "ci_low", "ci_high"))
        color = PALETTE[0] if test["table"] == "table_15" else PALETTE[1]
        axis.plot([low, high], [place, place], color=color, lw=1.6)
        axis.plot(middle, place, "s", color=color, ms=4)
    labels = [
        f"{dataset_name(test['dataset'])}, {metric_name(test['metric'])}:"
        f" {method_name(test['proposed'])} − {method_name(test['other'])}"
        for test in tests
    ]
    axis.set_yticks(range(len(tests)), labels, fontsize=7)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_xlabel("difference in percentage points")
    caption = "Mean difference over test images; 95 % BCa intervals from a bootstrap clustered by lesion."
    return Drawn(figure, "Effects", caption)
