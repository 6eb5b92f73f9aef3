"""A new paper's file, with every key explained."""

from __future__ import annotations

from pathlib import Path

from lesion_core.errors import SettingsError
from lesion_core.files import read_text, write_text
from lesion_core.settings.base import NAME
from lesion_core.settings.papers import FOLDER

DATA_FILES = ("papers/template.yaml",)
TEMPLATE = Path(__file__).with_name("template.yaml")
LONGEST = 40  # a table's name is longer, and takes 64 characters


def write_new(name: str, checkout: Path) -> Path:
    """Write ``workflow/papers/<name>.yaml`` of a checkout: a whole file that plans as it stands; returns its path.

    Raises:
        SettingsError: the name cannot be one, the file exists, or the folder is no checkout.
    """
    path = checkout / FOLDER / f"{name}.yaml"
    if not (NAME.fullmatch(name) and name == name.lower() and len(name) <= LONGEST):
        text = (
            "A paper's name takes lower-case letters, digits, _, - and +, at most 40, and starts with a letter or digit"
        )
        raise SettingsError(text, ids=[name], remedy="lesion paper new my_paper")
    if not (checkout / "params.yaml").is_file():
        raise SettingsError("This folder is no checkout", file=checkout, remedy="call it where params.yaml lies")
    if path.exists():
        raise SettingsError("The paper has a file already", file=path, remedy="give another name, or edit it")
    write_text(path, read_text(TEMPLATE).replace("my_paper", name))
    return path
