"""manifest.json: of every result its SHA-256, and the job that made it from which inputs; the settings it ran with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from lesion_core.audit.current import Current
from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file, write_text
from lesion_core.paths import Layout
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.outputs import recorded_outputs
from lesion_core.settings import Plan

NAME = Layout(Path()).manifest.name
NO_RESULTS = ("log.txt", "checkpoint.pt")
DOWNLOADS, LISTING = "downloads/", "/files.json"  # archives may be deleted once they are unpacked


@dataclass(frozen=True)
class Made:
    """A job as the workflow knows it: its rule, when it ran (ISO 8601), and files relative to the results."""

    rule: str
    started: str
    ended: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Job(BaseModel):
    """A job in the manifest; without a rule: what no job is known to have made.

    Attributes:
        rule, started, ended: as in `Made`.
        inputs: path -> SHA-256; of a run as its provenance.json says, of others as of now; None: no file (any more).
        outputs: path -> SHA-256, of the results of the matrix and of downloaded archives.
    """

    rule: str | None = None
    started: str | None = None
    ended: str | None = None
    inputs: dict[str, str | None] = {}
    outputs: dict[str, str]

    @property
    def name(self) -> str:
        """For a person: the rule and one of its outputs."""
        return f"{self.rule} ({min(self.outputs)})"


class Manifest(BaseModel):
    """Content of manifest.json: all sections of the settings that results depend on, and the jobs by their start."""

    settings: dict[str, Any]
    jobs: list[Job]

    @property
    def hashes(self) -> dict[str, str]:
        """Path -> SHA-256 of all outputs."""
        return {name: digest for job in self.jobs for name, digest in job.outputs.items()}

    @property
    def files(self) -> dict[str, str]:
        """Path -> SHA-256 of all results: what must lie in the folder."""
        return {name: digest for name, digest in self.hashes.items() if not name.startswith(DOWNLOADS)}

    @property
    def products(self) -> dict[str, str]:
        """`files` without records, which tell of times and machines and so differ between two equal results."""
        return {name: digest for name, digest in self.files.items() if not name.endswith(RECORD)}


def write_manifest(root: Path, settings: dict[str, Any], plan: Plan, made: Iterable[Made] = ()) -> None:
    """Hash the results under ``root`` and write ``manifest.json``, see `Manifest`.

    What a job hashed as it wrote it (unpacked images, arrays) is not read again. Two runs of the same settings and
    code have equal ``products`` on one machine.

    Args:
        settings: all sections that the results depend on.
        plan: the present matrix; what belongs to runs of earlier settings is left out.
        made: the jobs that ran there.

    Raises:
        RunError: a run of the matrix is not finished.
    """
    names = list(product_files(root, plan))
    recorded: dict[str, dict[str, str]] = {}  # by the record
    for name in (name for name in names if name.endswith(RECORD)):
        written = recorded_outputs(root / name)
        recorded[name] = {path.relative_to(root).as_posix(): digest for path, digest in written.items()}
    known = {name: digest for outputs in recorded.values() for name, digest in outputs.items()}
    hashes = {name: known.get(name) or sha256_file(root / name) for name in names}
    others: dict[str, str | None] = {}  # inputs that are no results
    jobs, left = [], dict(hashes)
    for job in sorted(made, key=lambda job: (job.started, job.rule, job.outputs)):
        told = {name for record in job.outputs for name in recorded.get(record, ())}
        stages = tuple(name.removesuffix(RECORD) + "stage_" for name in job.outputs if name in recorded)
        told |= {name for name in left if name.startswith(stages)}  # of a training of several stages
        outputs = {name: left.pop(name) for name in sorted({*job.outputs, *told}) if name in left}
        inputs: dict[str, str | None] = {}
        for name in job.inputs:
            if name not in hashes and name not in others:
                others[name] = sha256_file(root / name) if (root / name).is_file() else None
            inputs[name] = hashes.get(name) or others.get(name)
            inputs |= _archives(root, name)
        for name in job.outputs:
            outputs |= _archives(root, name)
            if name in recorded:
                inputs |= read_json(root / name).get("inputs", {})
        if outputs:
            jobs.append(Job(rule=job.rule, started=job.started, ended=job.ended, inputs=inputs, outputs=outputs))
    if left:
        jobs.append(Job(outputs=left))
    # Not by `write_json`, which sorts keys: the settings' order is the order of tables and their rows.
    write_text(Layout(root).manifest, Manifest(settings=settings, jobs=jobs).model_dump_json(indent=2) + "\n")


def _archives(root: Path, name: str) -> dict[str, str]:
    """Downloaded files by the list of their dataset; nothing if ``name`` is no such list."""
    if not (name.startswith(DOWNLOADS) and name.endswith(LISTING) and (root / name).is_file()):
        return {}
    folder = name.removesuffix(LISTING)
    return {f"{folder}/{file['name']}": file["sha256"] for file in read_json(root / name)["files"]}


def product_files(root: Path, plan: Plan) -> Iterator[str]:
    """Paths, relative to ``root``, of all results of the matrix, sorted.

    Raises:
        RunError: a run of the matrix is not finished.
    """
    current = Current.of_results(root, plan)
    for path in Layout(root).products():
        parts = path.relative_to(root).parts
        if current.owns(parts) and path.name not in NO_RESULTS and not path.name.startswith("."):
            yield "/".join(parts)


def read_manifest(root: Path) -> Manifest:
    """The manifest of a results folder.

    Raises:
        RunError: there is none, or it is not one.
    """
    path = Layout(root).manifest
    remedy = "run the pipeline to its end; its last rule writes the manifest"
    try:
        return Manifest.model_validate(read_json(path))
    except OSError as error:
        raise RunError("These results have no manifest", file=path, remedy=remedy) from error
    except ValueError as error:  # pydantic's and the reader's
        raise RunError(f"The manifest cannot be read: {error}", file=path, remedy=remedy) from error


def recorded_settings(root: Path, manifest: Manifest, **kinds: type) -> tuple[Any, ...]:
    """Sections of the settings that a manifest records, each as its kind, in the order asked for.

    Raises:
        RunError: a section is missing, or this checkout does not understand it.
    """
    try:
        return tuple(TypeAdapter(kind).validate_python(manifest.settings[name]) for name, kind in kinds.items())
    except (KeyError, ValidationError) as error:
        raise RunError(
            f"The manifest's settings cannot be read: {error}",
            file=Layout(root).manifest,
            remedy="run the pipeline with this checkout, or use the checkout that wrote it",
        ) from error
