"""Metrics of runs, computed from score rows and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import ScoreError, SettingsError
from lesion_core.paths import Layout
from lesion_core.scores import read_scores
from lesion_core.settings import CLASSES

SEGMENTATION_METRICS = ("dice", "iou", "sensitivity", "specificity", "accuracy")
LESION_METRICS = ("dice", "iou")  # in a table of both tasks, these come from the segmentation scores
FRACTIONS = ("auc", "brier", "ece")  # printed as fractions where no paper prints them; everything else in per cent
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
)
SCALE = {"percent": 100.0, "fraction": 1.0}
DECIMALS = {"percent": 2, "fraction": 4}  # both are hundredths of a percentage point


@dataclass(frozen=True)
class Value:
    """One metric of one method: mean over runs (seeds) of the run's value.

    Attributes:
        mean: fraction in [0, 1]; NaN where a run's value is not defined (AUC of one class alone).
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
    """

    segmentation: dict[tuple[str, str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    classification: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    _computed: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, root: Path) -> Store:
        """Read both score files under ``root``.

        Raises:
            ScoreError: a file is missing or is no score table.
        """
        layout = Layout(root)
        return cls.of(
            read_scores(layout.scores("segmentation"), "segmentation"),
            read_scores(layout.scores("classification"), "classification"),
        )

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
        """A metric's mean and SD over runs; None where no run was scored so.

        Args:
            run_ids: one per seed.
            task: ``segmentation``, ``classification``, or ``both`` (Dice and IoU then come from segmentation).
            dataset, metric: as in the scores and `metrics`.
            prompt, resolution: of segmentation scores.

        Raises:
            ScoreError: the runs were scored on different images.
        """
        lesions = task == "segmentation" or (task == "both" and metric in LESION_METRICS)
        found: dict[str, float] = {}
        images: list[str] | None = None
        for run_id in run_ids:
            if lesions:
                rows = self.segmentation.get((run_id, dataset, prompt, resolution), [])
            else:
                rows = self.classification.get((run_id, dataset), [])
            if not rows:
                continue
            own = [row["image_id"] for row in rows]
            images = own if images is None else images
            if own != images:
                raise ScoreError(
                    f"{run_id} was scored on other images of {dataset} than the method's other seeds",
                    ids=sorted(set(own) ^ set(images)),
                    remedy="score all seeds again",
                )
            found[run_id] = (
                float(np.mean([row[metric] for row in rows])) if lesions else self.classified(run_id, dataset)[metric]
            )
        if images is None:
            return None
        values = tuple(found.values())
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return Value(float(np.mean(values)), sd, tuple(found), values, len(images))

    def classified(self, run_id: str, dataset: str) -> dict[str, float]:
        """All classification metrics of a scored run, fractions; computed once."""
        key = (run_id, dataset)
        if key not in self._computed:
            self._computed[key] = classification_metrics(self.classification[key])
        return self._computed[key]


def truth_and_probabilities(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (N,) int64 and probabilities (N, 7) float64 of classification score rows."""
    truth = np.array([CLASSES.index(row["label"]) for row in rows], dtype=np.int64)
    probabilities = np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows], dtype=np.float64)
    return truth, probabilities


def classification_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """All classification metrics of one run on one dataset, fractions."""
    from lesion_core.metrics.calibration import brier, ece
    from lesion_core.metrics.classification import scores

    truth, probabilities = truth_and_probabilities(rows)
    return {
        **scores(truth, probabilities, melanoma=CLASSES.index("mel")),
        "brier": brier(truth, probabilities),
        "ece": ece(truth, probabilities),
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
    return units[0] if units else ("fraction" if metric in FRACTIONS else "percent")
