"""Typed settings: the shape of params.yaml. Unknown keys, wrong types and impossible values are refused here.

The meaning of each key, the paper's value and our choices stand as comments in params.yaml, beside the value.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lesion_core.settings.augmentation import Augmentation
from lesion_core.settings.base import (
    BACKBONE_PATCHES,
    CLASSES,
    DATASETS,
    NETWORKS,
    OFFICIAL,
    Count,
    Dataset,
    Distinct,
    Fraction,
    Name,
    NotNegative,
    Positive,
    ProfileName,
    Prompt,
    RunId,
    Strict,
    TrainingPrompt,
    Whole,
)
from lesion_core.settings.classification import (
    ClassificationLoss,
    ClassificationMethod,
    ClassificationModel,
    DerivedMethod,
    JointMethod,
)
from lesion_core.settings.data import (
    Custom,
    Data,
    Duplicates,
    Extraction,
    Harmonization,
    SplitRule,
    Splits,
    Synthetic,
    Views,
)
from lesion_core.settings.paper import Claim, Paper, Reference, Table, TableRow
from lesion_core.settings.protocols import Homes, Material, Protocol
from lesion_core.settings.rehearsal import Rehearsal
from lesion_core.settings.report import Ledger, Plan, Report, Statistics
from lesion_core.settings.scoring import AutomaticMasks, Corruption, Explain, Robustness, Scoring, Subgroups
from lesion_core.settings.segmentation import (
    ADAPTER_KEYS,
    KIND_KEYS,
    Reconstruction,
    SegmentationKind,
    SegmentationLoss,
    SegmentationMethod,
    SegmentationModel,
)
from lesion_core.settings.training import Compute, Pretrain, Training

Method = Annotated[SegmentationMethod | ClassificationMethod | JointMethod | DerivedMethod, Field(discriminator="task")]


class Matrix(Strict):
    """Which methods and which ablations this profile runs; ``seeds_for`` names the methods that take fewer seeds.

    ``as_published``: of the methods that a printed number is compared with, which run under their paper's split too.
    """

    seeds: Annotated[Distinct[int], Field(min_length=1)]
    seeds_for: dict[Name, Annotated[Distinct[int], Field(min_length=1)]] = Field(default_factory=dict)
    methods: Annotated[Distinct[Name], Field(min_length=1)]
    ablations: Distinct[Name] = Field(default_factory=list)
    as_published: Literal["all"] | Distinct[Name] = "all"


class Settings(Strict):
    """All of params.yaml and the papers' files after the profile's overlay and the command line."""

    profile: ProfileName
    papers: dict[Name, Paper]
    mirror: str | None
    rehearsal: Rehearsal | None = None
    compute: Compute
    data: Data
    synthetic: Synthetic | None
    duplicates: Duplicates
    splits: Splits
    harmonization: Harmonization
    protocols: dict[Name, Protocol]
    extraction: Extraction
    scoring: Scoring
    explain: Explain
    statistics: Statistics
    subgroups: Subgroups
    robustness: Robustness
    ledger: Ledger
    report: Report
    pretrain: Pretrain
    matrix: Matrix
    methods: dict[Name, Method]
    names: dict[Name, str]

    @property
    def homes(self) -> Homes:
        """Where pixels and splits lie."""
        return Homes(self.protocols, self.data.datasets, self.splits)

    @property
    def tables(self) -> dict[str, Table]:
        """The tables of all papers that are asked for, by name."""
        return {name: table for paper in self.papers.values() for name, table in paper.tables.items()}
