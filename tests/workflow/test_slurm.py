"""The SLURM profile, for real: a one-node SLURM on loopback takes the jobs. Skips, with the reason, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, checkout

from lesion_core import config

SCRIPT = REPOSITORY / "tests" / "slurm" / "one_node.sh"
CANNOT = 75
QUICK = [
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--seconds-between-status-checks",
    "2",
    "--latency-wait",
    "5",
]


def tiny(folder: Path) -> Path:
    """A checkout whose smoke profile is cut down to every rule once."""
    project = checkout(folder)
    overlay = project / "workflow" / "profiles" / "smoke.yaml"
    small = yaml.safe_load((REPOSITORY / "tests" / "tiny" / "tiny.yaml").read_text())
    overlay.write_text(yaml.safe_dump(config.merge(yaml.safe_load(overlay.read_text()), small), sort_keys=False))
    return project


@pytest.fixture
def slurm(tmp_path):
    folder = tmp_path / "slurm"
    try:
        started = subprocess.run(
            [str(SCRIPT), "start", str(folder)], capture_output=True, text=True, check=False, timeout=60
        )
        if started.returncode == CANNOT:
            pytest.skip(f"no SLURM here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        yield folder
    finally:
        subprocess.run([str(SCRIPT), "stop", str(folder)], check=True, timeout=60)


@pytest.mark.smoke
def test_rules_run_on_slurm(slurm, tmp_path):
    """The chain's first rules: each is a job that SLURM itself recorded as completed."""
    project = tiny(tmp_path / "project")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", "--jobs", "2"),
            *("--slurm-status-command", "squeue", "--slurm-no-account", *QUICK),
            *("--config", "profile=smoke", "--", "stage_download"),
        ],
        cwd=project,
        env={**os.environ, "SLURM_CONF": str(slurm / "slurm.conf"), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    jobs = (slurm / "jobs.txt").read_text().splitlines()
    made = sorted((project / "results" / "smoke" / "downloads").glob("*/files.json"))
    assert len(jobs) == 1 + len(made) >= 3
    assert all("JobState=COMPLETED" in job for job in jobs)


def test_heavy_rules_ask_for_gpu_memory_and_time(tmp_path):
    """Of the paper profile, as SLURM would be asked."""
    project = checkout(tmp_path / "project")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--resources", "gpu=1", "--nocolor"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    settings = config.load("paper").compute
    asked = {}
    rule = ""
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
        elif line.startswith("    resources: "):
            asked[rule] = dict(part.split("=", 1) for part in line.split(": ", 1)[1].split(", "))
    for rule in ("train_segmenter", "train_classifier", "train_joint", "score_segmenter", "pseudo_masks"):
        assert asked[rule]["gpu"] == "1"
        assert asked[rule]["mem_mb"] == str(settings.memory_mb)
        assert asked[rule]["runtime"] == str(settings.runtime_minutes)
    assert "gpu" not in asked["splits"]
