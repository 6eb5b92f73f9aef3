"""What a command imports is what it pays."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "segmentation_models_pytorch"}
LIGHT = ("acquire", "audit", "catalog", "metrics", "papers", "plan", "record", "report", "settings", "sharing", "stats")
RESCORING = "lesion_core.audit.rescore"  # imported by the audit only where scores are to be computed anew
EVERY = f"""
import importlib, pkgutil, lesion_core
for name in {LIGHT}:
    package = importlib.import_module(f"lesion_core.{{name}}")
    for module in pkgutil.walk_packages(package.__path__, f"lesion_core.{{name}}."):
        if module.name != {RESCORING!r}:
            importlib.import_module(module.name)
import lesion_core.pixels.harmonize, lesion_core.pixels.reference
"""
HELP = """
from typer.testing import CliRunner
from lesion_core.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
"""


@pytest.mark.parametrize(("code", "kept_out"), [(EVERY, HEAVY), (HELP, HEAVY | {"pydantic", "numpy"})])
def test_what_needs_no_network_loads_none(code, kept_out):
    """Of packages by their own modules, also through libraries; the command line loads a command when it is called."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not {name.split(".")[0] for name in done.stdout.split()} & kept_out
