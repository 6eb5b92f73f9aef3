"""Audit of pseudo-masks: Dice and IoU against published masks, image by image, by class, site and split.

A scoring stage: it opens the true masks of test images, and nothing that trains reads what it writes.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.acquire.images import read_mask
from lesion_core.catalog.entries import files_of
from lesion_core.errors import MaskError, ScoreError
from lesion_core.files import read_csv, write_csv
from lesion_core.inference.refine import upsample
from lesion_core.metrics.segmentation import confusion, scores
from lesion_core.paths import Layout
from lesion_core.pixels.pseudo_masks import read_pseudo_masks
from lesion_core.progress import track
from lesion_core.settings import Statistics
from lesion_core.settings.run import Run
from lesion_core.stats.bootstrap import bootstrap_means

IMAGE_COLUMNS = ("image_id", "lesion_id", "split", "label", "site", "dice", "iou", "components", "confidence", "flags")
SUMMARY_COLUMNS = (
    "segmenter_run", "dataset", "split", "attribute", "group", "n", "lesions",
    "dice", "dice_low", "dice_high", "iou", "iou_low", "iou_high", "flagged", "notes",
)  # fmt: skip
ALL = "all"
ATTRIBUTES = (ALL, "label", "site")
UNKNOWN = "unknown"


def audit_pseudo_masks(run: Run, dataset: str, root: Path, statistics: Statistics) -> None:
    """Write ``audit.csv`` (one row per image with a true mask) and ``audit_summary.csv`` beside the pseudo-masks.

    Args:
        run: the segmentation run; truth is brought to its side (half a pixel or more counts as lesion).
        dataset: whose pseudo-masks; it must publish masks.
        statistics: level, resamples and seed of the intervals, which resample lesions.

    Raises:
        MaskError: there are no pseudo-masks, they are of other images, or no true mask is published.
    """
    layout = Layout(Path(root))
    run_id, size = run.run_id, run.segmentation.model.image_size
    folder = layout.pseudo_masks(run_id, dataset)
    rows = _images(layout, folder, layout.pixels(run.pixels, dataset, size), dataset, size)
    write_csv(folder / "audit.csv", IMAGE_COLUMNS, [{**row, **_printed(row)} for row in rows])
    summary = [
        {"segmenter_run": run_id, "dataset": dataset, **line}
        for split in (ALL, "train", "val", "test")
        for line in summarise([row for row in rows if split in (ALL, row["split"])], split, statistics)
    ]
    write_csv(folder / "audit_summary.csv", SUMMARY_COLUMNS, summary)


def _images(layout: Layout, folder: Path, pixels: Path, dataset: str, size: int) -> list[dict[str, Any]]:
    index = [{"dataset": dataset, **entry} for entry in read_csv(pixels / "index.csv")]
    masks = read_pseudo_masks(folder, index, dataset, "masks.npy")
    truths = files_of(layout, dataset, "mask_path")
    if not truths:
        raise MaskError(f"{dataset} publishes no masks to audit against", file=layout.catalog)
    lines, found = read_csv(folder / "masks.csv"), []
    for mask, line, entry in track(zip(masks, lines, index, strict=True), f"audit {dataset}", len(index)):
        if entry["image_id"] not in truths:
            continue
        truth = read_mask(truths[entry["image_id"]], (int(entry["height"]), int(entry["width"])))
        small = upsample(truth.astype(np.float32), size, size) >= 0.5
        values = scores(confusion(mask >= 128, small))
        kept = {key: entry[key] for key in ("image_id", "lesion_id", "split", "label", "site")}
        told = {key: line[key] for key in ("components", "confidence", "flags")}
        found.append({**kept, **told, "dice": float(values["dice"]), "iou": float(values["iou"])})
    return found


def summarise(rows: list[dict[str, Any]], split: str, statistics: Statistics) -> list[dict[str, Any]]:
    """Mean Dice and IoU of all rows, by class and by site, with BCa intervals over lesions where there are two."""
    lines = []
    for attribute in ATTRIBUTES:
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[ALL if attribute == ALL else row[attribute] or UNKNOWN].append(row)
        for group, members in sorted(groups.items()):
            lesions = [row["lesion_id"] or row["image_id"] for row in members]
            line = {
                "split": split,
                "attribute": attribute,
                "group": group,
                "n": len(members),
                "lesions": len(set(lesions)),
                "flagged": sum(bool(row["flags"]) for row in members),
            }
            lines.append(line | _intervals(members, lesions, statistics))
    return lines


def _intervals(members: list[dict[str, Any]], lesions: list[str], statistics: Statistics) -> dict[str, Any]:
    values = np.array([[row["dice"], row["iou"]] for row in members])
    found: dict[str, Any] = {"dice": f"{values[:, 0].mean():.6f}", "iou": f"{values[:, 1].mean():.6f}"}
    try:
        result = bootstrap_means(
            values,
            lesions,
            seed=statistics.seed,
            resamples=statistics.resamples,
            level=1.0 - statistics.alpha,
        )
    except ScoreError as error:
        return found | {"notes": error.message}
    for place, name in enumerate(("dice", "iou")):
        found[f"{name}_low"] = f"{result.low[place]:.6f}"
        found[f"{name}_high"] = f"{result.high[place]:.6f}"
    return found | {"notes": "; ".join(result.notes)}


def _printed(row: dict[str, Any]) -> dict[str, str]:
    return {name: f"{row[name]:.6f}" for name in ("dice", "iou")}
