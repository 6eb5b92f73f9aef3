"""`lesion init`: what a wheel brings is what the checkout has, and nothing is overwritten."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import lesion_core
from lesion_core.errors import RunError
from lesion_core.sharing.project import PROJECT, start_project

REPOSITORY = Path(__file__).parents[2]


def test_a_folder_gets_the_workflow_and_is_not_overwritten(tmp_path):
    names = start_project(tmp_path / "new")
    assert {"Snakefile", "params.yaml", "requirements.lock", "workflow", "profiles"} <= set(names)
    for path in (tmp_path / "new").rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert path.read_bytes() == (REPOSITORY / path.relative_to(tmp_path / "new")).read_bytes()
    (tmp_path / "new" / "params.yaml").write_text("mine")
    with pytest.raises(RunError, match="in use already"):
        start_project(tmp_path / "new")
    assert (tmp_path / "new" / "params.yaml").read_text() == "mine"


def test_the_settings_of_the_folder_one_stands_in_count(tmp_path):
    folder = tmp_path / "new"
    start_project(folder)
    (folder / "params.yaml").write_text("splits: {}\nsplits: {}\n")
    command = [Path(sys.executable).with_name("lesion"), "runs", "--profile", "smoke"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(folder / "params.yaml") in done.stderr


def test_the_wheel_holds_all_of_it(tmp_path):
    shutil.copytree(REPOSITORY / "lesion_core", tmp_path / "copy" / "lesion_core")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path / "copy")
    command = [sys.executable, "-m", "pip", "wheel", str(tmp_path / "copy"), "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run([*command, "-w", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name.removeprefix("lesion_core/project/") for name in archive.namelist() if "/project/" in name}
    expected = {
        path.relative_to(PROJECT).as_posix()
        for top in PROJECT.iterdir()
        for path in (top.rglob("*") if top.is_dir() else [top])
        if path.is_file()
    }
    assert packed == expected


def test_the_version_stands_in_the_package_and_the_citation_alone():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert cited == lesion_core.__version__
