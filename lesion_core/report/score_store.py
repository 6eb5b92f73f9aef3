"""The score stores in memory: a measure's value of each run, its mean and SD over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesion_core.catalog.human_reference import Reference, read_reference
from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, read_json
from lesion_core.paths import Layout
from lesion_core.report.measures import EXPLANATION_METRICS, Measure, classification_metrics, segmentation_metric
from lesion_core.scores import KEYS, read_scores

NOTHING = pd.DataFrame()
Groups = dict[tuple[str, ...], pd.DataFrame]


@dataclass(frozen=True)
class Value:
    """One metric of one method: mean over runs (seeds) of the run's value.

    Attributes:
        mean: fraction in [0, 1] (parameters: a count); NaN where a run's value is not defined (AUC of one class alone).
        sd: over runs, n - 1; NaN for one run.
        run_ids, per_run: the runs it came from, and their values.
        n_images: images each run was scored on.
    """

    mean: float
    sd: float
    run_ids: tuple[str, ...]
    per_run: tuple[float, ...]
    n_images: int


@dataclass
class Store:
    """The score store in memory: a frame of rows, sorted by image, for each run, dataset and so on.

    Attributes:
        segmentation: by (run_id, dataset, prompt, resolution).
        classification: by (run_id, dataset).
        explanations: by (run_id, dataset, explainer).
        parameters: run_id -> frozen and trainable parameters, where the run's provenance counts them.
        people: annotators' agreement on images of IMA++; empty where its tables are not here.
    """

    segmentation: Groups = field(default_factory=dict)
    classification: Groups = field(default_factory=dict)
    explanations: Groups = field(default_factory=dict)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)
    people: list[Reference] = field(default_factory=list)
    _computed: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, root: Path) -> Store:
        """Read both score files under ``root``, and what else there is (see the attributes).

        Raises:
            ScoreError: a file is missing or is no score table.
        """
        layout = Layout(root)
        store = cls.of(*(read_scores(layout.scores(kind), kind) for kind in ("segmentation", "classification")))
        explained = [row for path in sorted((layout.root / "explain").glob("*.csv")) for row in read_csv(path)]
        if explained:
            rows = pd.DataFrame(explained).astype(dict.fromkeys(EXPLANATION_METRICS, "float64"))
            store.explanations = _grouped(rows, ["run_id", "dataset", "explainer"])
        store.parameters = _parameters(layout)
        if layout.human_reference.is_file():
            store.people = read_reference(layout.human_reference)
        return store

    @classmethod
    def of(cls, segmentation: Iterable[Mapping[str, Any]], classification: Iterable[Mapping[str, Any]]) -> Store:
        """Group score rows."""
        lesions, classes = (
            _grouped(pd.DataFrame(rows), [key for key in KEYS[kind] if key != "image_id"])
            for kind, rows in (("segmentation", segmentation), ("classification", classification))
        )
        return cls(lesions, classes)

    def measure(self, run_ids: Iterable[str], measure: Measure) -> Value | None:
        """A measure's mean and SD over runs, one per seed; None where no run has it.

        Raises:
            ScoreError: the runs were scored on different images.
        """
        if measure.kind == "provenance":
            counts = {run: float(self.parameters[run][measure.metric]) for run in run_ids if run in self.parameters}
            return _over_runs(counts, 0) if counts else None
        scored = {run: rows for run in run_ids if len(rows := self.rows(run, measure))}
        if not scored:
            return None
        first = next(iter(scored.values()))["image_id"]
        for run, rows in scored.items():
            if list(rows["image_id"]) != list(first):
                raise ScoreError(
                    f"{run} was scored on other images of {measure.dataset} than the method's other seeds",
                    ids=sorted({*rows["image_id"]} ^ {*first}),
                    remedy="score all seeds again",
                )
        return _over_runs({run: self._of_run(run, rows, measure) for run, rows in scored.items()}, first.nunique())

    def rows(self, run_id: str, measure: Measure) -> pd.DataFrame:
        """The rows that one run's value is computed from, sorted by image; empty where the run was not scored so.

        Both prompts' rows of a difference.
        """
        if measure.kind == "classification":
            return self.classification.get((run_id, measure.dataset), NOTHING)
        if measure.kind == "explanation":
            return self.explanations.get((run_id, measure.dataset, str(measure.explainer)), NOTHING)
        own, other = (
            self.segmentation.get((run_id, measure.dataset, prompt, measure.resolution), NOTHING)
            for prompt in (measure.prompt, str(measure.minus))
        )
        if measure.minus is None or own.empty:
            return own
        return pd.concat([own, other]) if len(other) == len(own) else NOTHING

    def _of_run(self, run_id: str, rows: pd.DataFrame, measure: Measure) -> float:
        if measure.kind == "classification":
            return self.classified(run_id, measure.dataset)[measure.metric]
        if measure.kind == "explanation":
            return float(np.mean(rows[measure.metric].to_numpy()))
        if measure.minus is None:
            return segmentation_metric(rows, measure)
        half = len(rows) // 2
        return segmentation_metric(rows[:half], measure) - segmentation_metric(rows[half:], measure)

    def classified(self, run_id: str, dataset: str) -> dict[str, float]:
        """All classification metrics of a scored run, fractions; computed once."""
        key = (run_id, dataset)
        if key not in self._computed:
            self._computed[key] = classification_metrics(self.classification[key])
        return self._computed[key]


def _grouped(rows: pd.DataFrame, keys: list[str]) -> Groups:
    """Rows by key, sorted by image; keys in the order in which they come."""
    if rows.empty:
        return {}
    ordered = rows.sort_values("image_id", kind="stable")
    return {key: own.reset_index(drop=True) for key, own in ordered.groupby(keys, sort=False)}


def _over_runs(found: Mapping[str, float], n_images: int) -> Value:
    values = tuple(found.values())
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Value(float(np.mean(values)), sd, tuple(found), values, n_images)


def _parameters(layout: Layout) -> dict[str, dict[str, int]]:
    """Frozen and trainable parameters of every run that counts them."""
    found = {}
    for path in layout.run_files("provenance.json"):
        extra = read_json(path).get("extra", {})
        if "parameters" in extra:
            trainable = int(extra.get("trainable_parameters", extra["parameters"]))
            frozen = int(extra["parameters"]) - trainable
            found[path.parent.name] = {"frozen_parameters": frozen, "trainable_parameters": trainable}
    return found
