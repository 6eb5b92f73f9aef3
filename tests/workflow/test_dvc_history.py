"""What DVC tells of two commits, and how an earlier one comes back: a project of one stage, no pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from lesion_core.files import read_json
from lesion_core.report.table_cells import Cell, write_cells
from lesion_core.settings import load as config
from lesion_core.sharing.summary import write_summary

SUMMARY = "results/smoke/summary"
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]


def say(folder: Path, *command: object) -> str:
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def write_value(project: Path, value: float) -> None:
    """Cells of tables, and the summary that follows from the main ones."""
    shared = {"table": "sam_vit_table_05", "method": "unet", "dataset": "isic2018_task1"}
    cells = [
        shared | {"column": "dice", "value": value},
        shared | {"column": "iou", "value": 84.6},
        shared | {"column": "dice", "table": "sam_vit_table_09", "value": 1.0},
        shared | {"column": "dice", "method": "sam_adapter", "value": None},
    ]
    root = project / "results" / "smoke"
    write_cells([dict.fromkeys(Cell.__annotations__) | cell for cell in cells], root / "tables" / "cells.parquet")
    write_summary(root, config.plan(config.load("smoke")))


def value_of(project: Path) -> float:
    assert read_json(project / SUMMARY / "sam_adapter.json") == {}
    return read_json(project / SUMMARY / "unet.json")["isic2018_task1"]["dice"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Two commits, in which one cell differs; the metrics are those of our dvc.yaml."""
    folder = tmp_path_factory.mktemp("history") / "project"
    folder.mkdir()
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    ignored = shutil.ignore_patterns("cache", "tmp", "config.local")
    shutil.copytree(REPOSITORY / ".dvc", folder / ".dvc", ignore=ignored)
    metrics = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["metrics"]
    assert metrics == ["${results}/summary"]
    content = {"stages": {"report": {"cmd": "true", "outs": [SUMMARY]}}, "metrics": [SUMMARY]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content))
    say(folder, "git", "init", "-q")
    for value in (90.25, 91.5):
        write_value(folder, value)
        say(folder, "dvc", "commit", "--force", "--quiet")
        say(folder, "git", "add", "--all")
        say(folder, "git", *IDENTITY, "commit", "-q", "-m", "results")
    return folder


def test_metrics_diff_names_method_dataset_and_metric_with_the_old_and_the_new_value(project):
    [(file, changes)] = json.loads(say(project, "dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json")).items()
    assert file.replace(os.sep, "/") == f"{SUMMARY}/unet.json"
    assert changes == {"isic2018_task1.dice": {"old": 90.25, "new": 91.5, "diff": 1.25}}


def test_an_earlier_result_comes_back(project):
    say(project, "git", "checkout", "-q", "HEAD~1")
    say(project, "dvc", "checkout", "--quiet", "--force")
    assert value_of(project) == 90.25
    say(project, "git", "checkout", "-q", "-")
    say(project, "dvc", "checkout", "--quiet", "--force")
    assert value_of(project) == 91.5
