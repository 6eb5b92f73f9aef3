"""What commands share: options, and the settings that they read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lesion_core.settings.run import Run
    from lesion_core.settings.stored import Sections


def _existing(root: Path | None) -> Path | None:
    if root is not None and not root.is_dir():
        from lesion_core.errors import StorageError

        remedy = "give results/<profile>; `snakemake` makes it, e.g. `snakemake --cores all --config profile=smoke`"
        raise StorageError("There is no results folder", file=root, remedy=remedy)
    return root


ROOT_HELP = "Results folder, results/<profile>."
Root = Annotated[Path, typer.Option("--root", help=ROOT_HELP, callback=_existing)]
OptionalRoot = Annotated[Path | None, typer.Option("--root", help=ROOT_HELP, callback=_existing)]
NewRoot = Annotated[Path, typer.Option("--root", help=ROOT_HELP)]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Read params.yaml with this profile, not the results' settings.json.")
]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID...", help="`lesion runs` lists them.")]
Dataset = Annotated[str, typer.Argument(help="As the settings call it, e.g. ham10000.")]
HomeName = Annotated[str, typer.Argument(metavar="PROTOCOL/RULE", help="E.g. shared/leak_free.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option("--device", help="auto: a GPU if there is one. Default: the settings'."),
]


def sections(command: str, root: Path, profile: str | None) -> Sections:
    """What a command declares to read of the settings."""
    from lesion_core.settings.stored import declared, stored

    return declared(stored(root, profile), command)


def runs_and_sections(
    command: str, run_ids: list[str], root: Path, profile: str | None
) -> tuple[list[Run], list[Path], Sections]:
    """Runs by id, their folders, and what the command declares to read of the settings."""
    from lesion_core.paths import Layout
    from lesion_core.settings.stored import declared, find_runs, stored

    settings = stored(root, profile)
    runs = find_runs(root, settings, run_ids)
    return runs, [Layout(root).run(run.place, run.run_id) for run in runs], declared(settings, command)
