"""params.yaml and its overlays as typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lesion_core.errors import SettingsError
from lesion_core.settings import Name, Settings
from lesion_core.settings.check import check
from lesion_core.settings.matrix import expand as expand  # who reads settings wants the runs that they ask for
from lesion_core.settings.matrix import plan

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = REPOSITORY / "params.yaml"
PROFILES = REPOSITORY / "workflow" / "profiles"


class Unresolved(BaseModel):
    """Methods and bases as written, before ``extends``."""

    methods: dict[Name, dict[str, Any]] = {}
    bases: dict[Name, dict[str, Any]] = {}


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; everything else in ``overlay`` replaces what ``base`` has."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError("Settings file not found", file=path, remedy="run from a full checkout") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"Not valid YAML: {error}", file=path, remedy="mend the line named above") from error
    if not isinstance(content, dict):
        raise SettingsError("The file must hold a mapping", file=path, remedy="see params.yaml")
    return content


def _extend(methods: Mapping[str, Any], bases: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve ``extends`` of every method: a base or another method, merged underneath."""
    resolved: dict[str, Any] = {}

    def resolve(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if name in chain:
            raise SettingsError(f"methods.{name}.extends goes in a circle: {' -> '.join((*chain, name))}")
        if name in resolved:
            return resolved[name]
        own = methods.get(name, bases.get(name))
        if not isinstance(own, Mapping):
            raise SettingsError(
                f"methods.{chain[-1] if chain else name}.extends names '{name}', which does not exist",
                file=PARAMS.name,
                remedy=f"use one of: {', '.join(sorted({*methods, *bases}))}",
            )
        parent = own.get("extends")
        if not isinstance(parent, str | None):
            raise SettingsError(f"{name}.extends: it names one base or method, not {parent!r}", file=PARAMS.name)
        body = {key: value for key, value in own.items() if key != "extends"}
        resolved[name] = merge(resolve(parent, (*chain, name)), body) if parent else dict(body)
        return resolved[name]

    return {name: resolve(name, ()) for name in methods}


def _explain(error: ValidationError) -> SettingsError:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if part not in ("segmentation", "classification", "joint"))
        given = "" if isinstance(item.get("input"), Mapping | list) else f" (given: {item.get('input')!r})"
        text = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{key or 'settings'}: {text}{given}")
    return SettingsError(
        "Settings refused:\n    " + "\n    ".join(lines),
        file=PARAMS.name,
        remedy="each key is explained in params.yaml; a profile's overlay is workflow/profiles/<profile>.yaml",
    )


def load(
    profile: str | None = None, overrides: Mapping[str, Any] | None = None, params: Path | None = None
) -> Settings:
    """Read params.yaml, lay the profile's overlay and then ``overrides`` over it, and validate.

    Args:
        profile: ``smoke``, ``mini`` or ``paper``; None takes the file's own.
        overrides: further values, e.g. from a command line; nested mappings merge.
        params: another file than the checkout's params.yaml.

    Raises:
        SettingsError: a key is unknown, a value has the wrong type, or two values cannot stand together.
    """
    base = _read_yaml(params or PARAMS)
    return resolve(base, profile, overrides)


def typed(value: Any) -> Any:
    """Values of a command line as YAML reads them: Snakemake hands what is nested over as text.

    Args:
        value: mappings and lists of texts, e.g. ``{"training": {"epochs": "3"}}``.
    """
    import yaml

    if isinstance(value, Mapping):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


def resolve(
    base: Mapping[str, Any], profile: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """As `load`, from a mapping that was read already (Snakemake's ``config``)."""
    overrides = dict(overrides or {})
    name = profile or overrides.get("profile") or base.get("profile")
    overlay_file = PROFILES / f"{name}.yaml"
    if not overlay_file.is_file():
        raise SettingsError(
            f"profile: '{name}' does not exist",
            file=PARAMS.name,
            remedy=f"use one of: {', '.join(sorted(path.stem for path in PROFILES.glob('*.yaml')))}",
        )
    raw = merge(merge(base, _read_yaml(overlay_file)), overrides)
    raw["profile"] = name
    try:
        written = Unresolved.model_validate(raw)
        raw.pop("bases", None)
        raw["methods"] = _extend(written.methods, written.bases)
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise _explain(error) from None
    check(settings)
    return settings


def recorded(settings: Settings) -> dict[str, Any]:
    """All sections that results depend on, and the plan, as JSON values; without the places on this machine's disk."""
    full = settings.model_dump(mode="json")
    full["data"] |= {"ph2": None, "custom": None}
    names = ("data", "synthetic", "duplicates", "splits", "harmonization", "extraction", "scoring", "statistics")
    names += ("subgroups", "robustness", "explain")
    return {**{name: full[name] for name in names}, "plan": plan(settings).model_dump(mode="json")}
