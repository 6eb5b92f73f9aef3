"""The command line: one subcommand per rule, and the commands for people.

A command reads the settings from the results folder (``settings.json``, which Snakemake writes) and sees of them what
it declares in ``settings.stored.READS``; with ``--profile`` it reads params.yaml. Everything is imported inside the
commands: ``--help`` must be instant, and a job pays for what it uses.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer

from lesion_core.cli import checks, data, papers, results, runs, sharing

# Before torch is imported: huge pages, as for the jobs of the workflow; page faults took a third of a SAM job's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Skin-lesion segmentation and classification, from download to a verdict on each published claim.",
)
MODULES = (runs, results, checks, sharing, data)
for _panel, _commands in (
    ("Commands for people", [command for module in MODULES for command in module.FOR_PEOPLE]),
    ("Steps of the pipeline (Snakemake calls them)", [command for module in MODULES for command in module.FOR_RULES]),
):
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)

app.add_typer(papers.app, name="paper", rich_help_panel="Commands for people")


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lesion {version('lesion_core')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    pass


# which extra of pyproject.toml holds a package that is missing
EXTRAS = {"starlette": "serve", "uvicorn": "serve", "onnx": "export", "onnxscript": "export"}


def main() -> None:
    """Entry point: typed errors, a full disk and full memory become a message on stderr and exit status 2."""
    from lesion_core.errors import LesionError, RunError, storage_error

    try:
        app()
    except LesionError as error:
        _tell(error)
    except OSError as error:
        told = storage_error(error)
        if told is None:
            raise
        _tell(told)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lesion_core"):
            raise
        extra = EXTRAS.get(error.name.split(".")[0], "train")
        _tell(RunError(f"{error.name} is not installed", remedy=f"pip install '.[{extra}]' in this project's folder"))
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _tell(
            RunError(
                f"Out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                remedy="lower scoring.batch_size or training.batch_size, model.image_size, or the jobs that run beside",
            )
        )


def _out_of_memory(error: Exception) -> bool:
    """Python's error, or a RuntimeError of torch's: of a GPU's allocator, the CPU's, or NVIDIA's libraries."""
    words = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _tell(error: Exception) -> None:
    with suppress(OSError):  # the log may lie on the very disk that is full
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)
