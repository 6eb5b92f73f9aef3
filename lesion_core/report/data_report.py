"""The data report as products of their own: a table and figures of what the catalog found, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lesion_core.acquire.images import read_image
from lesion_core.catalog.table import read_images
from lesion_core.files import read_json, write_csv
from lesion_core.paths import Layout
from lesion_core.report.figures.style import Drawn, colour, heatmap, legend_below, new_figure, panels
from lesion_core.report.formats import dataset_name
from lesion_core.settings import CLASSES

FIELDS = {"label": "class", "lesion_id": "lesion id", "age": "age", "sex": "sex", "site": "site", "mask_path": "mask"}
CHANNELS = ("red", "green", "blue")
NO_LABEL = "none"
LARGE = 10  # images; few lesions have more images, so a larger group may be a false join
MOST = 100  # images on the sheet of large groups


def write_data_report(root: Path) -> None:
    """Write ``protocols/overview.csv``, and overview, colours and large_groups as ``.pdf`` and ``.png``.

    Reads the catalog, the images of large groups and ``protocols/colours.json``.
    """
    layout = Layout(root)
    folder = layout.colours.parent
    report, colours = read_json(layout.data_report), read_json(layout.colours)
    rows = overview(report)
    write_csv(folder / "overview.csv", list(rows[0]), rows)
    draw_overview(report).save(folder, "overview")
    draw_colours(colours).save(folder, "colours")
    draw_large_groups(read_images(layout.catalog), root).save(folder, "large_groups")


def overview(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per dataset: images, lesions, masks, sizes, images per class, missing values, problems by kind."""
    problems = Counter((problem["dataset"], problem["kind"]) for problem in report["problems"])
    kinds = sorted({kind for _, kind in problems})
    rows = []
    for name, part in sorted(report["datasets"].items()):
        row = {"dataset": name, **{key: part[key] for key in ("images", "lesions", "masks")}}
        row["sizes"] = part["sizes"]["different"]
        row["commonest_size"] = max(part["sizes"]["common"].items(), key=lambda item: item[1])[0]
        row |= {f"class_{label}": part["labels"].get(label, 0) for label in CLASSES}
        row |= {f"missing_{field}": part["missing"].get(field, 0) for field in FIELDS}
        rows.append(row | {f"problem_{kind}": problems[name, kind] for kind in kinds})
    return rows


def draw_overview(report: Mapping[str, Any]) -> Drawn:
    """Images per class, sizes, missing values and problems, one colour per dataset."""
    datasets = dict(sorted(report["datasets"].items()))
    figure, axes = new_figure(7.2, 5.6, 2, 2)
    _classes(axes[0, 0], datasets)
    _sizes(axes[0, 1], datasets)
    _missing(axes[1, 0], datasets)
    _problems(axes[1, 1], datasets, report["problems"])
    legend_below(figure, axes[0, 0], columns=4)
    caption = (
        "Images per class (none: the release gives no class), the most common image sizes (area of a dot: number"
        " of images), share of images without a value, and files that were handled by a rule, by kind."
    )
    return Drawn(figure, "The data", caption)


def draw_colours(colours: Mapping[str, Any]) -> Drawn:
    """Mean colour histograms of each dataset's training images, as released and as harmonized."""
    profiles = dict(sorted(colours["profiles"].items()))
    figure, axes = new_figure(7.2, 3.8, 2, 3, sharex=True)
    levels = np.arange(256)
    for line, (when, title) in enumerate((("before", "as released"), ("after", "harmonized"))):
        for column, channel in enumerate(CHANNELS):
            axis = axes[line, column]
            for number, (name, profile) in enumerate(profiles.items()):
                shares = 100 * np.asarray(profile[when][column])
                axis.plot(levels, shares, lw=1, color=colour(number), label=dataset_name(name))
            axis.set_ylim(bottom=0)
            if line == 0:
                axis.set_title(channel)
            else:
                axis.set_xlabel("level")
        axes[line, 0].set_ylabel(f"{title}\n% of pixels")
    legend_below(figure, axes[0, 0], columns=4)
    return Drawn(figure, "Colours before and after harmonization", _distance_text(colours))


def draw_large_groups(images: Sequence[Mapping[str, Any]], root: Path) -> Drawn:
    """Contact sheet of the groups of more than ``LARGE`` images, to see whether they show one lesion.

    Args:
        images: rows of the catalog.
        root: their paths are relative to it.
    """
    sizes = Counter(row["group_id"] for row in images)
    large = [group for group, size in sizes.most_common() if size > LARGE]
    members = sorted(
        (row for row in images if sizes[row["group_id"]] > LARGE),
        key=lambda row: (-sizes[row["group_id"]], row["group_id"], row["dataset"], row["image_id"]),
    )
    shown = members[:MOST]
    figure, axes = panels(max(1, len(shown)), 8, 0.9, 0.9)
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, shown, strict=False):
        axis.imshow(read_image(root / row["path"], at_least=150))
        axis.set_title(row["image_id"], fontsize=5, color=colour(large.index(row["group_id"])))
    caption = f"Groups of more than {LARGE} images: {len(large)}"
    if not shown:
        axes[0].text(0.5, 0.5, "none", ha="center", va="center")
    else:
        caption += f"; {len(shown)} of their {len(members)} images, a colour per group"
    return Drawn(figure, "Large groups", f"{caption}.")


def _distance_text(colours: Mapping[str, Any]) -> str:
    text = "Mean colour histograms of each dataset's training images."
    if not colours["pairs"]:
        return text
    mean = colours["mean"]
    return (
        f"{text} Distance between datasets (Wasserstein-1, mean over channels and {len(colours['pairs'])} pairs):"
        f" {mean['before']:.1f} grey levels before, {mean['after']:.1f} after."
    )


def _classes(axis: Axes, datasets: Mapping[str, Any]) -> None:
    names = [*CLASSES, NO_LABEL]
    width = 0.8 / len(datasets)
    for number, (name, part) in enumerate(datasets.items()):
        counts = [part["labels"].get(label, 0) for label in CLASSES] + [part["missing"].get("label", 0)]
        places = np.arange(len(names)) + (number - (len(datasets) - 1) / 2) * width
        axis.bar(places, counts, width, color=colour(number), label=dataset_name(name))
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_ylabel("images")
    axis.set_title("Images per class")


def _sizes(axis: Axes, datasets: Mapping[str, Any]) -> None:
    most = max(count for part in datasets.values() for count in part["sizes"]["common"].values())
    for number, part in enumerate(datasets.values()):
        sizes = [[int(side) for side in size.split(" x ")] for size in part["sizes"]["common"]]
        dots = [20 + 180 * count / most for count in part["sizes"]["common"].values()]
        width, height = np.array(sizes).T
        axis.scatter(width, height, s=dots, facecolors="none", edgecolors=colour(number), lw=1.5)
    axis.margins(0.2)
    axis.set_xlabel("width in pixels")
    axis.set_ylabel("height in pixels")
    axis.set_title("Sizes")


def _missing(axis: Axes, datasets: Mapping[str, Any]) -> None:
    shares = np.array([[part["missing"].get(key, 0) / part["images"] for key in FIELDS] for part in datasets.values()])
    texts = np.char.mod("%.0f", 100 * shares)
    heatmap(axis, shares, texts, [dataset_name(name) for name in datasets], list(FIELDS.values()))
    axis.set_title("Images without a value, %")


def _problems(axis: Axes, datasets: Mapping[str, Any], problems: Sequence[Any]) -> None:
    counts = Counter((problem["kind"], problem["dataset"]) for problem in problems)
    kinds = sorted({kind for kind, _ in counts}, reverse=True)
    axis.set_title("Handled by a rule")
    if not kinds:
        axis.text(0.5, 0.5, "no problem was found", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    left = np.zeros(len(kinds))
    for number, name in enumerate(datasets):
        own = np.array([counts[kind, name] for kind in kinds])
        axis.barh(range(len(kinds)), own, 0.5, left=left, color=colour(number))
        left += own
    axis.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axis.set_ylim(-1, len(kinds))
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_xlabel("files")
