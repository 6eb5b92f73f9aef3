"""The chain, cut down to a tiny matrix: same bytes anywhere, kills, a full disk, a setting changed and put back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, checkout

from lesion_core.files import PARTIAL, read_json

pytestmark = pytest.mark.smoke
TINY = ("--configfile", str(REPOSITORY / "tests" / "tiny" / "tiny.yaml"), "--config", "profile=smoke")
KILLS = 20


@dataclass(frozen=True)
class Finished:
    """A folder in which the tiny matrix has run, and the seconds that it took."""

    folder: Path
    seconds: float


def command(cores: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", str(cores), "--resources", "gpu=1", *TINY, *arguments]


def run(folder: Path, cores: int, *arguments: str) -> str:
    done = subprocess.run(
        command(cores, *arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def products(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of everything that the finished pipeline vouches for."""
    return read_json(folder / "results" / "smoke" / "manifest.json")["products"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Finished:
    folder = checkout(tmp_path_factory.mktemp("undisturbed") / "project")
    started = time.monotonic()
    run(folder, 2)
    return Finished(folder, time.monotonic() - started)


def test_one_core_in_another_folder_gives_the_same_bytes(undisturbed, tmp_path):
    other = checkout(tmp_path / "elsewhere" / "under another name")
    run(other, 1)
    ours, theirs = products(undisturbed.folder), products(other)
    assert {name for name in ours | theirs if ours.get(name) != theirs.get(name)} == set()
    kinds = {name.split("/")[0] for name in ours}
    assert {"splits", "harmonized", "runs", "scores", "tables", "statistics"} <= kinds


def test_twenty_kills_later_the_bytes_are_the_same(undisturbed, tmp_path):
    folder = checkout(tmp_path / "project")
    rng = np.random.default_rng(20)
    # long enough that a call gets past its own start-up, so that the kills move on through the run
    longest = 8.0 + undisturbed.seconds / 5
    killed = 0
    while killed < KILLS:
        with subprocess.Popen(
            command(2), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                code = process.wait(timeout=rng.uniform(1.0, longest))
            except subprocess.TimeoutExpired:
                kill_all(process.pid)
                killed += 1
                continue
        assert code == 0, f"call {killed + 1} failed by itself"
        shutil.rmtree(folder / "results")
    run(folder, 2)
    assert products(folder) == products(undisturbed.folder)
    left = [path for path in (folder / "results").rglob("*") if PARTIAL.fullmatch(path.name)]
    assert left == []


def kill_all(session: int) -> None:
    """Kill -9 a whole session: Snakemake, its shells and its jobs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


def test_a_setting_changed_and_put_back_brings_the_earlier_result_back(undisturbed):
    folder = undisturbed.folder
    before = products(folder)
    changed = ("methods={sam_adapter: {model: {rank: 8}}}",)
    run(folder, 2, *changed)
    assert products(folder) != before
    planned = jobs(run(folder, 2, "--dry-run"))
    computing = {rule for rule in planned if re.match("train|score|pseudo|explain|harmonize|catalog", rule)}
    assert computing == set()
    assert "tables" in planned
    started = time.monotonic()
    run(folder, 2)
    assert time.monotonic() - started < undisturbed.seconds
    assert products(folder) == before


def jobs(said: str) -> dict[str, int]:
    """Rule -> jobs, out of Snakemake's table; empty where nothing is to be done."""
    if "Job stats" not in said:
        return {}
    table = said.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, flags=re.MULTILINE)}


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many kilobytes, and its folder; unmounted at the end."""
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


def test_a_full_disk_is_told_and_space_is_all_it_takes(small_disk, tmp_path):
    project = checkout(tmp_path / "project")
    disk = small_disk("size=200k")
    (project / "results").symlink_to(disk)
    wanted = "results/smoke/made/SHA256SUMS"
    done = subprocess.run(command(1, "--", wanted), cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No space left on device" in done.stdout + done.stderr
    assert "free space there and call again" in done.stdout + done.stderr
    assert not (project / wanted).exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    run(project, 1, "--", wanted)
    assert (project / wanted).exists()


def test_a_results_folder_that_cannot_be_written_is_told(small_disk, tmp_path):
    project = checkout(tmp_path / "project")
    (project / "results").symlink_to(small_disk("ro"))
    done = subprocess.run(
        command(1, "--", "results/smoke/made/SHA256SUMS"), cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Read-only file system" in done.stdout + done.stderr
    assert "make the folder writable" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
