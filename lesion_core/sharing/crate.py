"""The results as a Workflow Run RO-Crate of the finest profile, Provenance Run Crate 0.5 (hence RO-Crate 1.1).

https://w3id.org/ro/wfrun/provenance/0.5: the workflow with its steps and tools, one CreateAction for the whole run and
one for each job, steered by a ControlAction, all by an OrganizeAction of Snakemake; every file with its SHA-256.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.audit.manifest import NAME, read_manifest
from lesion_core.errors import RunError
from lesion_core.files import canonical_json
from lesion_core.record.calls import NAME as CALLS
from lesion_core.record.calls import read_calls
from lesion_core.record.rehearsed import refuse_rehearsal
from lesion_core.settings.load import REPOSITORY
from lesion_core.sharing.jobs import MEASURED, Job, jobs_of, positions, read_snapshot

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

VERSION = "1.1"  # of RO-Crate: the profiles below extend this one
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate"),
    ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate"),
)
LICENCE = "https://spdx.org/licenses/Apache-2.0"
DONE = "http://schema.org/CompletedActionStatus"
README = "README.md"
WORKFLOW = ("params.yaml", "requirements.lock", "dvc.yaml")
SOURCES = ("weights/", "made/", "downloads/")
OUTPUTS = ("tables/", "scores/", "statistics/", "ledger/", "summary/", "report.html")
# Images and masks stay out: their licences stay with their owners. They are named with their hashes.
LEFT_OUT = ("data/", "pseudo_masks/", "downloads/", "made/")
SPLITS = re.compile(r"protocols/[^/]+/[^/]+/splits/.+")
PIXELS = re.compile(r"protocols/(?!.*/splits/).*")  # and what shows them
SHOWING = re.compile(  # so do these, but on demand
    r"report\.html|figures/(\w+_figure_\w+|explanations)\..*|explain/.*\.npz|runs/.*/test_masks\.zip"
)
MEDIA = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".html": "text/html",
    ".jsonl": "application/jsonl",
    ".lock": "text/plain",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".smk": "text/plain",
    ".tex": "application/x-tex",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
    ".zip": "application/zip",
}
ORCID = re.compile(r"(\d{4}-){3}\d{3}[\dX]")
REQUIREMENTS = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"


def write_crate(
    root: Path, out: Path, project: Path = REPOSITORY, agent: str | None = None, *, images: bool = False
) -> None:
    """Write a crate folder: the workflow, scores, tables, splits, report, weights and records of a finished result.

    Args:
        out: folder to make; must not exist.
        project: the checkout.
        agent: who ran it, a name, an ORCID or its address; None: not said.
        images: copy the page, figures, explanations and stored masks too, which show images or their masks.

    Raises:
        RunError: a rehearsal's results, no manifest or no snapshot, a recorded file is missing, ``out`` exists.
        OSError: it cannot be written there. After any error there is no ``out``, not even half of one.
    """
    if os.path.lexists(out):
        raise RunError("The folder exists", file=out, remedy="name another, or delete it")
    refuse_rehearsal(root)
    manifest = read_manifest(root)
    files = manifest.files
    if missing := [name for name in files if not (root / name).is_file() and not _left_out(name, images)]:
        raise RunError("Recorded results are missing", file=root, ids=missing, remedy="run the pipeline to its end")
    snapshot = read_snapshot(root)
    earlier = {name for name in snapshot if name.startswith(("downloads/", "made/"))}
    jobs = jobs_of(root, snapshot, {*files, NAME, *earlier})
    digests = {name: entry["sha256"] for name, entry in snapshot.items()} | files
    writer = _Writer(root, digests, images)
    writer.describe(project, agent)
    for name in sorted(files):
        writer.file(name)
    writer.run(manifest.settings, jobs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        try:
            writer.crate.write(Path(beside) / out.name)
            (Path(beside) / out.name).rename(out)
        except OSError as error:
            error.filename, error.filename2 = str(out), None  # not what was copied, nor a folder that is gone
            raise


@dataclass
class _Writer:
    """A crate in the making.

    Attributes:
        root: the results.
        digests: file, relative to ``root``, -> SHA-256.
        images: whether files that show some are copied.
    """

    root: Path
    digests: dict[str, str]
    images: bool
    crate: ROCrate = field(init=False)
    files: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from rocrate.rocrate import ROCrate

        self.crate = ROCrate(version=VERSION)
        self.crate.metadata.extra_contexts.append(CONTEXT)
        self.crate.metadata.extra_terms["buildInstructions"] = "https://codemeta.github.io/terms/buildInstructions"

    def entity(self, identifier: str, kind: str, **properties: Any) -> Any:
        from rocrate.model.contextentity import ContextEntity

        return self.crate.add(ContextEntity(self.crate, identifier, {"@type": kind, **properties}))

    def describe(self, project: Path, agent: str | None) -> None:
        """What the crate is, and the workflow's own files."""
        crate, root = self.crate, self.crate.root_dataset
        crate.name = f"Skin-lesion segmentation and classification: results of profile {self.root.name}"
        crate.description = (
            "Scores, tables, tests and runs of the pipeline, with the workflow that made them. What is not copied is "
            "named with its hash: images, masks and, if so chosen, what shows them. Data and foundation weights "
            "keep their owners' licences."
        )
        crate.license = self.entity(LICENCE, "CreativeWork", name="Apache License 2.0", url=LICENCE)
        root["conformsTo"] = [
            self.entity(address, "CreativeWork", name=name, version=address.rpartition("/")[2])
            for address, name in PROFILES
        ]
        kinds = {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "Snakefile",
            "encodingFormat": "text/plain",
        }
        workflow = crate.add_workflow(project / "Snakefile", "Snakefile", main=True, lang="snakemake", properties=kinds)
        workflow["license"], workflow["version"] = crate.license, metadata.version("lesion-core")
        for name in WORKFLOW:
            if (project / name).is_file():
                crate.add_file(project / name, name, properties=_media(name))
        if lock := crate.dereference("requirements.lock"):
            lock["conformsTo"] = self.entity(REQUIREMENTS, "CreativeWork", name="pip's requirements file format")
            workflow["buildInstructions"] = lock
        if (project / README).is_file():
            crate.add_file(project / README, README, properties={"about": root, **_media(README)})
        for path in sorted((project / "workflow").rglob("*")):
            if path.suffix in MEDIA:
                crate.add_file(path, path.relative_to(project), properties=_media(path.name))
        self.agent = None
        if agent is not None:
            address = f"https://orcid.org/{agent}" if ORCID.fullmatch(agent) else agent
            known = address.startswith("https://")
            self.agent = root["author"] = self.entity(address if known else "#agent", "Person", name=agent)

    def file(self, name: str) -> Any:
        """A file of the results: copied, or where images would be shown only named, with its SHA-256."""
        if name not in self.files:
            digest = self.digests.get(name)
            known = {} if digest is None else {"sha256": digest}
            if _left_out(name, self.images) or not (self.root / name).is_file() or digest is None:
                entity = self.entity(f"#results/{name}", "CreativeWork", name=name, **known)
            else:
                entity = self.crate.add_file(
                    self.root / name, f"results/{name}", properties={"name": name, **known, **_media(name)}
                )
            self.files[name] = entity
        return self.files[name]

    def run(self, settings: dict[str, Any], jobs: list[Job]) -> None:
        """The whole run, its jobs, steps and tools, and Snakemake that orders them."""
        workflow = self.crate.mainEntity
        tools = self._tools(jobs)
        places = positions(jobs)
        steps = {}
        for rule in sorted({job.rule for job in jobs}, key=lambda name: (places.get(name, 0), name)):
            tool = next(tools[job.tool] for job in jobs if job.rule == rule)
            place = {"position": places[rule]} if places else {}
            steps[rule] = self.entity(f"#step-{rule}", "HowToStep", name=rule, workExample=tool, **place)
        workflow["hasPart"], workflow["step"] = list(tools.values()), list(steps.values())
        profile = self.entity(
            "#parameter-profile", "FormalParameter", name="profile", additionalType="Text", valueRequired=False
        )
        workflow["input"] = profile
        chosen = self.entity("#profile", "PropertyValue", name="profile", value=self.root.name, exampleOfWork=profile)
        given = self.entity("#settings", "PropertyValue", name="settings", value=canonical_json(settings))
        self.files[NAME] = self.crate.add_file(self.root / NAME, f"results/{NAME}", properties=_media(NAME))
        self._usage_terms()
        controls = [self._job(place, job, tools[job.tool], steps[job.rule]) for place, job in enumerate(jobs, start=1)]
        sources = [self.file(name) for name in sorted(self.files) if name.startswith(SOURCES)]
        whole = self._action(
            "CreateAction",
            "#run",
            name=f"Run of the pipeline, profile {self.root.name}",
            description=f"snakemake --config profile={self.root.name}: {len(jobs)} jobs whose results are current",
            instrument=workflow,
            object=[chosen, given, *sources],
            result=[
                entity
                for name, entity in self.files.items()
                if name.startswith(OUTPUTS) or SPLITS.fullmatch(name) or name == NAME
            ],
            startTime=jobs[0].started,
            endTime=max(job.ended for job in jobs),
        )
        engine = self.entity(
            "https://snakemake.github.io", "SoftwareApplication", name="Snakemake", url="https://snakemake.github.io"
        )
        if version := self._snakemake():
            engine["softwareVersion"] = version
        engine_run = self._action(
            "OrganizeAction",
            "#engine-run",
            name="Run of Snakemake",
            description="Snakemake ordered the jobs, in one call or several",
            instrument=engine,
            object=controls,
            result=whole,
            startTime=jobs[0].started,
            endTime=max(job.ended for job in jobs),
        )
        if (self.root / CALLS).is_file():
            self.crate.add_file(
                self.root / CALLS, f"results/{CALLS}", properties={"name": CALLS, "about": engine_run, **_media(CALLS)}
            )
        actions = [entity for entity in self.crate.get_entities() if entity.type == "CreateAction"]
        self.crate.root_dataset["mentions"] = actions

    def _snakemake(self) -> str | None:
        """The engine's version as its last call recorded it."""
        calls = read_calls(self.root)
        return calls[-1]["packages"].get("snakemake") if calls else None

    def _tools(self, jobs: list[Job]) -> dict[str, Any]:
        return {
            tool: self.entity(
                f"#{tool.replace(' ', '-')}",
                "SoftwareApplication",
                name=tool,
                softwareVersion=metadata.version("lesion-core"),
            )
            for tool in sorted({job.tool for job in jobs})
        }

    def _usage_terms(self) -> None:
        for column, (meaning, _) in MEASURED.items():
            self.entity(
                f"#usage-{column}", "DefinedTerm", name=column, description=f"{meaning}, by Snakemake's benchmark"
            )

    def _job(self, number: int, job: Job, tool: Any, step: Any) -> Any:
        """One job's CreateAction; its ControlAction."""
        identifier = f"#job-{number}"
        usage = [
            self.entity(
                f"{identifier}-{column}",
                "PropertyValue",
                name=column,
                propertyID=f"#usage-{column}",
                unitCode=MEASURED[column][1],
                value=f"{value:g}",
            )
            for column, value in job.usage.items()
        ]
        action = self._action(
            "CreateAction",
            identifier,
            name=f"{job.rule}: {job.outputs[0]}",
            description=job.command,
            instrument=tool,
            **({"object": [self.file(name) for name in job.inputs]} if job.inputs else {}),
            result=[self.file(name) for name in job.outputs],
            startTime=job.started,
            endTime=job.ended,
            **({"resourceUsage": usage} if usage else {}),
        )
        return self.entity(
            f"{identifier}-step", "ControlAction", name=f"Order {job.rule}", instrument=step, object=action
        )

    def _action(self, kind: str, identifier: str, **properties: Any) -> Any:
        who = {} if self.agent is None else {"agent": self.agent}
        # A list of one is written as that one, as JSON-LD compacts it.
        single = {
            key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in properties.items()
        }
        return self.entity(identifier, kind, actionStatus=DONE, **who, **single)


def _left_out(name: str, images: bool) -> bool:
    return bool(name.startswith(LEFT_OUT) or PIXELS.fullmatch(name)) or (
        SHOWING.fullmatch(name) is not None and not images
    )


def _media(name: str) -> dict[str, str]:
    media = MEDIA.get(Path(name).suffix)
    return {} if media is None else {"encodingFormat": media}
