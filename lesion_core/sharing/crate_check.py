"""What RO-Crate 1.1 and the Workflow Run profiles 0.5 demand (MUST), checked on a written crate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lesion_core.files import read_json, sha256_file

METADATA = "ro-crate-metadata.json"
ROOT = "./"
RO_CRATE = "https://w3id.org/ro/crate/1.1"
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
MUST_CONFORM = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/ro/wfrun/provenance/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
WORKFLOW_TYPES = {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"}
TOOLS = {"SoftwareApplication", "SoftwareSourceCode", "ComputationalWorkflow"}
Entities = Mapping[str, Mapping[str, Any]]


def broken_demands(crate: Path) -> list[str]:
    """One line for each demand that the crate in this folder breaks, naming the entity; empty if it meets all.

    Checked are the metadata file and its graph (unique ids, no dangling references), the root (name, description, date,
    licence, profiles), data entities (present, hashed as said), the workflow, its tools and steps, and the actions.
    """
    content = read_json(crate / METADATA)
    graph = content["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    broken = []
    if len(entities) != len(graph):
        broken.append("@graph: an @id stands twice")
    context = content["@context"] if isinstance(content["@context"], list) else [content["@context"]]
    for wanted in (f"{RO_CRATE}/context", CONTEXT):
        if wanted not in context:
            broken.append(f"@context: lacks {wanted}")
    for check in (_references, _root, _files, _workflow, _actions, _usage):
        broken += check(entities, crate) if check is _files else check(entities)
    return broken


def types(entity: Mapping[str, Any]) -> set[str]:
    """An entity's types; one stands as text, several as a list."""
    return set(entity["@type"]) if isinstance(entity["@type"], list) else {entity["@type"]}


def references(entity: Mapping[str, Any], key: str) -> list[str]:
    """Ids that an entity's property points to."""
    value = entity.get(key, [])
    values = value if isinstance(value, list) else [value]
    return [item["@id"] for item in values if isinstance(item, Mapping) and "@id" in item]


def _references(entities: Entities) -> Iterator[str]:
    for name, entity in entities.items():
        for key in entity:
            for target in references(entity, key):
                known = target in entities or target.startswith(("http://", "https://"))
                if not known:
                    yield f"{name}: {key} points to {target}, which is not described"


def _root(entities: Entities) -> Iterator[str]:
    descriptor, root = entities.get(METADATA), entities.get(ROOT)
    if descriptor is None or root is None:
        yield f"{METADATA} or {ROOT} is not described"
        return
    if RO_CRATE not in references(descriptor, "conformsTo") or references(descriptor, "about") != [ROOT]:
        yield f"{METADATA}: must conform to {RO_CRATE} and be about {ROOT}"
    if "Dataset" not in types(root):
        yield f"{ROOT}: must be a Dataset"
    for key in ("name", "description", "datePublished", "license"):
        if not root.get(key):
            yield f"{ROOT}: lacks {key}"
    for profile in MUST_CONFORM:
        if profile not in references(root, "conformsTo"):
            yield f"{ROOT}: does not say that it conforms to {profile}"
        elif "CreativeWork" not in types(entities.get(profile, {"@type": []})):
            yield f"{profile}: must be described as a CreativeWork"


def _files(entities: Entities, crate: Path) -> Iterator[str]:
    parts = {name for entity in entities.values() for name in references(entity, "hasPart")}
    for name, entity in entities.items():
        if not types(entity) & {"File", "Dataset"} or name == ROOT or name.startswith(("http://", "https://")):
            continue
        path = crate / unquote(name)
        if not path.exists():
            yield f"{name}: is not in the crate"
        elif "sha256" in entity and sha256_file(path) != entity["sha256"]:
            yield f"{name}: has another SHA-256"
        if name not in parts:
            yield f"{name}: is no part of the root"


def _workflow(entities: Entities) -> Iterator[str]:
    main = references(entities.get(ROOT, {}), "mainEntity")
    workflow = entities.get(main[0]) if main else None
    if workflow is None:
        yield f"{ROOT}: has no mainEntity"
        return
    if not types(workflow) >= WORKFLOW_TYPES:
        yield f"{main[0]}: must be of types {', '.join(sorted(WORKFLOW_TYPES))}"
    for key in ("name", "programmingLanguage", "hasPart"):
        if not workflow.get(key):
            yield f"{main[0]}: lacks {key}"
    for tool in references(workflow, "hasPart"):
        if not types(entities.get(tool, {"@type": []})) & TOOLS:
            yield f"{tool}: a tool must be a SoftwareApplication or the like"
    steps = set(references(workflow, "step"))
    for name, entity in entities.items():
        kind = types(entity)
        if "HowToStep" in kind:
            if name not in steps:
                yield f"{name}: the workflow must name it under step"
            if not set(references(entity, "workExample")) & set(references(workflow, "hasPart")):
                yield f"{name}: workExample must be one of the workflow's tools"
        if "FormalParameter" in kind and not entity.get("additionalType"):
            yield f"{name}: lacks additionalType"


def _actions(entities: Entities) -> Iterator[str]:
    main = references(entities.get(ROOT, {}), "mainEntity")
    of = {
        kind: {name for name, entity in entities.items() if kind in types(entity)}
        for kind in ("CreateAction", "ControlAction", "OrganizeAction", "HowToStep")
    }
    runs = {name for name in of["CreateAction"] if references(entities[name], "instrument") == main}
    if not runs:
        yield "no CreateAction has the workflow as its instrument"
    for name in sorted(of["CreateAction"]):
        tools = references(entities[name], "instrument")
        if not tools or any(not types(entities.get(tool, {"@type": []})) & TOOLS for tool in tools):
            yield f"{name}: instrument must be a tool or the workflow"
    steered = {target for name in of["ControlAction"] for target in references(entities[name], "object")}
    for name in sorted(of["CreateAction"] - runs - steered):
        yield f"{name}: no ControlAction steers it"
    for name in sorted(of["ControlAction"]):
        if not set(references(entities[name], "instrument")) <= of["HowToStep"] or "instrument" not in entities[name]:
            yield f"{name}: instrument must be a HowToStep"
        if not steered or not set(references(entities[name], "object")) & of["CreateAction"]:
            yield f"{name}: object must be the CreateAction of a tool"
    for name in sorted(of["OrganizeAction"]):
        if not references(entities[name], "instrument"):
            yield f"{name}: lacks the engine as its instrument"
        if not set(references(entities[name], "result")) & runs:
            yield f"{name}: result must be the workflow's run"
        if not set(references(entities[name], "object")) & of["ControlAction"]:
            yield f"{name}: object must be the steps' ControlActions"


def _usage(entities: Entities) -> Iterator[str]:
    for name, entity in entities.items():
        for used in references(entity, "resourceUsage"):
            if "PropertyValue" not in types(entities.get(used, {"@type": []})) or "propertyID" not in entities[used]:
                yield f"{name}: resourceUsage must be PropertyValues with a propertyID ({used})"
