"""Metrics of runs, computed from score rows and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import ScoreError, SettingsError
from lesion_core.files import read_csv, read_json
from lesion_core.metrics.calibration import brier, ece, log_probabilities, softmax
from lesion_core.metrics.classification import scores
from lesion_core.paths import Layout
from lesion_core.report.measures import EXPLANATION_METRICS, PARAMETERS, Measure, kind_of, segmentation_metric
from lesion_core.scores import read_scores
from lesion_core.settings import CLASSES

SEGMENTATION_METRICS = ("dice", "iou", "sensitivity", "specificity", "accuracy")
FRACTIONS = (
    "auc",
    "brier",
    "ece",
    "brier_calibrated",
    "ece_calibrated",
    "temperature",
)  # printed as fractions where no paper prints them; everything else in per cent
RANKED = (  # metrics of which the greatest is the best; a best value is marked for these alone
    "dice",
    "iou",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "pointing_game",
    "energy_inside",
)
SCALE = {"percent": 100.0, "fraction": 1.0, "million": 1e-6}
DECIMALS = {"percent": 2, "fraction": 4, "million": 2}  # the first two are hundredths of a percentage point


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
    """

    segmentation: dict[tuple[str, str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    classification: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    explanations: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)
    _computed: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, root: Path) -> Store:
        """Read both score files under ``root``, and explanations and parameter counts where there are any.

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
        return store

    @classmethod
    def of(cls, segmentation: Iterable[Mapping[str, Any]], classification: Iterable[Mapping[str, Any]]) -> Store:
        """Group score rows."""
        lesions: dict[Any, list] = defaultdict(list)
        classes: dict[Any, list] = defaultdict(list)
        for row in segmentation:
            lesions[row["run_id"], row["dataset"], row["prompt"], row["resolution"]].append(row)
        for row in classification:
            classes[row["run_id"], row["dataset"]].append(row)
        for group in (*lesions.values(), *classes.values()):
            group.sort(key=lambda row: row["image_id"])
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

    def rows(self, run_id: str, measure: Measure) -> list[dict[str, Any]]:
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

    def _of_run(self, run_id: str, rows: list[dict[str, Any]], measure: Measure) -> float:
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


def truth_and_probabilities(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (N,) int64 and probabilities (N, 7) float64 of classification score rows."""
    truth = np.array([CLASSES.index(row["label"]) for row in rows], dtype=np.int64)
    probabilities = np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows], dtype=np.float64)
    return truth, probabilities


def classification_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """All classification metrics of one run on one dataset, fractions; ``*_calibrated``: at the run's temperature.

    Raises:
        ScoreError: the rows have several temperatures, so they are not of one run.
    """
    truth, probabilities = truth_and_probabilities(rows)
    temperatures = {row["temperature"] for row in rows}
    if len(temperatures) > 1:
        raise ScoreError("One run's scores have several temperatures", ids=[rows[0]["run_id"]], remedy="score it again")
    calibrated = softmax(log_probabilities(probabilities), temperatures.pop())
    return {
        **scores(truth, probabilities, melanoma=CLASSES.index("mel")),
        "brier": brier(truth, probabilities),
        "ece": ece(truth, probabilities),
        "brier_calibrated": brier(truth, calibrated),
        "ece_calibrated": ece(truth, calibrated),
        "temperature": float(rows[0]["temperature"]),
    }


def column_unit(metric: str, printed: Iterable[str]) -> str:
    """The unit of a table's column: the paper's where it prints the metric, so that its numbers stand as printed.

    Args:
        metric: the column.
        printed: units of the published numbers of that column.

    Raises:
        SettingsError: the paper prints the column in two units.
    """
    units = sorted(set(printed))
    if len(units) > 1:
        raise SettingsError(f"{metric} is published in two units in one table: {', '.join(units)}")
    if units:
        return units[0]
    return "million" if metric in PARAMETERS else "fraction" if metric in FRACTIONS else "percent"
