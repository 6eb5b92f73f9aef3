"""A run: task, method, datasets, settings and seed. Its id is readable and depends on content alone."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, ValidationError

from lesion_core.errors import FormatError, RunError
from lesion_core.files import canonical_json, read_text, sha256_text, write_text
from lesion_core.settings import (
    ClassificationMethod,
    DerivedMethod,
    Extraction,
    Harmonization,
    JointMethod,
    Method,
    Name,
    RunId,
    SegmentationMethod,
    SplitRule,
    Strict,
)
from lesion_core.settings.data import Rule
from lesion_core.settings.protocols import Home

Spec = TypeVar("Spec", bound=Strict)
ABLATIONS = "ablations"  # the folder under runs/ of runs of any task


class Run(Strict):
    """Everything a training job needs to know. Its id is made of all that its pixels and numbers depend on.

    Names and places are not in the id: ``method``, ``ablation``, protocol, rule, ``pixels`` and ``split_tables``.

    Attributes:
        method: the name in params.yaml; the ``method`` column of the scores.
        seed: seed of every random source of the run.
        spec: what is built and how it is trained.
        pixels, split_tables: folders under ``protocols/``, as ``<protocol>/<rule>``.
        splits, harmonization, extraction: how images were split and pixels prepared, and how lesions are cut out.
        segmenter_run: id of the segmentation run whose pseudo-masks (or weights, in joint training) are used.
        classifier_run: id of the classification run that joint training starts from.
        source_runs: ids of the classification runs that a derived run averages.
        threads: torch threads; part of the identity since floating-point sums depend on it.
        processes: that share each batch of a training; part of the identity for the same reason.
        ablation: listed under ``matrix.ablations`` alone, and nothing is built on it.
    """

    method: Name
    seed: int
    spec: Method
    pixels: Home
    split_tables: Home
    splits: SplitRule
    harmonization: Harmonization
    extraction: Extraction
    segmenter_run: RunId | None = None
    classifier_run: RunId | None = None
    source_runs: list[RunId] = Field(default_factory=list)
    threads: int
    processes: int = Field(default=1, ge=1)
    ablation: bool = False

    @property
    def task(self) -> str:
        """``segmentation``, ``classification``, ``joint`` or ``derived``."""
        return self.spec.task

    @property
    def segmentation(self) -> SegmentationMethod:
        """``spec`` of a segmentation run."""
        return _of_task(self, self.spec, SegmentationMethod)

    @property
    def classification(self) -> ClassificationMethod:
        """``spec`` of a classification run."""
        return _of_task(self, self.spec, ClassificationMethod)

    @property
    def joint(self) -> JointMethod:
        """``spec`` of a joint run."""
        return _of_task(self, self.spec, JointMethod)

    @property
    def protocol(self) -> str:
        """The protocol that it runs under."""
        return self.spec.protocol

    @property
    def rule(self) -> Rule:
        """The split rule that it runs under."""
        return self.spec.rule

    @property
    def place(self) -> str:
        """Its folder under ``runs/``: the task, or ``ablations``."""
        return ABLATIONS if self.ablation else self.task

    @property
    def run_id(self) -> str:
        """Slug (method, datasets, seed) and the first 8 hex digits of the settings' SHA-256."""
        identity = self.model_dump(exclude={"method", "ablation", "pixels", "split_tables"})
        spec = identity["spec"]
        for name in ("protocol", "rule"):
            spec.pop(name)
        if "training" in spec and spec["training"]["rehearsed_steps"] is None:
            spec["training"].pop("rehearsed_steps")  # no run but a rehearsal's has any
        digest = sha256_text(canonical_json(identity))[:8]
        datasets = "" if isinstance(self.spec, DerivedMethod) else f"{'+'.join(self.spec.train_on)}-"
        return f"{self.method}-{datasets}s{self.seed}-{digest}"

    def save(self, run_dir: Path) -> None:
        """Write ``settings.yaml`` into the run's folder."""
        write_text(run_dir / "settings.yaml", yaml.safe_dump(self.model_dump(mode="json"), sort_keys=True))

    @classmethod
    def load(cls, run_dir: Path) -> Run:
        """Read ``settings.yaml`` of a run's folder.

        Raises:
            RunError: the file is missing or not a run's settings.
        """
        path = Path(run_dir) / "settings.yaml"
        try:
            return cls.model_validate(yaml.safe_load(read_text(path)))
        except FileNotFoundError as error:
            raise RunError(
                "This folder is not a run: it has no settings.yaml",
                file=path,
                remedy="give the folder of a trained run, results/<profile>/runs/<place>/<run_id>",
            ) from error
        except (ValidationError, FormatError, yaml.YAMLError) as error:
            raise RunError(
                f"The run's settings cannot be read: {error}", file=path, remedy="train the run again"
            ) from error


def _of_task(run: Run, spec: Method, kind: type[Spec]) -> Spec:
    if not isinstance(spec, kind):
        raise RunError(
            f"{run.run_id} is a {run.task} run", remedy=f"give a {kind.__name__.removesuffix('Method').lower()} run"
        )
    return spec


def task_of(run_dir: Path) -> str:
    """A run's task: the name of the folder it lies in, or what its settings say where that is ``ablations``.

    Raises:
        RunError: an ablation has no settings that can be read.
    """
    place = run_dir.parent.name
    return Run.load(run_dir).task if place == ABLATIONS else place
