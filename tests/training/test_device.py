"""Devices, and several GPUs on one machine, planted: each job gets its own, and a killed one's is free at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from lesion_core.errors import RunError
from lesion_core.training.device import job_device, resolve_device

PLANT = """
import sys, time, torch
from types import SimpleNamespace
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: int(sys.argv[1])
torch.cuda.get_device_properties = lambda number: SimpleNamespace(uuid=f"card-{number}")
torch.cuda.set_device = lambda number: print(number, flush=True)
from lesion_core.training.device import job_device
for _ in range(2):
    assert job_device("auto") == "cuda"
time.sleep(60)
"""


@pytest.fixture
def jobs(tmp_path):
    """A function that starts a job on a machine with so many GPUs; all are ended."""
    started = []

    def start(count: int, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PLANT, str(count)]
        place = {**os.environ, "TMPDIR": str(tmp_path), **environment}
        started.append(
            subprocess.Popen(command, env=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
        return started[-1]

    yield start
    for job in started:
        job.kill()
        job.communicate()


def card(job: subprocess.Popen[str]) -> str:
    return job.stdout.readline().strip()


def test_each_job_has_its_own_gpu_and_waits_until_a_killed_ones_is_free(jobs):
    first, second = jobs(2), jobs(2)
    assert sorted([card(first), card(second)]) == ["0", "1"]
    third = jobs(2)
    time.sleep(8)
    assert third.poll() is None
    second.kill()
    second.wait()
    assert card(third) in ("0", "1")


def test_processes_of_torchrun_take_the_gpus_of_their_ranks(jobs):
    ranks = [jobs(2, TORCHELASTIC_RUN_ID="x", LOCAL_RANK=str(rank)) for rank in (1, 0)]
    assert [card(job) for job in ranks] == ["1", "0"]
    assert jobs(2, TORCHELASTIC_RUN_ID="x", LOCAL_RANK="2").wait(60) != 0


def test_one_gpu_needs_no_choice(jobs, tmp_path):
    assert [card(jobs(1)), card(jobs(1))] == ["0", "0"]
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(RunError, match="No GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [resolve_device(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "set_device", SimpleNamespace)
    assert job_device("cpu") == "cpu"
