"""The SLURM profile, for real: a one-node SLURM on loopback takes the jobs. Skips, with the reason, without one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from chain import FIELD, JOB, MATRIX, PATIENCE, REPOSITORY, ROOT, TINY, WHOLE, products, run
from conftest import checkout

from lesion_core.settings import load as config

SCRIPT = REPOSITORY / "tests" / "slurm" / "one_node.sh"
CANNOT = 75
RULE = re.compile(r"^rule (?P<name>\w+):\n(?P<body>(?:(?: .*)?\n)*)", re.MULTILINE)
LOOPED = re.compile(r'^ +\(?"((?:train|score)_\w+)",', re.MULTILINE)  # rules that a loop makes
QUICK = [
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "2"),
    *("--latency-wait", "5", "--slurm-status-command", "squeue", "--slurm-no-account"),
]
LOCAL = ("download", "weights", "gather_scores", "gather_robustness", "tables", "ledger", "summary", "snapshot")
# `auto` asks for a GPU as on a cluster; the jobs see none, so that they compute what a CPU computes
AS_WITH_GPU = "compute={device: auto}"


@dataclass
class Cluster:
    """A running one-node SLURM: hand Snakemake's jobs in, and see them as SLURM itself does."""

    folder: Path
    calls: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path, "CUDA_VISIBLE_DEVICES": ""}

    def begin(self, project: Path, *arguments: str) -> subprocess.Popen[str]:
        """Snakemake with the SLURM profile and the tests' matrix."""
        profile = (sys.executable, "-m", "snakemake", "--workflow-profile", "workflow/profiles/slurm", "--jobs", "4")
        with open(project / "said.txt", "w") as said:
            call = subprocess.Popen(
                [*profile, *QUICK, *MATRIX, AS_WITH_GPU, *arguments],
                cwd=project,
                env=self.environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.calls.append(call)
        return call

    def run(self, project: Path, *arguments: str) -> tuple[int, str]:
        """Exit status, and what was said."""
        code = self.begin(project, *arguments).wait(timeout=PATIENCE)
        return code, (project / "said.txt").read_text()

    def jobs(self) -> list[dict[str, str]]:
        """All jobs, finished ones too: field -> value; ``rule`` is the rule's name."""
        found = []
        for line in self.ask("scontrol", "show", "job", "-o").splitlines():
            if fields := dict(part.split("=", 1) for part in line.split() if "=" in part):
                fields["rule"] = fields["Comment"].removeprefix("rule_").split("_wildcards_")[0]
                found.append(fields)
        return found

    def ask(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def alone():
    """One SLURM at a time on a machine: its ports are fixed; another test process would find them taken and skip."""
    with open(Path(tempfile.gettempdir()) / "lesion-one-node-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def slurm(tmp_path, alone):
    cluster = Cluster(tmp_path / "slurm")
    try:
        started = subprocess.run(
            [str(SCRIPT), "start", str(cluster.folder)], capture_output=True, text=True, check=False, timeout=60
        )
        if started.returncode == CANNOT:
            pytest.skip(f"no SLURM here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        yield cluster
    finally:
        for call in cluster.calls:
            call.kill()
            call.wait()
        subprocess.run([str(SCRIPT), "stop", str(cluster.folder)], check=True, timeout=60)


@dataclass(frozen=True)
class Asked:
    """What one planned job asks for; ``amounts``: gpu, mem_mb (megabytes), runtime (minutes) and others, as written."""

    rule: str
    threads: int
    amounts: dict[str, str]

    @property
    def gpus(self) -> int:
        return int(self.amounts.get("gpu", 0))

    @property
    def heavy(self) -> bool:
        """On a GPU or several cores: the cluster's default memory and time are not made for it."""
        return self.gpus > 0 or self.threads > 1


def planned(project: Path, *arguments: str) -> list[Asked]:
    """Every job of a profile, done or not, as planned where neither cores nor GPUs are scarce."""
    plenty = ("--cores", "64", "--resources", "gpu=64")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--nocolor", *plenty, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    jobs = []
    for match in JOB.finditer(done.stdout + done.stderr):
        fields = dict(FIELD.findall(match["fields"]))
        amounts = dict(part.split("=", 1) for part in fields["resources"].split(", "))
        jobs.append(Asked(match["rule"], int(fields.get("threads", 1)), amounts))
    return jobs


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def minutes(limit: str) -> int:
    """SLURM's [days-]hours:minutes:seconds."""
    days, _, clock = limit.rpartition("-")
    hours, mins, _ = clock.split(":")
    return int(days or 0) * 1440 + int(hours) * 60 + int(mins)


@pytest.mark.smoke
@pytest.mark.whole
def test_the_matrix_runs_on_slurm_to_the_bytes_of_a_local_run(slurm, undisturbed, tmp_path):
    """Every job that is not local is one that SLURM recorded, with the GPU, memory, time and cores of its rule.

    The tiny matrix begins with training: the stages before it are computed already.
    """
    project = tmp_path / "project"
    if WHOLE:
        checkout(project)
    else:
        shutil.copytree(undisturbed.folder, project, symlinks=True)
        for made in ("runs", "pseudo_masks", "scores", "manifest.json"):
            remove(project / ROOT / made)
    started = time.monotonic()
    code, said = slurm.run(project)
    assert code == 0, said[-6000:]
    recorded = slurm.jobs()
    print(f"{len(recorded)} jobs of SLURM, {time.monotonic() - started:.0f} s; local {undisturbed.seconds:.0f} s")
    assert {job["JobState"] for job in recorded} == {"COMPLETED"}
    ran = {job["rule"] for job in recorded}
    heavy = {job.rule: job for job in planned(project, *MATRIX, AS_WITH_GPU) if job.heavy}
    assert {rule for rule, job in heavy.items() if job.gpus} <= ran
    assert ran.isdisjoint(LOCAL)
    compute = config.load("smoke").compute
    for job in recorded:
        asked = dict(part.split("=", 1) for part in job["TRES"].split(","))
        if job["rule"] in heavy:
            plan = heavy[job["rule"]]
            assert job.get("TresPerJob") == (f"gres:gpu:{plan.gpus}" if plan.gpus else None)
            assert asked["mem"] == f"{compute.memory_mb}M"
            assert minutes(job["TimeLimit"]) == compute.runtime_minutes
            assert asked["cpu"] == str(plan.threads)
        assert job["NumNodes"] == "1"
    ours, theirs = products(undisturbed.folder), products(project)
    assert {name for name in ours | theirs if ours.get(name) != theirs.get(name)} == set()
    code, said = slurm.run(project)
    assert code == 0
    assert "Nothing to be done" in said
    assert len(slurm.jobs()) == len(recorded)


@pytest.mark.smoke
def test_a_failed_job_shows_its_log(slurm, undisturbed, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(undisturbed.folder, project, symlinks=True)
    downloads = project / ROOT / "downloads" / "ham10000"
    archive = next(downloads.glob("*part_1*.zip"))
    archive.write_bytes(archive.read_bytes()[:-1000])
    wanted = ROOT / "data" / "ham10000" / "provenance.json"
    (project / wanted).unlink()
    code, said = slurm.run(project, "--retries", "0", "--", str(wanted))
    assert code != 0
    assert {(job["rule"], job["JobState"]) for job in slurm.jobs()} == {("unpack", "FAILED")}
    assert "ArchiveError" in said
    assert archive.name in said


LONG = {"methods": {"sam_adapter": {"training": {"epochs": 24}}}}
AS_LONG = "methods={sam_adapter: {training: {epochs: 24}}}"


@dataclass(frozen=True)
class Training:
    """A project in which one longer training is yet to run, the run's folder, its weights if nothing disturbs it."""

    project: Path
    folder: Path
    weights: bytes

    @property
    def target(self) -> tuple[str, ...]:
        return (AS_LONG, "--", str(self.folder / "weights.safetensors"))

    def began(self) -> None:
        """Wait until it has been trained for a while."""
        end = time.monotonic() + 300
        while not (self.project / self.folder / "checkpoint.pt").exists():
            assert time.monotonic() < end, "the training did not begin"
            time.sleep(0.02)

    def went_on(self) -> None:
        """It has been resumed, and the interruption is not to be seen in its weights."""
        assert "resum" in (self.project / self.folder / "log.txt").read_text().lower()
        assert (self.project / self.folder / "weights.safetensors").read_bytes() == self.weights


@pytest.fixture
def training(undisturbed, tmp_path) -> Training:
    projects = [tmp_path / name for name in ("project", "elsewhere")]
    for project in projects:
        shutil.copytree(undisturbed.folder, project, symlinks=True)
    small = {} if WHOLE else yaml.safe_load(TINY.read_text())
    runs = config.expand(config.load("smoke", config.merge(small, LONG))).values()
    lone = next(run for run in runs if run.method == "sam_adapter")
    folder = ROOT / "runs" / lone.place / lone.run_id
    weights = folder / "weights.safetensors"
    run(projects[1], 1, AS_LONG, "--", str(weights))
    return Training(projects[0], folder, (projects[1] / weights).read_bytes())


def cancel_training(slurm: Cluster) -> None:
    slurm.ask("scancel", next(job["JobId"] for job in slurm.jobs() if job["rule"] == "train_segmenter"))


@pytest.mark.smoke
def test_a_cancelled_training_is_handed_in_again_and_goes_on(slurm, training):
    call = slurm.begin(training.project, *training.target)
    training.began()
    cancel_training(slurm)
    code = call.wait(timeout=300)
    said = (training.project / "said.txt").read_text()
    assert code == 0, said[-6000:]
    assert "SLURM status is: 'CANCELLED'" in said
    assert sorted(job["JobState"] for job in slurm.jobs()) == ["CANCELLED", "COMPLETED"]
    training.went_on()


@pytest.mark.smoke
def test_a_second_call_takes_up_where_a_killed_one_was(slurm, training):
    """Snakemake dies by kill -9 and its job is cancelled, as when the login node goes down: calling again is enough."""
    call = slurm.begin(training.project, *training.target)
    training.began()
    call.kill()
    cancel_training(slurm)
    code, said = slurm.run(training.project, *training.target)
    assert code == 0, said[-6000:]
    training.went_on()


def test_a_job_on_a_gpu_or_several_cores_asks_for_memory_and_time(tmp_path):
    """Of the paper profile, as SLURM would be asked: every such rule of the workflow, whoever adds one."""
    project = checkout(tmp_path / "project")
    jobs = planned(project, "--", "all", "pretrain")
    compute = config.load("paper").compute
    wanted = {"mem_mb": str(compute.memory_mb), "runtime": str(compute.runtime_minutes)}
    short = {job.rule: job.amounts for job in jobs if job.heavy and not wanted.items() <= job.amounts.items()}
    assert short == {}
    on_gpus = {job.rule for job in jobs if job.gpus}
    assert {job.amounts["gpu_memory_mb"] for job in jobs if job.gpus} == {str(compute.gpu_memory_mb)}
    # nothing escapes by standing in no plan
    texts = [path.read_text() for path in sorted((project / "workflow" / "rules").glob("*.smk"))]
    written = {match["name"] for text in texts for match in RULE.finditer(text) if "computing(" in match["body"]}
    written |= {name for text in texts for name in LOOPED.findall(text)}
    assert written == on_gpus != set()
    assert {"catalog", "reference"} <= {job.rule for job in jobs if job.heavy} - on_gpus
    assert "harmonize" in {job.rule for job in jobs if wanted.items() <= job.amounts.items()}  # one core, much memory
    assert "splits" not in {job.rule for job in jobs if job.heavy}
