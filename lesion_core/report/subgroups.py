"""Who is served worse: classification metrics by sex, age, site and how the diagnosis was confirmed, from scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import read_parquet, write_csv
from lesion_core.metrics.weighted import weighted_scores
from lesion_core.paths import Layout
from lesion_core.report.measures import lesion_of, truth_and_probabilities
from lesion_core.report.score_store import Store
from lesion_core.scores import read_scores
from lesion_core.settings import CLASSES, Plan, Subgroups
from lesion_core.stats.subgroups import Statistic, Subgroup, subgroup_metrics

COLUMNS = (
    "dataset", "method", "seeds", "attribute", "group", "metric", "n", "lesions", "value", "low", "high",
    "gap", "gap_low", "gap_high", "flagged", "note",
)  # fmt: skip
UNKNOWN = "unknown"
FIELDS = ("age", "sex", "site", "dx_type")
DOWNSAMPLED = "_downsampled"


def write_subgroups(root: Path, plan: Plan, settings: Subgroups) -> None:
    """Write ``statistics/subgroups.csv``; see ``subgroup_table``."""
    write_csv(Layout(Path(root)).statistics("subgroups"), COLUMNS, subgroup_table(root, plan, settings))


def subgroup_table(root: Path, plan: Plan, settings: Subgroups) -> list[dict[str, Any]]:
    """One row per dataset, method, subgroup and metric; numbers as text, empty where not defined.

    Values are means over the method's seeds, all seeds under the same resamples of lesions.
    """
    layout = Layout(Path(root))
    store = Store.of([], read_scores(layout.scores("classification"), "classification"))
    known = read_metadata(layout)
    rows: list[dict[str, Any]] = []
    for dataset in sorted({key[1] for key in store.classification}):
        for method in settings.methods:
            runs = [run for run in plan.runs.get(method, []) if (run, dataset) in store.classification]
            if not runs:
                continue
            scored = [store.classification[run, dataset] for run in runs]
            found = subgroup_metrics(
                attributes([known.get((dataset, row["image_id"]), {}) for row in scored[0]], settings.age_bands),
                [lesion_of(row) for row in scored[0]],
                mean_over_runs(scored),
                seed=plan.statistics.seed,
                resamples=settings.resamples,
                alpha=plan.statistics.alpha,
            )
            rows.extend({"dataset": dataset, "method": method, "seeds": len(runs), **_text(item)} for item in found)
    return rows


def read_metadata(layout: Layout) -> dict[tuple[str, str], dict[str, Any]]:
    """(dataset, image id) -> age, sex, site, dx_type; what a release leaves out is taken from another one's same id."""
    table = read_parquet(layout.catalog, needs=("dataset", "image_id"))
    fields = [name for name in FIELDS if name in table.schema.names]
    rows = table.select(["dataset", "image_id", *fields]).to_pylist()
    anywhere: dict[tuple[str, str], Any] = {}
    for row in rows:
        for name in fields:
            if row[name] is not None:
                anywhere.setdefault((row["image_id"].removesuffix(DOWNSAMPLED), name), row[name])
    return {
        (row["dataset"], row["image_id"]): {
            name: anywhere.get((row["image_id"].removesuffix(DOWNSAMPLED), name)) if row[name] is None else row[name]
            for name in fields
        }
        for row in rows
    }


def attributes(known: Sequence[Mapping[str, Any]], age_bands: Sequence[float]) -> dict[str, list[str]]:
    """Attribute -> group of each image; ``age_bands`` are the lower ends of the bands after the first, in years."""
    groups = {"age": [age_band(row.get("age"), age_bands) for row in known]}
    for name in ("sex", "site", "dx_type"):
        values = [row.get(name) or UNKNOWN for row in known]
        if set(values) != {UNKNOWN}:
            groups[name] = values
    return groups


def age_band(age: float | None, bands: Sequence[float]) -> str:
    """``0-29``, ``30-44``, ..., ``75+`` for bands [30, 45, ..., 75]."""
    if age is None:
        return UNKNOWN
    place = int(np.searchsorted(bands, age, side="right"))
    if place == len(bands):
        return f"{bands[-1]:g}+"
    return f"{bands[place - 1] if place else 0:g}-{bands[place] - 1:g}"


def mean_over_runs(scored: Sequence[Sequence[Mapping[str, Any]]]) -> Statistic:
    """What `subgroup_metrics` asks for: every metric of many weightings of some images, mean over runs.

    Args:
        scored: score rows of each run, the same images in the same order.
    """
    runs = [truth_and_probabilities(part) for part in scored]
    melanoma = CLASSES.index("mel")

    def statistic(members: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        parts = [weighted_scores(truth[members], p[members], weights, melanoma) for truth, p in runs]
        return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}

    return statistic


def _text(item: Subgroup) -> dict[str, Any]:
    values = asdict(item)
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = "" if math.isnan(value) else f"{value:.6f}"
    return values | {"flagged": "yes" if item.flagged else ""}
