"""What a job imports is what it pays: rules without a network load no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chain import REPOSITORY

pytestmark = pytest.mark.smoke
RESULTS = Path("results") / "smoke"
HEAVY = {"torch", "torchvision", "timm", "segmentation_models_pytorch"}
COMMANDS = {
    "--help": set(),
    "runs --profile smoke": set(),
    f"paper check {REPOSITORY}/workflow/papers/peft_medsam.yaml": set(),
    "feasible --dice 90 --iou 82.5": set(),
    "trace sam_vit_table_05 U-Net dice --root {root}": set(),
    "splits shared/leak_free --root {root}": set(),
    "catalog --root {root}": set(),
    "reference sam_vit_protocol/leak_free --root {root}": set(),
    "harmonize sam_vit_protocol/leak_free ph2 64 --root {root}": set(),
    "tables --root {root}": set(),
    "ledger --root {root}": set(),
    "statistics --root {root}": set(),
    "figures --root {root}": set(),
    "report --root {root}": set(),
}


def modules(arguments: list[str], folder: Path) -> set[str]:
    """Top-level names in ``sys.modules`` at the end of a command."""
    listed = folder / "modules.txt"
    (folder / "sitecustomize.py").write_text(
        f"import atexit, sys\natexit.register(lambda: open({str(listed)!r}, 'w').write('\\n'.join(sys.modules)))\n"
    )
    command = [str(Path(sys.executable).parent / "lesion"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in listed.read_text().splitlines()}


@pytest.fixture(scope="module")
def root(smoke, tmp_path_factory):
    """A copy that commands may write into."""
    copy = tmp_path_factory.mktemp("startup") / "smoke"
    shutil.copytree(smoke / RESULTS, copy, ignore=shutil.ignore_patterns("downloads", "made"))
    return copy


@pytest.mark.parametrize("command", COMMANDS)
def test_light_commands_import_nothing_heavy(root, tmp_path, command):
    loaded = modules(command.format(root=root).split(), tmp_path)
    assert not loaded & (HEAVY - COMMANDS[command])


def test_help_imports_none_of_our_settings(tmp_path):
    assert "pydantic" not in modules(["--help"], tmp_path)
    assert "numpy" not in modules(["--help"], tmp_path)
