"""What commands share: options, and the settings that they are given or read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from lesion_core.settings.run import Run

Given = Annotated[
    str | None,
    typer.Option("--settings", help="Sections of the settings as JSON (rules use this); default: params.yaml."),
]
Profile = Annotated[str | None, typer.Option("--profile", help="smoke, mini or paper; default: params.yaml's.")]


def _results(root: Path) -> Path:
    if not root.is_dir():
        from lesion_core.errors import StorageError

        remedy = "give results/<profile>; `snakemake` makes it, e.g. `snakemake --cores all --config profile=smoke`"
        raise StorageError("There is no results folder", file=root, remedy=remedy)
    return root


Root = Annotated[Path, typer.Option("--root", help="Results folder, results/<profile>.", callback=_results)]
RunDir = Annotated[Path, typer.Option("--run", help="A run's folder, results/<profile>/runs/<place>/<run_id>.")]
Out = Annotated[Path, typer.Option("--out", help="What is written.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: a GPU if there is one.")]
Side = Annotated[int, typer.Option("--size", min=1, help="Side of the square images in pixels.")]


def settings_of(given: str | None, profile: str | None) -> Any:
    """The sections that a rule hands over, or all of params.yaml with its plan."""
    from lesion_core.settings import load as config

    if given is not None:
        return config.sections(given)
    settings = config.load(profile)
    object.__setattr__(settings, "plan", config.plan(settings))
    return settings


def one_run(given: str | None, profile: str | None, run_id: str | None) -> Run:
    """The run that a rule hands over, or the matrix's run of that id."""
    from lesion_core.errors import SettingsError
    from lesion_core.settings import load as config

    if given is not None:
        return config.sections(given).run
    runs = config.expand(config.load(profile))
    if run_id not in runs:
        asked = "no run is named" if run_id is None else f"run '{run_id}' is not in the matrix"
        raise SettingsError(asked, ids=runs, remedy="give --run and one of these ids (`lesion runs` lists them)")
    return runs[run_id]


def ready(run_dir: Path, device: str) -> tuple[Run, str]:
    """A trained run's settings, with torch made deterministic on its number of threads, and the device it is to use."""
    from lesion_core.seeding import make_deterministic
    from lesion_core.settings.run import Run
    from lesion_core.training.engine import resolve_device

    run = Run.load(run_dir)
    make_deterministic(run.threads)
    return run, resolve_device(device)
