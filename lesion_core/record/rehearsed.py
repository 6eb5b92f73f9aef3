"""What tells a rehearsal from a result, in the folder itself, whatever it is called and whatever its settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_core.errors import RunError
from lesion_core.files import read_json
from lesion_core.paths import Layout

DRAWN = "drawn at random for a rehearsal"


def signs_of_rehearsal(root: Path) -> list[str]:
    """Runs of a few steps and weights that were drawn at random, by the names of their files below ``root``."""
    layout = Layout(Path(root))
    signs = []
    for path in layout.run_files("provenance.json"):
        training: dict[str, Any] = read_json(path)["settings"]["spec"].get("training", {})
        if training.get("rehearsed_steps") is not None:
            signs.append(f"{path.relative_to(layout.root).as_posix()}: {training['rehearsed_steps']} rehearsed steps")
    for path in sorted(layout.weights("x").parent.glob("*.json")):
        if read_json(path).get("source") == DRAWN:
            signs.append(f"{path.relative_to(layout.root).as_posix()}: {DRAWN}")
    return signs


def refuse_rehearsal(root: Path) -> None:
    """
    Raises:
        RunError: the folder is a rehearsal's, and what is asked for hands on results.
    """
    if signs := signs_of_rehearsal(root):
        raise RunError("This folder is a rehearsal: no number of it is a result", file=root, ids=signs)
