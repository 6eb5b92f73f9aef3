"""Statistics, tables and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.base import Name, NotNegative, Prompt, RunId, Strict
from lesion_core.settings.paper import Claim, Contradiction, Figure, Reference, Table, TestTable
from lesion_core.settings.protocols import Home


class Statistics(Strict):
    """Tests and intervals."""

    alpha: Annotated[float, Field(gt=0.0, lt=1.0)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int
    power: Annotated[float, Field(gt=0.0, lt=1.0)]
    segmentation_metric: Literal["dice", "iou"]

    @model_validator(mode="after")
    def _can_be_shown(self) -> Statistics:
        if self.power <= self.alpha:
            raise ValueError("power must be greater than alpha")
        return self


class Ledger(Strict):
    """When a published number counts as reproduced."""

    tolerance_points: NotNegative


class Report(Strict):
    """The page, and which tables are the main ones for ``dvc metrics``."""

    gallery_side: Annotated[int, Field(ge=48)]
    gallery_megabytes: NotNegative


class Plan(Strict):
    """What tables, statistics and figures need to know besides the scores.

    Attributes:
        profile: smoke, mini, rehearsal or paper.
        rehearsed: a few steps of one run of each kind, which stands for the others: no number is a result.
        tables: of the papers that are asked for.
        papers, claims, contradictions: of these papers: where they stand, numbers of their prose, by paper.
        tests: tables of tests, by name.
        runs: method name -> run ids, one per seed, for every method that this profile runs.
        as_published: method name -> ids of its runs under its paper's own split, where it has such.
        names: method name -> as it is called in print.
        trained_on: method name -> task -> the datasets that it is learnt from, none where nothing is.
        figures: of these papers, by name.
        prompts: method name -> the prompt that it was trained with, if any; its masks are kept and shown under it.
        protocols: folder of pixels that runs see -> folder of their split tables, both ``<protocol>/<rule>``.
        figure_segmenter: the segmenter that our own figures show beside others.
        ablations: ids of the runs that lie under ``runs/ablations``.
        statistics, ledger, report: as in params.yaml.
    """

    profile: str
    rehearsed: bool = False
    tables: dict[Name, Table]
    papers: dict[Name, Reference]
    claims: dict[Name, list[Claim]]
    contradictions: dict[Name, list[Contradiction]]
    tests: dict[Name, TestTable]
    runs: dict[Name, list[RunId]]
    as_published: dict[Name, list[RunId]] = Field(default_factory=dict)
    names: dict[Name, str]
    trained_on: dict[Name, dict[str, list[str]]]
    figures: dict[Name, Figure] = Field(default_factory=dict)
    prompts: dict[Name, Prompt] = Field(default_factory=dict)
    protocols: dict[Home, Home]
    figure_segmenter: Name | None
    ablations: list[RunId] = Field(default_factory=list)
    statistics: Statistics
    ledger: Ledger
    report: Report

    @property
    def main_splits(self) -> str:
        """The folder of the leak-free split tables, or of the first where nothing runs under that rule."""
        homes = sorted(set(self.protocols.values()))
        return next((home for home in homes if home.endswith("/leak_free")), homes[0])

    def titled(self, title: str) -> str:
        """A title as it is printed: a rehearsal's says what it is."""
        return f"REHEARSED, NO RESULT. {title}" if self.rehearsed else title

    def name_of(self, method: str) -> str:
        """A method as it is called in print."""
        return self.names.get(method, method.replace("_", " "))

    def prompt_of(self, method: str) -> str:
        """The prompt that a method is meant for."""
        return self.prompts.get(method, "none")

    def distinct_runs(self) -> Iterator[tuple[str, list[str]]]:
        """Methods with their runs; of names that share runs, the first."""
        seen: set[str] = set()
        for method, runs in self.runs.items():
            if runs and not seen & set(runs):
                seen.update(runs)
                yield method, runs

    @property
    def run_ids(self) -> set[str]:
        """Ids of all runs of the matrix."""
        return {run_id for found in (self.runs, self.as_published) for runs in found.values() for run_id in runs}
