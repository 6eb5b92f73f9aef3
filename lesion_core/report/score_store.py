"""The score stores in memory: a measure's value of each run, its mean and SD over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.catalog.human_reference import Reference, read_reference
from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, read_json
from lesion_core.paths import Layout
from lesion_core.report.measures import (
    EXPLANATION_METRICS,
    Measure,
    Rows,
    classification_metrics,
    kind_of,
    segmentation_metric,
)
from lesion_core.scores import ClassificationScore, SegmentationScore, read_scores


@dataclass(frozen=True)
class Value:
    """One metric of one method: mean over runs (seeds) of the run's value.

    Attributes:
        mean: fraction in [0, 1] (parameters: a count); NaN where a run's value is not defined (AUC of one class alone).
        sd: over runs, n - 1; NaN for one run.
        run_ids: the runs it came from.
        per_run: the runs' values, in that order.
        n_images: images each run was scored on.
    """

    mean: float
    sd: float
    run_ids: tuple[str, ...]
    per_run: tuple[float, ...]
    n_images: int


@dataclass
class Store:
    """The score store in memory, grouped by run and dataset.

    Attributes:
        segmentation: (run_id, dataset, prompt, resolution) -> rows sorted by image.
        classification: (run_id, dataset) -> rows sorted by image.
        explanations: (run_id, dataset, explainer) -> rows sorted by image.
        parameters: run_id -> frozen and trainable parameters, where the run's provenance counts them.
        people: annotators' agreement on images of IMA++; empty where its tables are not here.
    """

    segmentation: dict[tuple[str, str, str, str], list[SegmentationScore]] = field(default_factory=dict)
    classification: dict[tuple[str, str], list[ClassificationScore]] = field(default_factory=dict)
    explanations: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
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
        store = cls.of(
            read_scores(layout.scores("segmentation"), "segmentation"),
            read_scores(layout.scores("classification"), "classification"),
        )
        store.explanations.update(_explanations(layout))
        store.parameters.update(_parameters(layout))
        if layout.human_reference.is_file():
            store.people = read_reference(layout.human_reference)
        return store

    @classmethod
    def of(cls, segmentation: Iterable[SegmentationScore], classification: Iterable[ClassificationScore]) -> Store:
        """Group score rows."""
        lesions: dict[Any, list[SegmentationScore]] = defaultdict(list)
        classes: dict[Any, list[ClassificationScore]] = defaultdict(list)
        for lesion in sorted(segmentation, key=lambda row: row["image_id"]):
            lesions[lesion["run_id"], lesion["dataset"], lesion["prompt"], lesion["resolution"]].append(lesion)
        for row in sorted(classification, key=lambda row: row["image_id"]):
            classes[row["run_id"], row["dataset"]].append(row)
        return cls(dict(lesions), dict(classes))

    def value(
        self,
        run_ids: Iterable[str],
        task: str,
        dataset: str,
        metric: str,
        prompt: str = "none",
        resolution: str = "native",
    ) -> Value | None:
        """A metric's mean and SD over runs; None where no run was scored so. See `measure`.

        Args:
            run_ids: one per seed.
            task: ``segmentation``, ``classification``, or ``both`` (Dice and IoU then come from segmentation).
            dataset, metric: as in the scores and `metrics`.
            prompt, resolution: of segmentation scores.
        """
        return self.measure(run_ids, Measure(kind_of(task, metric), dataset, metric, prompt, resolution))

    def measure(self, run_ids: Iterable[str], measure: Measure) -> Value | None:
        """A measure's mean and SD over runs; None where no run has it.

        Args:
            run_ids: one per seed.
            measure: what, and how.

        Raises:
            ScoreError: the runs were scored on different images.
        """
        if measure.kind == "provenance":
            counts = {run: float(self.parameters[run][measure.metric]) for run in run_ids if run in self.parameters}
            return _over_runs(counts, 0) if counts else None
        found: dict[str, float] = {}
        images: list[str] | None = None
        for run_id in run_ids:
            rows = self.rows(run_id, measure)
            if not rows:
                continue
            own = [row["image_id"] for row in rows]
            images = own if images is None else images
            if own != images:
                raise ScoreError(
                    f"{run_id} was scored on other images of {measure.dataset} than the method's other seeds",
                    ids=sorted(set(own) ^ set(images)),
                    remedy="score all seeds again",
                )
            found[run_id] = self._of_run(run_id, rows, measure)
        return None if images is None else _over_runs(found, len(set(images)))

    def rows(self, run_id: str, measure: Measure) -> Rows:
        """The rows that one run's value is computed from, sorted by image; empty where the run was not scored so.

        Both prompts' rows of a difference.
        """
        if measure.kind == "classification":
            return self.classification.get((run_id, measure.dataset), [])
        if measure.kind == "explanation":
            return self.explanations.get((run_id, measure.dataset, str(measure.explainer)), [])
        key = (run_id, measure.dataset, measure.prompt, measure.resolution)
        own = self.segmentation.get(key, [])
        if measure.minus is None or not own:
            return own
        other = self.segmentation.get((run_id, measure.dataset, measure.minus, measure.resolution), [])
        return [*own, *other] if len(other) == len(own) else []

    def _of_run(self, run_id: str, rows: Rows, measure: Measure) -> float:
        if measure.kind == "classification":
            return self.classified(run_id, measure.dataset)[measure.metric]
        if measure.kind == "explanation":
            return float(np.mean([row[measure.metric] for row in rows]))
        if measure.minus is not None:
            half = len(rows) // 2
            first, second = (segmentation_metric(part, measure) for part in (rows[:half], rows[half:]))
            return first - second
        return segmentation_metric(rows, measure)

    def classified(self, run_id: str, dataset: str) -> dict[str, float]:
        """All classification metrics of a scored run, fractions; computed once."""
        key = (run_id, dataset)
        if key not in self._computed:
            self._computed[key] = classification_metrics(self.classification[key])
        return self._computed[key]


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


def _explanations(layout: Layout) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Rows of every ``explain/<run_id>.csv``, numbers as float64."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((layout.root / "explain").glob("*.csv")):
        for row in read_csv(path):
            numbers = {name: float(row[name]) for name in EXPLANATION_METRICS}
            groups[row["run_id"], row["dataset"], row["explainer"]].append({**row, **numbers})
    for group in groups.values():
        group.sort(key=lambda row: row["image_id"])
    return dict(groups)
