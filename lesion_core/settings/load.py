"""params.yaml, the papers' files and a profile as typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, with_config
from typing_extensions import TypedDict

from lesion_core.errors import SettingsError
from lesion_core.settings import Name, Settings
from lesion_core.settings.as_published import with_published
from lesion_core.settings.check import check
from lesion_core.settings.matrix import expand as expand  # who reads settings wants the runs that they ask for
from lesion_core.settings.matrix import plan as plan
from lesion_core.settings.papers import check_rows, chosen, laid_over, read_papers
from lesion_core.settings.rehearsal import shortened
from lesion_core.settings.yaml_file import read_yaml

WRITTEN = ("protocols", "bases", "methods")
# the folder that one stands in, where it holds a project (`lesion init` makes one); else the checkout of this package
_PROJECTS = (Path.cwd(), Path(__file__).resolve().parents[2])
REPOSITORY = next((folder for folder in _PROJECTS if (folder / "workflow" / "papers").is_dir()), Path.cwd())


@with_config(ConfigDict(extra="allow"))
class Body(TypedDict, total=False):
    """A method, base or protocol as written; of what it says, the keys that are read before it is typed."""

    extends: str | list[str]
    of: list[str]
    protocol: str
    harmonization: dict[str, Any]


class UnresolvedMatrix(BaseModel):
    """The matrix before the papers add to it."""

    methods: list[str] = []
    seeds_for: dict[str, Any] = {}
    as_published: str | list[str] = "all"


class Unresolved(BaseModel):
    """What is read of a file or a command line before all is laid together and typed: its shape alone."""

    methods: dict[Name, Body] = {}
    bases: dict[Name, Body] = {}
    protocols: dict[Name, Body] = {}
    harmonization: dict[str, Any] = {}
    matrix: UnresolvedMatrix = UnresolvedMatrix()
    explain: dict[str, Any] = {}
    robustness: dict[str, Any] = {}
    subgroups: dict[str, Any] = {}
    names: dict[str, Any] = {}


def _shaped(raw: Mapping[str, Any], file: str | Path = "params.yaml") -> Unresolved:
    try:
        return Unresolved.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, file) from None


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; everything else in ``overlay`` replaces what ``base`` has."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


OF_PROTOCOLS = ("harmonization", "as_published")


def _extend(written: Unresolved, harmonization: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Resolve ``extends``: bases, protocols or methods, merged underneath; of several the last lies on top.

    Args:
        written: as in the files.
        harmonization: params.yaml's, which the protocols' own is laid over.

    Returns:
        Methods, each with the nearest protocol that it extends, and protocols: pixels and splits alone.
    """
    known = {**written.bases, **written.protocols, **written.methods}
    resolved: dict[str, Any] = {}
    for name in known.keys() - written.protocols.keys():
        if own := [key for key in OF_PROTOCOLS if key in known[name]]:
            raise SettingsError(
                f"{name} says {own[0]}, which protocols say", remedy="extend a protocol that says so (protocols)"
            )

    def resolve(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if name in chain:
            raise SettingsError(f"methods.{name}.extends goes in a circle: {' -> '.join((*chain, name))}")
        if name not in resolved:
            body = dict(known[name])
            extends = body.pop("extends", [])
            merged: dict[str, Any] = {}
            for parent in extends if isinstance(extends, list) else [extends]:
                if not (isinstance(parent, str) and parent in known):
                    raise SettingsError(
                        f"methods.{name}.extends names bases, protocols or methods; {parent!r} does not exist",
                        file="params.yaml",
                        remedy=f"use: {', '.join(sorted(known))}",
                    )
                merged = merge(merged, resolve(parent, (*chain, name)))
            resolved[name] = merge(merged, body) | ({"protocol": name} if name in written.protocols else {})
        return resolved[name]

    protocols = {}
    for name in written.protocols:
        whole = resolve(name, ())
        pixels = merge(harmonization, whole.get("harmonization", {}))
        protocols[name] = {"harmonization": pixels, "as_published": whole.get("as_published", {})}
    methods = {
        name: {key: value for key, value in resolve(name, ()).items() if key not in OF_PROTOCOLS}
        for name in written.methods
    }
    for method in methods.values():  # what averages others is of their protocol and rule
        if method.get("task") == "derived":
            averaged = methods.get((method.get("of") or [""])[0], {})
            method.setdefault("protocol", averaged.get("protocol", next(iter(protocols))))
            method.setdefault("rule", averaged.get("rule", "leak_free"))
    return methods, protocols


def _explain(error: ValidationError, file: str | Path = "params.yaml") -> SettingsError:
    lines = []
    for item in error.errors():
        key = ".".join(
            str(part) for part in item["loc"] if part not in ("segmentation", "classification", "joint", "derived")
        )
        given = "" if isinstance(item.get("input"), Mapping | list) else f" (given: {item.get('input')!r})"
        text = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{key or 'settings'}: {text}{given}")
    return SettingsError(
        "Settings refused:\n    " + "\n    ".join(lines),
        file=file,
        remedy="each key is explained in params.yaml; a profile's overlay is workflow/profiles/<profile>.yaml",
    )


def load(
    profile: str | None = None, overrides: Mapping[str, Any] | None = None, checkout: Path = REPOSITORY
) -> Settings:
    """Read params.yaml, lay the profile's overlay and then ``overrides`` over it, and validate.

    Args:
        profile: ``smoke``, ``mini``, ``rehearsal`` or ``paper``; None takes that of ``overrides``, else the file's own.
        overrides: further values, e.g. from a command line; nested mappings merge.
        checkout: where params.yaml, workflow/profiles and workflow/papers lie.

    Raises:
        SettingsError: a key is unknown, a value has the wrong type, or two values cannot stand together.
    """
    base, overrides = read_yaml(checkout / "params.yaml"), overrides or {}
    _shaped(base, checkout / "params.yaml")
    name = profile or overrides.get("profile") or base.get("profile")
    overlays = {path.stem: path for path in sorted((checkout / "workflow" / "profiles").glob("*.yaml"))}
    if not isinstance(name, str) or name not in overlays:
        raise SettingsError(
            f"profile: '{name}' does not exist", file="params.yaml", remedy=f"use one of: {', '.join(overlays)}"
        )
    papers = read_papers(checkout, base)
    raw = base
    for paper in papers.values():
        raw = merge(raw, {kind: getattr(paper, kind) for kind in WRITTEN})
    overlay = read_yaml(overlays[name])
    _shaped(overlay, overlays[name])
    _shaped(overrides)
    raw = merge(raw, overlay)
    for paper in papers.values():
        if name in paper.profiles:
            raw = merge(raw, {kind: getattr(paper.profiles[name], kind) for kind in WRITTEN})
    check_rows(checkout, papers, raw["methods"])
    asked = chosen(papers, overrides.get("papers", raw.get("papers", "all")))
    given = {key: value for key, value in overrides.items() if key != "papers"}
    raw = merge(laid_over(raw, papers, asked, name), given) | {"profile": name}
    written = _shaped(raw)
    if raw["matrix"]["methods"] == []:
        remedy = "take another profile, or say in the paper's file what this one runs (profiles)"
        raise SettingsError(f"Profile {name} runs nothing of these papers", ids=asked, remedy=remedy)
    try:
        raw["methods"], raw["protocols"] = _extend(written, raw["harmonization"])
        raw.pop("bases", None)
        raw["methods"], raw["matrix"] = with_published(raw, papers, asked)
        if raw.get("rehearsal"):
            raw["methods"] = shortened(raw["methods"], raw["rehearsal"])
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise _explain(error) from None
    check(settings)
    return settings


def typed(value: Any) -> Any:
    """Values of a command line as YAML reads them: Snakemake hands what is nested over as text.

    Args:
        value: mappings and lists of texts, e.g. ``{"training": {"epochs": "3"}}``.
    """
    if isinstance(value, Mapping):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return yaml.safe_load(value) if isinstance(value, str) else value
