"""A folder to run the pipeline in, for an installed package without its checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from lesion_core.errors import RunError

PROJECT = Path(__file__).resolve().parents[1] / "project"
DATA_FILES = ("project",)


def start_project(folder: Path) -> list[str]:
    """Copy Snakefile, rules, papers' files and settings into ``folder``, which is made; their names.

    Raises:
        RunError: one of them is there already; nothing is copied.
    """
    names = sorted(path.name for path in PROJECT.iterdir())
    if there := [name for name in names if (folder / name).exists()]:
        raise RunError("The folder is in use already", file=folder, ids=there, remedy="name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    return names
