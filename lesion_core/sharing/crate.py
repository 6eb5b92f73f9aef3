"""The results as a Workflow Run RO-Crate (process, workflow and provenance: the profile's second level).

https://w3id.org/ro/wfrun/workflow, version 0.5: the workflow file, one CreateAction for the whole run with its agent,
its inputs and its outputs, each a file with its SHA-256, and one action for each training run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.audit.manifest import read_manifest
from lesion_core.config import REPOSITORY
from lesion_core.errors import RunError
from lesion_core.files import canonical_json, read_json

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.1", "Workflow RO-Crate"),
)
STAMP = "%Y-%m-%dT%H:%M:%SZ"  # UTC, as provenance.json has it
WORKFLOW = ("Snakefile", "params.yaml", "requirements.lock", "dvc.yaml")
OUTPUTS = ("tables/", "scores/", "statistics/", "ledger/", "summary/", "splits/", "report.html")
LEFT_OUT = (
    "data/",
    "harmonized/",
    "pseudo_masks/",
)  # photographs and what shows them: their licences stay with their owners
MEDIA = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".html": "text/html",
    ".md": "text/markdown",
    ".png": "image/png",
}


def write_crate(root: Path, out: Path, project: Path = REPOSITORY) -> None:
    """Write a crate folder: the workflow, scores, tables, splits, report, weights and records of a finished result.

    Photographs and masks are named by their hashes in manifest.json, and are not copied.

    Args:
        root: ``results/<profile>``.
        out: folder to make; must not exist.
        project: the checkout.

    Raises:
        RunError: the results have no manifest, a recorded file is missing, or ``out`` exists.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    if out.exists():
        raise RunError("The crate's folder exists", file=out, remedy="name another, or delete it")
    manifest = read_manifest(root)
    files = {**manifest["products"], **manifest["records"]}
    files = {name: digest for name, digest in sorted(files.items()) if not name.startswith(LEFT_OUT)}
    if missing := [name for name in files if not (root / name).is_file()]:
        raise RunError("Recorded results are missing", file=root, ids=missing, remedy="run the pipeline to its end")
    records = [read_json(root / name) for name in files if name.endswith("provenance.json")]
    crate = ROCrate()
    crate.name = f"Skin-lesion segmentation and classification: results of profile {root.name}"
    crate.description = "Scores, tables, tests and runs of the pipeline, with the workflow that made them."
    crate.root_dataset["conformsTo"] = [
        crate.add(ContextEntity(crate, address, {"@type": "CreativeWork", "name": name, "version": address[-3:]}))
        for address, name in PROFILES
    ]
    workflow = crate.add_workflow(project / "Snakefile", "Snakefile", main=True, lang="snakemake", gen_cwl=False)
    workflow["name"] = "Snakefile"
    for name in WORKFLOW[1:]:
        if (project / name).is_file():
            crate.add_file(project / name, name)
    crate.add_tree(project / "workflow", "workflow")
    agent = crate.add(
        ContextEntity(crate, "#lesion", {"@type": "SoftwareApplication", "name": "lesion-core and Snakemake"})
    )
    added = {name: _add(crate, root, name, digest) for name, digest in files.items()}
    added["manifest.json"] = crate.add_file(root / "manifest.json", "results/manifest.json")
    starts = sorted(record["started"] for record in records)
    settings = ContextEntity(
        crate,
        "#settings",
        {"@type": "PropertyValue", "name": "settings", "value": canonical_json(manifest["settings"])},
    )
    run = crate.add_action(
        instrument=workflow,
        identifier="#run",
        object=[crate.add(settings), added["manifest.json"], *_inputs(added)],
        result=[entity for name, entity in added.items() if name.startswith(OUTPUTS)],
        properties={
            "name": f"Run of the pipeline, profile {root.name}",
            "startTime": starts[0] if starts else None,
            "endTime": max(map(_end, records)) if records else None,  # of the last run: what follows keeps no clock
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    run["agent"] = agent
    for record in records:
        _add_training(crate, record, added, workflow, agent)
    crate.root_dataset["mentions"] = [entity for entity in crate.get_entities() if entity.type == "CreateAction"]
    crate.write(out)


def _add(crate: ROCrate, root: Path, name: str, digest: str) -> Any:
    properties = {"sha256": digest}
    if media := MEDIA.get(Path(name).suffix):
        properties["encodingFormat"] = media
    return crate.add_file(root / name, f"results/{name}", properties=properties)


def _end(record: dict[str, Any]) -> str:
    """When a run ended, to the second, in the form of its ``started``."""
    ended = datetime.strptime(record["started"], STAMP) + timedelta(seconds=record["seconds"])
    return ended.strftime(STAMP)


def _inputs(added: dict[str, Any]) -> list[Any]:
    return [entity for name, entity in added.items() if name.startswith(("weights/", "catalog/"))]


def _add_training(crate: ROCrate, record: dict[str, Any], added: dict[str, Any], workflow: Any, agent: Any) -> None:
    run_id = record["run_id"]
    own = [entity for name, entity in added.items() if f"/{run_id}/" in name]
    action = crate.add_action(
        instrument=workflow,
        identifier=f"#{run_id}",
        object=[added[name] for name in record["inputs"] if name in added],
        result=own,
        properties={
            "name": f"Run {run_id}",
            "startTime": record["started"],
            "description": f"{record['seconds']} s on {record['device']}, seed {record['seed']}",
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    action["agent"] = agent
