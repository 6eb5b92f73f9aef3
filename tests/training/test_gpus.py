"""Several GPUs on one machine, planted: each job gets its own, and a killed one's is free at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lesion_core.errors import RunError
from lesion_core.record import observe
from lesion_core.training import gpus

NAMES = ["GPU-a", "GPU-b", "GPU-c"]
JOB = """
import sys, time
from lesion_core.record import observe
from lesion_core.training import gpus
observe.gpu_uuids = lambda: sys.argv[3].split(",")
from pathlib import Path
print(",".join(gpus.take_gpus(int(sys.argv[2]), Path(sys.argv[1]))), flush=True)
time.sleep(60)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A function that starts a job which takes so many GPUs; all are ended."""
    monkeypatch.delenv(gpus.CHOICE, raising=False)
    started = []

    def start(count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", JOB, str(tmp_path), str(count), ",".join(NAMES)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return started[-1]

    yield start
    for job in started:
        job.kill()
        job.communicate()


def taken(job: subprocess.Popen[str]) -> list[str]:
    return job.stdout.readline().strip().split(",")


def test_each_job_takes_its_own(jobs):
    given = [name for count in (1, 2) for name in taken(jobs(count))]
    assert sorted(given) == NAMES


def test_a_job_waits_until_a_killed_ones_gpus_are_free(jobs):
    first = jobs(2)
    assert taken(first) == NAMES[:2]
    second = jobs(2)
    time.sleep(1.5)
    assert second.poll() is None
    third = jobs(1)  # what the second cannot use alone is not kept from others
    assert taken(third) == NAMES[2:]
    first.kill()
    assert taken(second) == NAMES[:2]


@pytest.fixture
def three(monkeypatch, tmp_path):
    monkeypatch.delenv(gpus.CHOICE, raising=False)
    monkeypatch.setattr(observe, "gpu_uuids", lambda: NAMES)
    held: list[int] = []
    monkeypatch.setattr(gpus, "_held", held)
    yield tmp_path
    for handle in held:
        os.close(handle)
    os.environ.pop(gpus.CHOICE, None)


def test_cuda_is_shown_what_was_taken(three):
    assert gpus.take_gpus(2, three) == NAMES[:2]
    assert os.environ[gpus.CHOICE] == "GPU-a,GPU-b"
    assert gpus.take_gpus(1, three) == []  # the choice is made


def test_a_schedulers_choice_stands(three, monkeypatch):
    monkeypatch.setenv(gpus.CHOICE, "2")
    assert gpus.take_gpus(1, three) == []
    assert os.environ[gpus.CHOICE] == "2"


def test_processes_of_a_launcher_take_what_it_took(three, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert gpus.take_gpus(1, three) == []
    assert gpus.CHOICE not in os.environ


def test_more_than_there_are_is_refused(three):
    with pytest.raises(RunError, match="4 GPUs are asked for and there are 3"):
        gpus.take_gpus(4, three)


@pytest.mark.parametrize("names", [[], ["GPU-a"]])
def test_one_gpu_or_none_needs_no_choice(three, monkeypatch, names):
    monkeypatch.setattr(observe, "gpu_uuids", lambda: names)
    assert gpus.take_gpus(1, three) == []
    assert gpus.CHOICE not in os.environ
