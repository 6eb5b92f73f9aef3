"""Without the packages of the extra ``train``: what works, and what the rest answers."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
REQUIRED = [re.match(r"[\w-]+", line)[0] for line in PROJECT["optional-dependencies"]["train"]]
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name}", name=name)
sys.meta_path.insert(0, Missing())
from lesion_core.cli import main
main()
"""


def light(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """``lesion`` where nothing of the extra can be imported."""
    code = f"MISSING = {[name.replace('-', '_') for name in REQUIRED]}{WITHOUT}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("feasible", "--dice", "94.27", "--iou", "92.83", "--n", "519"), 0, "possible only if"),
        (("feasible-effect", "--n", "3", "--d", "0.89", "--p-below", "0.05"), 1, "Impossible"),
        (("leakage", "--releases", "."), 1, "no list of ids"),
        (("paper", "check", "none.yaml"), 2, "none.yaml"),
        (("audit", "--root", "."), 2, "manifest"),
        (("predict", "--segmenter", "run", "--images", "images", "--out", "out"), 2, r"train\]"),
    ],
)
def test_what_works_without_torch(tmp_path, arguments, status, said):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    done = light(*arguments, cwd=tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode == status, told
    assert re.search(said, told), told
    assert "Traceback" not in told
    assert ("is not installed" in told) == (arguments[0] == "predict")


def test_the_remedy_names_the_extra_that_holds_the_package():
    from lesion_core.cli import EXTRAS

    extras = PROJECT["optional-dependencies"]
    held = {re.match(r"[\w-]+", line)[0]: extra for extra in ("serve", "export") for line in extras[extra]}
    held.pop("lesion-core")
    assert held == EXTRAS
