"""The command line: one subcommand per rule, ``lesion predict``, and the one reader of params.yaml in Python.

A rule hands a command exactly the sections it declares (``--settings`` JSON); a person leaves that out and the
command reads params.yaml with ``--profile``. Everything is imported inside the commands: ``--help`` must be instant.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import typer

from lesion_core.cli import checks, data, results, runs, sharing

# Before torch is imported: huge pages, as for the jobs of the workflow; page faults took a third of a SAM job's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Skin-lesion segmentation and classification, from download to a verdict on each published claim.",
)

for _room in (data, runs, results, checks, sharing):
    for _command in _room.COMMANDS:
        app.command()(_command)


def main() -> None:
    """Entry point: typed errors, a full disk and full memory become a message on stderr and exit status 2."""
    from lesion_core.errors import LesionError, RunError, storage_error

    try:
        app()
    except LesionError as error:
        _refuse(error)
    except OSError as error:
        told = storage_error(error)
        if told is None:
            raise
        _refuse(told)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _refuse(
            RunError(
                f"Out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                remedy="lower scoring.batch_size or training.batch_size, model.image_size, or the jobs that run beside",
            )
        )


def _out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from lesion_core.training.oom import is_out_of_memory

    return is_out_of_memory(error)


def _refuse(error: Exception) -> None:
    with suppress(OSError):  # the log may lie on the very disk that is full
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)
