"""A paper's file, ``workflow/papers/<paper>.yaml``: what it is, its methods, its tables with the printed numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lesion_core.settings.base import Count, Dataset, Distinct, Name, ProfileName, Prompt, Strict

RATES = (
    *("dice", "iou", "sensitivity", "specificity", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc"),
    *("pointing_game", "dice_sd"),
)
RateUnit = Literal["percent", "fraction"]
# Units of what is no rate; a rate is printed in percent or as a fraction, as its table says.
UNITS = {
    "cohens_d": "effect_size",
    "p_below": "p",
    "frozen_parameters": "million",
    "trainable_parameters": "million",
}
# What a table may show of ours besides.
OURS = ("ece", "ece_calibrated", "brier", "brier_calibrated", "temperature", "melanoma_sensitivity_at_95_specificity")
# What a method of a task has scores for; parameters are counted of any, and shown where a paper prints them.
_OF_CLASSES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", *OURS)
FILLED = {
    "segmentation": (
        *("dice", "iou", "sensitivity", "specificity", "accuracy"),
        *("thresholded_iou", "hd95", "surface_distance"),
    ),
    "classification": _OF_CLASSES,
    "both": ("dice", "iou", *_OF_CLASSES),
}
SHOWN_WHERE_PRINTED = ("frozen_parameters", "trainable_parameters", "dice_sd", "pointing_game")
GREATEST = {"percent": 100.0, "fraction": 1.0, "p": 1.0}
PublishedOn = Dataset | Literal["isic_unspecified"]  # the paper says "ISIC" and no more
NUMBER = r"\d+(?:\.\d+)?"
PRINTED = re.compile(rf"[<>]?{NUMBER}|{NUMBER}-{NUMBER}|{NUMBER} ?± ?{NUMBER}")


class Reference(Strict):
    """Where a paper stands; None where the text that was read does not say. ``short``: as tables call it."""

    short: str
    title: str
    authors: list[str]
    year: int | None = None
    doi: str | None = None
    arxiv: str | None = None
    read: Literal["full text", "summary"]
    note: str | None = None


class Printed(Strict):
    """Numbers as printed.

    Attributes:
        published: metric -> printed text: a number ("94.0": decimals count), a bound (">98.9"), a range ("85-86")
            or a mean with its SD ("94.8 ± 2.1").
        dataset: what ours is scored on; None takes the table's.
        published_on: what the paper scored on, where that is not what ours is; None takes the table's.
        unit, units: percent or fraction, of all rates and of single ones; None takes the table's.
        averaging: as stated; None takes the table's.
        n: images, or seeds for effect sizes and p; None takes the table's.
        where: the place in the text; None takes the table's.
        proposed: it is the paper's own method.
    """

    label: str
    published: dict[str, str] = Field(default_factory=dict)
    dataset: Dataset | None = None
    published_on: PublishedOn | None = None
    unit: RateUnit | None = None
    averaging: str | None = None
    n: Count | None = None
    where: str | None = None
    proposed: bool = False

    @field_validator("published")
    @classmethod
    def _are_printed_numbers(cls, published: dict[str, str]) -> dict[str, str]:
        for metric, text in published.items():
            if metric not in RATES and metric not in UNITS:
                raise ValueError(f"unknown metric '{metric}'; known are {', '.join((*RATES, *UNITS))}")
            if not PRINTED.fullmatch(text):
                raise ValueError(f"{metric}: {text!r} is no printed number, bound (>98.9), range (85-86) or 94.8 ± 2.1")
        return published


class TableRow(Printed):
    """One row: ours (``method``, under ``prompt``), published, or both side by side.

    A row without a method is quoted; one without either names a competitor whose number is lost, and says where.
    ``segmenter``: of a classifier's row in a table of both tasks, whose Dice and IoU it shows.
    """

    method: Name | None = None
    segmenter: Name | None = None
    prompt: Prompt = "none"

    @model_validator(mode="after")
    def _says_something(self) -> TableRow:
        if self.method is None and not self.published and self.where is None:
            raise ValueError(f"the row '{self.label}' has neither a method nor a published number nor a place (where)")
        if self.segmenter is not None and self.method is None:
            raise ValueError(f"the row '{self.label}' has a segmenter but no method")
        return self

    def scored_by(self, kind: str) -> str | None:
        """The method whose scores of a kind (``segmentation``, ``classification`` ...) the row shows."""
        return self.segmenter or self.method if kind == "segmentation" else self.method


class Claim(Printed):
    """A number in the prose, of one of the paper's tables or of a table of tests."""

    table: Name
    n: Count | None = None
    where: str


class Contradiction(Strict):
    """Where a paper contradicts itself, or what is known of the data."""

    where: str
    text: str


class Table(Strict):
    """A table: its rows, scored on one dataset, ours beside the published numbers.

    Attributes:
        segmentation_dataset: where Dice and IoU of a table of both tasks are scored.
        metrics: columns of ours.
        main: whether `dvc metrics show` prints its Dice or balanced accuracy.
        unit, units: of the printed rates, and of single ones; averaging, n, where: what holds for its rows alike.
        paper: whose table it is; filled in by the reader.
    """

    title: str
    task: Literal["segmentation", "classification", "both"]
    dataset: Dataset
    segmentation_dataset: Dataset | None = None
    published_on: PublishedOn | None = None
    metrics: Annotated[Distinct[str], Field(min_length=1)]
    unit: RateUnit = "percent"
    units: dict[str, RateUnit] = Field(default_factory=dict)
    averaging: str | None = None
    n: Count | None = None
    where: str | None = None
    main: bool = False
    rows: Annotated[list[TableRow], Field(min_length=1)]
    paper: Name = ""

    @field_validator("metrics")
    @classmethod
    def _are_of_its_task(cls, metrics: list[str], info: ValidationInfo) -> list[str]:
        own = (*FILLED[info.data.get("task", "both")], *SHOWN_WHERE_PRINTED)
        if unknown := [metric for metric in metrics if metric not in own]:
            raise ValueError(f"unknown metrics {', '.join(unknown)}; a table of this task has {', '.join(own)}")
        return metrics

    @model_validator(mode="after")
    def _rows_can_be(self) -> Table:
        if self.main and self.task == "both":
            raise ValueError("a main table has one task")
        for row in self.rows:
            for metric, text in row.published.items():
                unit = UNITS.get(metric) or row.unit or self.units.get(metric, self.unit)
                if max(map(float, re.findall(NUMBER, text))) > GREATEST.get(unit, float("inf")):
                    raise ValueError(f"row '{row.label}', {metric}: {text} is too great for {unit}")
        labels = [row.label for row in self.rows]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"rows stand twice: {', '.join(twice)}")
        return self


class TestTable(Strict):
    """A table of tests: the proposed rows of some of the paper's tables against the other rows of the same table."""

    __test__ = False  # pytest takes it for tests otherwise

    title: str
    of: Annotated[Distinct[Name], Field(min_length=1)]


class Figure(Strict):
    """A figure of the paper, drawn from our results; the released images in it are those of ``dataset``.

    Attributes:
        kind: ``contours``: outlines of the method's masks beside other methods' and the truth, best to worst;
            ``explanations``: where the method looks.
        title: as the paper numbers it.
        method: of a contours figure, a segmenter.
    """

    kind: Literal["contours", "explanations"]
    title: str
    dataset: Dataset
    method: Name


class PaperProfile(Strict):
    """What a profile runs of a paper, and how it scales it down: laid over the paper's own bases and methods.

    Attributes:
        run: the methods that the profile runs; None: all that the tables name.
        seeds_for: as ``matrix.seeds_for``.
        explain, robustness: None keeps the paper's own lists.
    """

    run: Distinct[Name] | None = None
    seeds_for: dict[Name, list[int]] = Field(default_factory=dict)
    protocols: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    bases: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    methods: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    explain: Distinct[Name] | None = None
    robustness: Distinct[Name] | None = None


class Paper(Strict):
    """One paper's file.

    Attributes:
        protocols, bases, methods: as in params.yaml, resolved together with it.
        names: method -> as tables of tests, figures and the page call it; a row's label is the paper's own word.
        ablations: methods on which nothing is built.
        tables: ``<paper>_table_<two digits>`` as the paper numbers them, and tables of ours under plain names.
        tests: tables of tests; without any, one called ``<paper>_tests`` of all tables that have a proposed row.
        claims: numbers in the prose beside the tables.
        figures: by name, ``<paper>_figure_...``.
        explain, robustness, subgroups: methods whose runs are looked at beyond their scores.
        profiles: by profile.
    """

    reference: Reference
    protocols: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    bases: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    methods: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    names: dict[Name, str] = Field(default_factory=dict)
    ablations: Distinct[Name] = Field(default_factory=list)
    tables: dict[Name, Table]
    tests: dict[Name, TestTable] = Field(default_factory=dict)
    claims: list[Claim] = Field(default_factory=list)
    contradictions: list[Contradiction] = Field(default_factory=list)
    figures: dict[Name, Figure] = Field(default_factory=dict)
    explain: Distinct[Name] = Field(default_factory=list)
    robustness: Distinct[Name] = Field(default_factory=list)
    subgroups: Distinct[Name] = Field(default_factory=list)
    profiles: dict[ProfileName, PaperProfile] = Field(default_factory=dict)

    def scaled(self, profile: str) -> PaperProfile | None:
        """What a profile runs of this paper; None where the file says nothing of it."""
        return next((own for name, own in self.profiles.items() if name == profile), None)

    def methods_of_tables(self) -> list[str]:
        """The methods that its rows name, in order, without ablations."""
        named = [name for table in self.tables.values() for row in table.rows for name in (row.segmenter, row.method)]
        return [name for name in dict.fromkeys(named) if name and name not in self.ablations]
