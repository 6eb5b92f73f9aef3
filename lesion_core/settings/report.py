"""Statistics, tables and the page."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.base import Dataset, Name, NotNegative, Prompt, RunId, Strict


class Statistics(Strict):
    """Tests and intervals."""

    alpha: Annotated[float, Field(gt=0.0, lt=1.0)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int
    power: Annotated[float, Field(gt=0.0, lt=1.0)]
    family: Annotated[list[Literal["table", "dataset", "metric", "level"]], Field(min_length=1)]
    segmentation_metric: Literal["dice", "iou"]
    segmentation_proposed: str
    classification_proposed: str

    @model_validator(mode="after")
    def _levels_stay_apart(self) -> Statistics:
        if "level" not in self.family:
            raise ValueError("family must name level: tests over seeds and tests over images are never mixed")
        if self.power <= self.alpha:
            raise ValueError("power must be greater than alpha")
        return self


class Ledger(Strict):
    """When a published number counts as reproduced."""

    tolerance_points: NotNegative
    tolerance_sds: NotNegative


class Report(Strict):
    """The page, and which tables are the main ones for ``dvc metrics``."""

    main_tables: list[Name]
    gallery_side: Annotated[int, Field(ge=48)]
    gallery_megabytes: NotNegative


class TableRow(Strict):
    """One row of a table: its label, the method that fills it, the paper's row beside it (None: of the same label);
    ``dataset``: another than the table's."""

    label: str
    method: Name
    published: str | None = None
    prompt: Prompt = "none"
    dataset: Dataset | None = None


class Table(Strict):
    """A table of a paper: which rows we fill, scored on which dataset."""

    title: str
    paper: Name
    published: Name
    task: Literal["segmentation", "classification", "both"]
    dataset: Dataset
    segmentation_dataset: Dataset | None = None
    metrics: Annotated[list[str], Field(min_length=1)]
    rows: list[TableRow]


class Plan(Strict):
    """What tables, statistics and figures need to know besides the scores.

    Attributes:
        profile: smoke, mini or paper.
        tables: as in params.yaml.
        runs: method name -> run ids, one per seed, for every method that this profile runs.
        ablations: ids of the runs that lie under ``runs/ablations``.
        statistics, ledger, report: as in params.yaml.
    """

    profile: str
    tables: dict[Name, Table]
    runs: dict[Name, list[RunId]]
    ablations: list[RunId] = Field(default_factory=list)
    statistics: Statistics
    ledger: Ledger
    report: Report

    @property
    def run_ids(self) -> set[str]:
        """Ids of all runs of the matrix."""
        return {run_id for runs in self.runs.values() for run_id in runs}
