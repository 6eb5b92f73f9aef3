"""The settings of a results folder, ``settings.json``, and what each command reads of them."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_text, write_text
from lesion_core.paths import Layout
from lesion_core.settings import Settings
from lesion_core.settings.load import load
from lesion_core.settings.matrix import expand, plan
from lesion_core.settings.run import Run

# Command -> the sections (or keys of sections) that it can read; nothing else of the settings reaches it. Its rule has
# the same as a parameter, so that Snakemake runs it anew when one of them changes. A run's own settings need no entry:
# its id, and so the path of what it makes, changes with them.
READS: dict[str, tuple[str, ...]] = {
    "synthetic": ("synthetic",),
    "download": ("mirror", "synthetic", "data.datasets", "data.ph2", "data.retries", "data.timeout_seconds"),
    "weights": ("mirror", "rehearsal", "data.retries", "data.timeout_seconds"),
    "human-reference": ("mirror", "synthetic", "data.retries", "data.timeout_seconds"),
    "catalog": ("data.datasets", "data.custom", "duplicates", "rehearsal"),
    "splits": ("homes",),
    "reference": ("homes",),
    "harmonize": ("homes",),
    "train": ("compute.device", "rehearsal"),
    "pretrain": ("compute.device", "pretrain"),
    "score": ("compute.device", "scoring"),
    "pseudo-masks": ("compute.device", "scoring.batch_size"),
    "audit-pseudo-masks": ("statistics",),
    "explain": ("compute.device", "explain", "scoring"),
    "robustness": ("compute.device", "robustness", "scoring.classification_on"),
    "tables": ("plan",),
    "statistics": ("plan",),
    "subgroups": ("plan", "subgroups"),
    "figures": ("plan",),
    "ledger": ("plan",),
    "checklists": ("plan",),
    "report": ("plan",),
    "summary": ("plan",),
}
# What is made is the same; homes: see trigger; download asks whether each of the datasets can be had.
APART = ("data.retries", "data.timeout_seconds", "homes", "download data.datasets")


class Sections(SimpleNamespace):
    """Typed sections of the settings; a section that the command does not declare is an error of the command's."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise SettingsError(
            f"The command does not declare that it reads '{name}'",
            ids=sorted(vars(self)),
            remedy="add it to READS in lesion_core/settings/stored.py",
        )


def declared(settings: Settings, command: str) -> Sections:
    """What ``command`` may read of the settings, typed."""
    found = Sections()
    for name in READS[command]:
        head, _, key = name.partition(".")
        section = plan(settings) if head == "plan" else getattr(settings, head)
        if key:
            part = vars(found).setdefault(head, Sections())
            setattr(part, key, getattr(section, key))
        else:
            setattr(found, head, section)
    return found


def dumped(settings: Settings) -> dict[str, Any]:
    """All sections and the plan as JSON values."""
    return {**settings.model_dump(mode="json"), "plan": plan(settings).model_dump(mode="json")}


def trigger(full: dict[str, Any], command: str) -> dict[str, Any]:
    """What ``command`` may read, as JSON values by name: a rule's parameter. ``full`` is from `dumped`.

    ``homes`` are not among them: the rules of pixels and splits have the material of their own.
    """
    names = [name for name in READS[command] if name not in APART and f"{command} {name}" not in APART]
    return {name: reduce(dict.__getitem__, name.split("."), full) for name in names}


def recorded(settings: Settings) -> dict[str, Any]:
    """All sections that results depend on, and the plan, as JSON values; without the places on this machine's disk."""
    full = dumped(settings)
    full["data"] |= {"ph2": None, "custom": None}
    names = ("data", "synthetic", "duplicates", "splits", "protocols", "extraction", "scoring", "statistics")
    return {name: full[name] for name in (*names, "subgroups", "robustness", "explain", "plan")}


def store(settings: Settings, root: Path) -> None:
    """Write ``settings.json`` for the commands that work in a results folder."""
    write_text(Layout(root).settings, settings.model_dump_json(indent=1) + "\n")


def stored(root: Path, profile: str | None = None) -> Settings:
    """The settings of a results folder, or params.yaml's with ``profile``.

    Raises:
        SettingsError: the folder has none, or they cannot be read.
    """
    if profile is not None:
        return load(profile)
    path = Layout(root).settings
    try:
        return Settings.model_validate_json(read_text(path))
    except FileNotFoundError as error:
        remedy = "call snakemake, which writes it, or give --profile, which reads params.yaml"
        raise SettingsError("The results folder has no settings", file=path, remedy=remedy) from error
    except ValidationError as error:
        remedy = "call snakemake with this checkout, which writes it anew"
        raise SettingsError(f"The settings cannot be read: {error}", file=path, remedy=remedy) from error


def find_runs(root: Path, settings: Settings, run_ids: list[str]) -> list[Run]:
    """Runs by id, in the order asked for: of the matrix, else of an earlier one by what their folders say.

    Raises:
        RunError: there is no such run, or its folder cannot be read.
    """
    matrix = expand(settings)
    folders = {run_id: Layout(root).run_files("settings.yaml", run_id) for run_id in run_ids if run_id not in matrix}
    if missing := [run_id for run_id, files in folders.items() if not files]:
        remedy = "`lesion runs` lists a profile's runs; where --config changed them, `snakemake -n` names them"
        raise RunError("There is no such run", ids=missing, remedy=remedy)
    return [matrix[key] if key in matrix else Run.load(folders[key][0].parent) for key in run_ids]
