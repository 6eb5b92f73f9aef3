"""A disk that fills, results that cannot be written, a second call: told with a remedy, and the next call goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chain import ROOT, command, run
from conftest import checkout

from lesion_core.files import PARTIAL
from lesion_core.settings.run import Run

pytestmark = pytest.mark.smoke
FIRST = str(ROOT / "made" / "SHA256SUMS")
FULL = ("No space left on device", "free space there and call again")
READ_ONLY = ("Read-only file system", "make the folder writable")


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def refused(done: subprocess.CompletedProcess[str], told: tuple[str, ...]) -> None:
    said = done.stdout + done.stderr
    assert done.returncode != 0
    for words in told:
        assert words in said
    assert "Traceback" not in said


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(1, "--", *arguments), cwd=project, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_full_disk_is_told_and_space_is_all_it_takes(small_disk, tmp_path):
    project = checkout(tmp_path / "project")
    disk = small_disk("size=200k")
    (project / "results").symlink_to(disk)
    refused(call(project, FIRST), FULL)
    assert not (project / FIRST).exists()
    remount(disk, "size=64m")
    run(project, 1, "--", FIRST)
    assert (project / FIRST).exists()


def test_a_results_folder_that_cannot_be_written_is_told(small_disk, tmp_path):
    project = checkout(tmp_path / "project")
    (project / "results").symlink_to(small_disk("ro"))
    refused(call(project, FIRST), READ_ONLY)


def trained(project: Path, task: str) -> Run:
    """A run of this task that has learnt something."""
    for path in sorted((project / ROOT / "runs").glob("*/*/settings.yaml")):
        run = Run.load(path.parent)
        if run.task == task and run.spec.training.epochs:
            return run
    raise AssertionError(f"no {task} run was trained")


@pytest.fixture(params=["segmentation", "classification"])
def half_way(request, undisturbed, small_disk, tmp_path) -> tuple[Path, Path, Run]:
    """A project whose results lie on a disk of their own and lack one trained run; the disk; that run."""
    project = tmp_path / "project"
    shutil.copytree(undisturbed.folder, project, symlinks=True, ignore=shutil.ignore_patterns("results"))
    disk = small_disk("size=1g")
    shutil.copytree(undisturbed.folder / "results", disk, symlinks=True, dirs_exist_ok=True)
    (project / "results").symlink_to(disk)
    run = trained(project, request.param)
    shutil.rmtree(project / ROOT / "runs" / run.place / run.run_id)
    return project, disk, run


def fill(disk: Path, left_kb: int) -> Path:
    """A file that leaves so many kilobytes."""
    filler = disk / "filler"
    with open(filler, "wb") as handle:
        handle.write(bytes(max(0, shutil.disk_usage(disk).free - left_kb * 1024)))
    return filler


def train(project: Path, lost: Run) -> subprocess.CompletedProcess[str]:
    """The job itself, whose log lies elsewhere."""
    command = (sys.executable, "-m", "lesion_core.cli", "train", lost.run_id, "--root", str(ROOT))
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)


def test_a_disk_that_fills_during_training_costs_nothing_but_the_space(half_way, undisturbed):
    project, disk, lost = half_way
    folder = ROOT / "runs" / lost.place / lost.run_id
    weights = str(folder / "weights.safetensors")
    filler = fill(disk, left_kb=48)
    refused(train(project, lost), FULL)
    refused(call(project, weights), FULL)
    assert not (project / weights).exists()
    filler.unlink()
    run(project, 1, "--", weights)
    made = {path.name: path.read_bytes() for path in (project / folder).iterdir()}
    first = undisturbed.folder / folder
    for name in ("settings.yaml", "weights.safetensors", "history.csv"):
        assert made[name] == (first / name).read_bytes()
    assert not [name for name in made if PARTIAL.fullmatch(name)]


def test_training_into_read_only_results_is_told(half_way):
    project, disk, lost = half_way
    remount(disk, "ro")
    try:
        refused(call(project, str(ROOT / "runs" / lost.place / lost.run_id / "weights.safetensors")), READ_ONLY)
        refused(train(project, lost), READ_ONLY)
    finally:
        remount(disk, "rw")
