"""Who is served worse: classification metrics by sex, age, site and how the diagnosis was confirmed, from scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesion_core.files import read_parquet
from lesion_core.metrics.weighted import weighted_scores
from lesion_core.paths import Layout
from lesion_core.report.formats import write_rows
from lesion_core.report.measures import MELANOMA, lesions_of, truth_and_probabilities
from lesion_core.report.score_store import Store
from lesion_core.scores import read_scores
from lesion_core.settings import Plan, Subgroups
from lesion_core.stats.subgroups import Statistic, Subgroup, subgroup_metrics

COLUMNS = (
    *("dataset", "method", "seeds", "attribute", "group", "metric", "n", "lesions", "value", "low", "high"),
    *("gap", "gap_low", "gap_high", "flagged", "note"),
)
UNKNOWN = "unknown"
FIELDS = ("age", "sex", "site", "dx_type")
FIELD = "field"  # of view: a square image of a release of wide ones is a crop
DOWNSAMPLED = "_downsampled"


def write_subgroups(root: Path, plan: Plan, settings: Subgroups) -> None:
    """Write ``statistics/subgroups.csv``: one row per dataset, method, subgroup and metric; empty where not defined.

    Values are means over the method's seeds, all seeds under the same resamples of lesions.
    """
    layout = Layout(Path(root))
    store = Store.of([], read_scores(layout.scores("classification"), "classification"))
    known = read_metadata(layout)
    rows: list[dict[str, Any]] = []
    for dataset in sorted({key[1] for key in store.classification}):
        for method in settings.methods:
            runs = plan.runs.get(method, [])
            scored = [store.classification[run, dataset] for run in runs if (run, dataset) in store.classification]
            if not scored:
                continue
            images = [(dataset, image_id) for image_id in scored[0]["image_id"]]
            found = subgroup_metrics(
                attributes(known.reindex(images), settings.age_bands),
                list(lesions_of(scored[0])),
                mean_over_runs(scored),
                seed=plan.statistics.seed,
                resamples=settings.resamples,
                alpha=plan.statistics.alpha,
            )
            rows.extend({"dataset": dataset, "method": method, "seeds": len(scored), **_text(item)} for item in found)
    write_rows(layout.statistics("subgroups"), COLUMNS, rows, plan)


def read_metadata(layout: Layout) -> pd.DataFrame:
    """Age, sex, site, dx_type and field of view by (dataset, image id), None where unknown.

    What a release leaves out is taken from another one's same id.
    """
    table = read_parquet(layout.catalog, needs=("dataset", "image_id")).to_pandas()
    fields = table.reindex(columns=FIELDS).astype(object)
    same_image = table["image_id"].str.removesuffix(DOWNSAMPLED)
    fields = fields.fillna(fields.groupby(same_image).transform("first"))
    fields = fields.where(fields.notna(), None)
    width, height = (table.reindex(columns=[side])[side] for side in ("width", "height"))
    fields[FIELD] = np.where(width == height, "square", "not square")
    return fields.set_index(pd.MultiIndex.from_frame(table[["dataset", "image_id"]]))


def attributes(known: pd.DataFrame, age_bands: Sequence[float]) -> dict[str, list[str]]:
    """Attribute -> group of each image; ``age_bands`` are the lower ends of the bands after the first, in years."""
    groups = {"age": [age_band(age, age_bands) for age in known["age"]]}
    for name in FIELDS[1:]:
        values = list(known[name].fillna(UNKNOWN))
        if set(values) != {UNKNOWN}:
            groups[name] = values
    if known[FIELD].nunique() > 1:
        groups[FIELD] = list(known[FIELD].fillna(UNKNOWN))
    return groups


def age_band(age: float | None, bands: Sequence[float]) -> str:
    """``0-29``, ``30-44``, ..., ``75+`` for bands [30, 45, ..., 75]."""
    if age is None or math.isnan(age):
        return UNKNOWN
    place = int(np.searchsorted(bands, age, side="right"))
    if place == len(bands):
        return f"{bands[-1]:g}+"
    return f"{bands[place - 1] if place else 0:g}-{bands[place] - 1:g}"


def mean_over_runs(scored: Sequence[pd.DataFrame]) -> Statistic:
    """What `subgroup_metrics` asks for: every metric of many weightings of some images, mean over runs.

    Args:
        scored: score rows of each run, the same images in the same order.
    """
    runs = [truth_and_probabilities(part) for part in scored]

    def statistic(members: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        parts = [weighted_scores(truth[members], p[members], weights, MELANOMA) for truth, p in runs]
        return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}

    return statistic


def _text(item: Subgroup) -> dict[str, Any]:
    values = {
        name: ("" if math.isnan(value) else f"{value:.6f}") if isinstance(value, float) else value
        for name, value in asdict(item).items()
    }
    return values | {"flagged": "yes" if item.flagged else ""}
