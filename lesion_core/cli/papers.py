"""Commands for a paper's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Write and check a paper's file (docs/your_paper.md).")


@app.command()
def new(name: Annotated[str, typer.Argument(help="The file's name, e.g. my_paper.")]) -> None:
    """Write workflow/papers/NAME.yaml, every key explained; edit it, then check it. Refuses to overwrite."""
    from lesion_core.papers.new import write_new

    path = write_new(name, Path.cwd())
    typer.echo(
        f"{path.relative_to(Path.cwd())} is written. Edit it, then: lesion paper check {path.relative_to(Path.cwd())}"
    )


@app.command()
def check(file: Annotated[Path, typer.Argument(help="workflow/papers/NAME.yaml", exists=True, dir_okay=False)]) -> None:
    """What is wrong or missing in a paper's file, what would run, and which printed pairs are impossible.

    Exit status 1 where the file is refused or something is missing.
    """
    from lesion_core.papers.check import check_paper, check_text

    found = check_paper(file)
    typer.echo(check_text(found))
    if not found.is_good:
        raise typer.Exit(1)
