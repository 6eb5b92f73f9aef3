"""Shared fixtures: one smoke run for the whole session, in a copy of the checkout."""

from __future__ import annotations

import os

# one thread per test process: two of them share two cores, and sums do not depend on the machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fcntl
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import MATRIX, PATIENCE, REPOSITORY, SMOKE, WHOLE, Finished, job_seconds

from lesion_core.record import observe

# twice what a whole run's fullest moment was measured to take
NEEDED_GB = 5
COPIED = ("Snakefile", "params.yaml", "workflow", "profiles")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say at once that the disk is too small: in the middle of a run every test after that would fail."""
    base = Path(session.config.option.basetemp or tempfile.gettempdir())
    free = shutil.disk_usage(base if base.is_dir() else base.parent).free
    if free < NEEDED_GB * 1e9:
        pytest.exit(
            f"{base}: {free / 1e9:.1f} GB free, the tests need {NEEDED_GB}; remedy: make room there, "
            "or name another folder: TMPDIR=/path make test",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


@pytest.fixture(autouse=True)
def nothing_observed() -> Iterator[None]:
    """A command called in the tests' own process begins to note what that process opens: it ends with the test."""
    yield
    observe._opened = None


def checkout(folder: Path) -> Path:
    """The parts of the checkout that Snakemake reads, in a folder of their own; the package is the installed one."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str, timeout: int = 1500) -> subprocess.CompletedProcess[str]:
    """Run Snakemake there; never raises."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(os.cpu_count() or 1), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout)


def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str, name: str, matrix: tuple[str, ...]) -> Finished:
    """A folder of that name in which a matrix has run to its end; test processes share one."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder = shared / name / "project"
    log = shared / f"{name}.log"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            started = time.monotonic()
            done = snakemake(checkout(folder), "--resources", "gpu=1", *matrix, timeout=max(1500, PATIENCE))
            seconds = time.monotonic() - started
            log.write_text(f"{done.returncode} {seconds:.1f}\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    first, said = log.read_text().split("\n", 1)
    code, taken = first.split()
    assert code == "0", said
    return Finished(folder, float(taken))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id) -> Path:
    """A folder in which the smoke profile has run to its end.

    LESION_SMOKE_PROJECT names a finished one: then nothing is run.
    """
    if given := os.environ.get("LESION_SMOKE_PROJECT"):
        return Path(given)
    return finished(tmp_path_factory, worker_id, "smoke-profile", SMOKE).folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, worker_id) -> Finished:
    """A folder in which the tests' matrix has run to its end, on all cores; tests copy what they change."""
    if not WHOLE:
        return finished(tmp_path_factory, worker_id, "tiny-matrix", MATRIX)
    if given := os.environ.get("LESION_SMOKE_PROJECT"):
        return Finished(Path(given), job_seconds(Path(given)) / (os.cpu_count() or 1))
    return finished(tmp_path_factory, worker_id, "smoke-profile", MATRIX)


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system with these options and gives its folder; unmounted at the end."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)
