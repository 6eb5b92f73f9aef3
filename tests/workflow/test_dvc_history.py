"""What DVC tells of two commits, and what of its cache no commit needs: a project of one stage, no pipeline."""

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
from lesion_core.sharing import dvc_cache
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
    """A cell of a table, and the summary that follows from it."""
    cells = [
        {"table": "table_05", "row": "U-Net", "column": "dice", "value": value},
        {"table": "table_05", "row": "U-Net", "column": "iou", "value": 84.6},
        {"table": "table_08", "row": "Skin-DeepNet (published)", "column": "accuracy", "value": None},
    ]
    root = project / "results" / "smoke"
    write_cells([dict.fromkeys(Cell.__annotations__) | cell for cell in cells], root / "tables" / "cells.parquet")
    write_summary(root, config.plan(config.load("smoke")))


def value_of(project: Path) -> float:
    return read_json(project / SUMMARY / "metrics.json")["table_05"]["U-Net"]["dice"]


def keep(project: Path, *, commit: bool = True) -> None:
    """Put the summary into DVC's cache, and dvc.lock into git."""
    say(project, "dvc", "commit", "--force", "--quiet")
    if commit:
        say(project, "git", "add", "--all")
        say(project, "git", *IDENTITY, "commit", "-q", "-m", "results")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Two commits, in which one cell differs; the metrics, plots and stage are those of our dvc.yaml."""
    folder = tmp_path_factory.mktemp("history") / "project"
    folder.mkdir()
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    ignored = shutil.ignore_patterns("cache", "tmp", "config.local")
    shutil.copytree(REPOSITORY / ".dvc", folder / ".dvc", ignore=ignored)
    ours = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
    outs = [out for out in ours["stages"]["report"]["outs"] if SUMMARY in out]
    content = ours | {"stages": {"report": {"cmd": ours["stages"]["report"]["cmd"], "outs": outs}}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content))
    say(folder, "git", "init", "-q")
    for value in (90.25, 91.5):
        write_value(folder, value)
        keep(folder)
    return folder


def test_metrics_diff_names_table_row_and_column_with_the_old_and_the_new_value(project):
    [(file, changes)] = json.loads(say(project, "dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json")).items()
    assert file.replace(os.sep, "/") == f"{SUMMARY}/metrics.json"
    assert changes == {"table_05.U-Net.dice": {"old": 90.25, "new": 91.5, "diff": 1.25}}


def test_metrics_diff_compares_the_working_tree_with_the_last_commit(project):
    write_value(project, 92.0)
    try:
        told = say(project, "dvc", "metrics", "diff").splitlines()
        assert [line.split()[1:] for line in told if "metrics.json" in line] == [
            ["table_05.U-Net.dice", "91.5", "92.0", "0.5"]
        ]
    finally:
        write_value(project, 91.5)


def objects(project: Path) -> dict[str, int]:
    """Object -> bytes, counted without DVC."""
    cache = project / ".dvc" / "cache" / "files" / "md5"
    return {path.parent.name + path.name: path.stat().st_size for path in cache.rglob("*") if path.is_file()}


def test_objects_are_told_apart_by_what_refers_to_them_and_the_unreferenced_go(project):
    of_commits = objects(project)
    write_value(project, 93.0)
    keep(project, commit=False)  # and overwritten before any commit
    lost = objects(project).keys() - of_commits.keys()
    write_value(project, 94.0)
    keep(project, commit=False)
    everything = objects(project)
    present, earlier, unreferenced = dvc_cache.look(project)
    assert (present.files, earlier.files, unreferenced.files) == (2, len(of_commits), len(lost)) == (2, 4, 2)
    assert unreferenced.size == sum(everything[oid] for oid in lost)
    assert (present.kept, earlier.kept, unreferenced.kept) == (True, True, False)
    assert dvc_cache.collect(project) == unreferenced.size
    assert objects(project) == {oid: size for oid, size in everything.items() if oid not in lost}
    # what is current is still there: DVC can check it out, and so can an earlier commit
    shutil.rmtree(project / SUMMARY)
    say(project, "dvc", "checkout", "--quiet")
    assert value_of(project) == 94.0
    say(project, "git", "checkout", "-q", "--force", "HEAD~1")
    say(project, "dvc", "checkout", "--quiet", "--force")
    assert value_of(project) == 90.25
    say(project, "git", "checkout", "-q", "--force", "-")
    say(project, "dvc", "checkout", "--quiet", "--force")


def test_a_cache_that_other_checkouts_may_share_is_left_alone(project, tmp_path):
    say(project, "dvc", "cache", "dir", "--local", tmp_path / "shared")
    try:
        stray = tmp_path / "shared" / "files" / "md5" / "ab" / "cdef0123456789abcdef0123456789"
        stray.parent.mkdir(parents=True)
        stray.write_text("of another checkout")
        [*_, unreferenced] = dvc_cache.look(project)
        assert (unreferenced.files, unreferenced.kept) == (1, True)
        assert "shared" in unreferenced.name
        assert dvc_cache.collect(project) == 0
        assert stray.exists()
    finally:
        say(project, "dvc", "config", "--local", "--unset", "cache.dir")


def test_a_results_folder_finds_its_checkout(project, tmp_path):
    assert dvc_cache.project_of(project / "results" / "smoke") == project.resolve()
    assert dvc_cache.project_of(tmp_path) is None


def test_two_people_share_their_caches_over_a_remote(project, tmp_path):
    """Each pushes what they computed; each gets what the other computed, and an earlier result without a cache."""
    ours, theirs, remote = tmp_path / "ours", tmp_path / "theirs", tmp_path / "remote"
    for person in (ours, theirs):
        say(tmp_path, "git", "clone", "-q", project, person)
        say(person, "dvc", "remote", "add", "--local", "--default", "there", remote)
        say(person, "dvc", "config", "--local", "cache.dir", person / ".dvc" / "cache")
    shutil.copytree(project / ".dvc" / "cache", ours / ".dvc" / "cache")
    say(ours, "dvc", "push", "--quiet", "--all-commits")
    say(theirs, "dvc", "pull", "--quiet")
    before = value_of(theirs)
    write_value(theirs, 95.0)
    keep(theirs)
    say(theirs, "dvc", "push", "--quiet")
    say(ours, "git", "pull", "-q", theirs, "HEAD")
    say(ours, "dvc", "pull", "--quiet")
    assert value_of(ours) == 95.0 != before
    shutil.rmtree(ours / ".dvc" / "cache")
    say(ours, "git", "checkout", "-q", "--force", "HEAD~1")
    say(ours, "dvc", "pull", "--quiet", "--force")
    assert value_of(ours) == before
