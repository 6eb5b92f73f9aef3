"""params.yaml and its overlays as typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lesion_core.errors import SettingsError
from lesion_core.settings import Name, Settings
from lesion_core.settings.check import check
from lesion_core.settings.matrix import expand as expand  # who reads settings wants the runs that they ask for
from lesion_core.settings.matrix import plan as plan

REPOSITORY = Path(__file__).resolve().parents[2]


class Unresolved(BaseModel):
    """Methods and bases as written, before ``extends``."""

    methods: dict[Name, dict[str, Any]] = {}
    bases: dict[Name, dict[str, Any]] = {}


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which plain YAML silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return node


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; everything else in ``overlay`` replaces what ``base`` has."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise SettingsError("Settings file not found", file=path, remedy="run from a full checkout") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"It is not UTF-8: {error}", file=path, remedy="save it as UTF-8") from error
    except RecursionError as error:
        raise SettingsError("It is nested too deeply", file=path, remedy="see params.yaml") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"Not valid YAML: {error}", file=path, remedy="fix the line named above") from error
    if not isinstance(content, dict):
        raise SettingsError("The file must hold a mapping", file=path, remedy="see params.yaml")
    return content


def _extend(written: Unresolved) -> dict[str, Any]:
    """Resolve ``extends`` of every method: a base or another method, merged underneath."""
    known = {**written.bases, **written.methods}
    resolved: dict[str, Any] = {}

    def resolve(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if name in chain:
            raise SettingsError(f"methods.{name}.extends goes in a circle: {' -> '.join((*chain, name))}")
        if name not in resolved:
            body = dict(known[name])
            parent = body.pop("extends", None)
            if parent is not None and not (isinstance(parent, str) and parent in known):
                raise SettingsError(
                    f"methods.{name}.extends names one base or method; {parent!r} does not exist",
                    file="params.yaml",
                    remedy=f"use one of: {', '.join(sorted(known))}",
                )
            resolved[name] = body if parent is None else merge(resolve(parent, (*chain, name)), body)
        return resolved[name]

    return {name: resolve(name, ()) for name in written.methods}


def _explain(error: ValidationError) -> SettingsError:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if part not in ("segmentation", "classification", "joint"))
        given = "" if isinstance(item.get("input"), Mapping | list) else f" (given: {item.get('input')!r})"
        text = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{key or 'settings'}: {text}{given}")
    return SettingsError(
        "Settings refused:\n    " + "\n    ".join(lines),
        file="params.yaml",
        remedy="each key is explained in params.yaml; a profile's overlay is workflow/profiles/<profile>.yaml",
    )


def load(
    profile: str | None = None, overrides: Mapping[str, Any] | None = None, checkout: Path = REPOSITORY
) -> Settings:
    """Read params.yaml, lay the profile's overlay and then ``overrides`` over it, and validate.

    Args:
        profile: ``smoke``, ``mini`` or ``paper``; None takes that of ``overrides``, else the file's own.
        overrides: further values, e.g. from a command line; nested mappings merge.
        checkout: where params.yaml and workflow/profiles lie.

    Raises:
        SettingsError: a key is unknown, a value has the wrong type, or two values cannot stand together.
    """
    base, overrides = _read_yaml(checkout / "params.yaml"), overrides or {}
    name = profile or overrides.get("profile") or base.get("profile")
    overlays = {path.stem: path for path in sorted((checkout / "workflow" / "profiles").glob("*.yaml"))}
    if name not in overlays:
        raise SettingsError(
            f"profile: '{name}' does not exist", file="params.yaml", remedy=f"use one of: {', '.join(overlays)}"
        )
    raw = merge(merge(base, _read_yaml(overlays[name])), overrides) | {"profile": name}
    try:
        raw["methods"] = _extend(Unresolved.model_validate(raw))
        raw.pop("bases", None)
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
