"""params.yaml, its overlays, and the experiment matrix expanded into runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lesion_core.errors import SettingsError
from lesion_core.runs import Run
from lesion_core.settings import NETWORKS, Plan, SegmentationModel, Settings

REPOSITORY = Path(__file__).resolve().parent.parent
PARAMS = REPOSITORY / "params.yaml"
PROFILES = REPOSITORY / "workflow" / "profiles"
WITH_MASKS = ("isic2016", "isic2017", "isic2018_task1", "ph2", "ham10000", "custom")
WITH_LABELS = ("isic2018_task3", "isic2019", "ham10000", "custom")


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
    bases = raw.pop("bases", {})
    raw["methods"] = _extend(raw.get("methods", {}), bases)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise _explain(error) from None
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Refuse combinations across sections that no single section can see.

    Raises:
        SettingsError: naming the key and what is allowed.
    """
    problems: list[str] = []
    methods = settings.methods
    present = set(settings.data.datasets)

    def expect(condition: bool, key: str, text: str) -> None:
        if not condition:
            problems.append(f"{key}: {text}")

    expect(
        ("custom" in present) == (settings.data.custom is not None),
        "data.custom",
        "must be set exactly when data.datasets lists custom",
    )
    for name in settings.splits.official:
        expect(name in present, "splits.official", f"'{name}' is not in data.datasets ({', '.join(sorted(present))})")
    expect(
        settings.profile != "smoke" or settings.synthetic is not None,
        "synthetic",
        "the smoke profile makes its own images and needs this section",
    )
    for key, names in (
        ("scoring.segmentation_on", settings.scoring.segmentation_on),
        ("scoring.classification_on", settings.scoring.classification_on),
    ):
        for name in names:
            expect(name in present, key, f"'{name}' is not in data.datasets ({', '.join(sorted(present))})")
    for key in ("methods", "ablations"):
        for name in getattr(settings.matrix, key):
            expect(name in methods, f"matrix.{key}", f"'{name}' is none of methods ({', '.join(sorted(methods))})")
    for name in settings.matrix.ablations:
        expect(name not in settings.matrix.methods, "matrix.ablations", f"'{name}' stands in matrix.methods too")
    expect(len(set(settings.matrix.seeds)) == len(settings.matrix.seeds), "matrix.seeds", "a seed stands twice")
    for name, seeds in settings.matrix.seeds_for.items():
        key = f"matrix.seeds_for.{name}"
        expect(name in methods, key, "is none of methods")
        expect(set(seeds) <= set(settings.matrix.seeds), key, f"must be among matrix.seeds ({settings.matrix.seeds})")
        expect(len(set(seeds)) == len(seeds), key, "a seed stands twice")
    for name in (settings.statistics.segmentation_proposed, settings.statistics.classification_proposed):
        expect(name in methods, "statistics", f"'{name}' is none of methods")
    for name in settings.explain.methods:
        expect(
            name in methods and methods[name].task != "derived",
            "explain.methods",
            f"'{name}' is no method with a network of its own (an average has several: explain what it averages)",
        )
        padded = name in methods and methods[name].task == "segmentation" and methods[name].model.frame == "padded"
        expect(not padded, "explain.methods", f"'{name}' has SAM's frame, and maps are of squeezed photographs")
    for name in settings.subgroups.methods:
        scored = name in methods and methods[name].task != "segmentation"
        expect(scored, "subgroups.methods", f"'{name}' is no method that classifies")
    for name in settings.robustness.methods:
        expect(_reached(methods.get(name)), "robustness.methods", f"'{name}' is no classifier with masks of its own")
    for table, spec in settings.tables.items():
        for row in spec.rows:
            expect(
                row.method in methods,
                f"tables.{table}.rows",
                f"'{row.method}' is none of methods",
            )
    for name in _closure(settings, problems):
        method = methods[name]
        if method.task == "derived":
            lone = method.how == "ensemble" and len(_seeds(settings, method.of)) < 2
            said = f"'{method.of}' has one seed, and one run is no ensemble: take '{name}' out of matrix.methods"
            expect(not lone, f"methods.{name}.of", said)
            continue
        for key, needed, task in _needs(settings, name):
            if task == "segmentation" and needed in methods and methods[needed].task == task:
                expect(*_promptable(method.task, f"methods.{name}.{key}", needed, methods[needed].model))
        allowed = WITH_LABELS if method.task == "classification" else WITH_MASKS
        for dataset in method.train_on:
            expect(
                dataset in present,
                f"methods.{name}.train_on",
                f"'{dataset}' is not in data.datasets ({', '.join(sorted(present))})",
            )
            expect(
                dataset in allowed,
                f"methods.{name}.train_on",
                f"'{dataset}' cannot train a {method.task} method; allowed: {', '.join(allowed)}",
            )
    if problems:
        raise SettingsError(
            "Settings refused:\n    " + "\n    ".join(dict.fromkeys(problems)),
            file=PARAMS.name,
            remedy="each key is explained in params.yaml",
        )


def _reached(method: Any) -> bool:
    """Whether a corruption of a photograph reaches all that the method sees; true and shuffled masks stay the same."""
    if method is None or method.task in ("segmentation", "derived"):
        return False
    return method.task == "joint" or (method.masks != "true" and method.mask_order == "own")


def _promptable(task: str, key: str, name: str, model: SegmentationModel) -> tuple[bool, str, str]:
    """(whether a segmenter gets the prompts that it learnt with, key, what is said otherwise)."""
    if task == "joint":
        return model.prompt == "none", key, f"'{name}' learnt with {model.prompt}, and joint training gives no prompts"
    said = f"'{name}' learnt with {model.prompt}, and nobody clicks for masks: take one with prompt none or oracle_box"
    return model.unaided_prompt is not None, key, said


def _needs(settings: Settings, name: str) -> list[tuple[str, str, str]]:
    """(key, needed method, needed task) of one method."""
    method = settings.methods[name]
    if method.task == "classification" and method.masks not in (None, "true"):
        return [("masks", str(method.masks), "segmentation")]
    if method.task == "joint":
        return [
            ("segmenter", method.segmenter, "segmentation"),
            ("classifier", method.classifier, "classification"),
        ]
    if method.task == "derived":
        return [("of", method.of, "classification")]
    return []


def _closure(settings: Settings, problems: list[str]) -> list[str]:
    """The matrix's methods, then its ablations, and all that they need, in an order that can be run."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered or name not in settings.methods:
            return
        for key, needed, task in _needs(settings, name):
            other = settings.methods.get(needed)
            if other is None or other.task != task:
                problems.append(f"methods.{name}.{key}: '{needed}' is not a {task} method")
                continue
            visit(needed)
        ordered.append(name)

    for name in (*settings.matrix.methods, *settings.matrix.ablations):
        visit(name)
    return ordered


def expand(settings: Settings) -> dict[str, Run]:
    """The experiment matrix as runs by id, in an order that can be run; equal settings share one run.

    A run is an ablation's where ``matrix.ablations`` alone asks for it and nothing is built on it, so that every run
    has one owner and ablations are the graph's leaves.
    """
    runs: dict[str, Run] = {}
    by_name: dict[tuple[str, int], Run] = {}
    by_content: dict[str, Run] = {}
    for name in _closure(settings, []):
        spec = settings.methods[name]
        for seed in _seeds(settings, name):
            linked: dict[str, Any] = {}
            for key, needed, _ in _needs(settings, name):
                other = by_name.get((needed, seed)) or by_name[(needed, _seeds(settings, needed)[0])]
                if key == "of":
                    members = _seeds(settings, needed) if spec.how == "ensemble" else [other.seed]
                    linked["source_runs"] = [by_name[(needed, member)].run_id for member in members]
                else:
                    linked["classifier_run" if key == "classifier" else "segmenter_run"] = other.run_id
            run = Run(
                method=name,
                seed=seed,
                spec=spec,
                harmonization=settings.harmonization,
                extraction=settings.extraction,
                threads=settings.compute.threads,
                processes=settings.compute.processes,
                ablation=name in settings.matrix.ablations,
                **linked,
            )
            content = run.run_id.rsplit("-", 1)[1]
            run = by_content.setdefault(content, run)
            by_name[(name, seed)] = run
            runs.setdefault(run.run_id, run)
    needed = {key for run in runs.values() for key in (run.segmenter_run, run.classifier_run, *run.source_runs)}
    return {key: run.model_copy(update={"ablation": run.ablation and key not in needed}) for key, run in runs.items()}


def _seeds(settings: Settings, name: str) -> list[int]:
    """The seeds that a method is run with: ``matrix.seeds_for``'s, else all; one where nothing is random."""
    spec = settings.methods[name]
    if spec.task == "derived":  # one run per run that is augmented; one of all of them
        own = _seeds(settings, spec.of)
        return own[:1] if spec.how == "ensemble" else settings.matrix.seeds_for.get(name, own)
    seeds = settings.matrix.seeds_for.get(name, settings.matrix.seeds)
    return seeds if _is_seeded(settings.methods[name]) else seeds[:1]


def _is_seeded(spec: Any) -> bool:
    """Methods without randomness run once, whatever the number of seeds."""
    if spec.task == "segmentation":
        random_start = spec.model.adapter != "none" and spec.model.adapter_init == "random"
        return random_start or (
            spec.model.kind != "otsu" and not (spec.model.kind == "sam" and spec.model.adapter == "none")
        )
    return spec.task == "joint" or spec.model.kind in NETWORKS


def plan(settings: Settings) -> Plan:
    """What the report's stages are told: tables, and the runs of every method (aliases share runs)."""
    runs = expand(settings).values()
    return Plan(
        profile=settings.profile,
        tables=settings.tables,
        runs={
            name: [run.run_id for run in runs if run.spec == settings.methods[name]] for name in _closure(settings, [])
        },
        ablations=[run.run_id for run in runs if run.ablation],
        statistics=settings.statistics,
        ledger=settings.ledger,
        report=settings.report,
    )


def recorded(settings: Settings) -> dict[str, Any]:
    """All sections that results depend on, and the plan, as JSON values; without the places on this machine's disk."""
    full = settings.model_dump(mode="json")
    full["data"] |= {"ph2": None, "custom": None}
    names = ("data", "synthetic", "duplicates", "splits", "harmonization", "extraction", "scoring", "statistics")
    names += ("subgroups", "robustness", "explain")
    return {**{name: full[name] for name in names}, "plan": plan(settings).model_dump(mode="json")}


SECTIONS = 'an object of sections, e.g. {"scoring": {...}}; or leave --settings out and params.yaml is read'


class Sections(SimpleNamespace):
    """Typed sections of the settings; to ask for one that was not handed over is an error of the caller's."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise SettingsError(
            f"The settings lack the section '{name}'", ids=sorted(vars(self)), remedy=f"give {SECTIONS}"
        )


def sections(text: str) -> Sections:
    """The sections of the settings that a rule hands to a command, as JSON, typed; anything else is absent.

    Raises:
        SettingsError: the text is no JSON object, or a section is unknown or does not validate; later, a section that
            was not handed over is asked for.
    """
    fields = {name: field.annotation for name, field in Settings.model_fields.items()} | {"plan": Plan, "run": Run}
    typed = {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"The settings are no JSON: {error}", remedy=f"give {SECTIONS}") from None
    if not isinstance(content, dict):
        raise SettingsError("The settings are no JSON object", remedy=f"give {SECTIONS}")
    for name, value in content.items():
        if name not in fields:
            raise SettingsError(f"'{name}' is no section of the settings", remedy=f"use: {', '.join(fields)}")
        try:
            typed[name] = TypeAdapter(fields[name]).validate_python(value)
        except ValidationError as error:
            raise _explain(error) from None
    return Sections(**typed)
