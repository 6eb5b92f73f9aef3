"""Trainings of a rehearsal: a few steps, stopped once at a checkpoint, with the weights of a training that was not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from engine_tasks import Curve, difference, run

from lesion_core.training.engine import StoppedOnce
from lesion_core.training.run import train_on

TESTS = Path(__file__).resolve().parents[1]


def test_it_stops_once_and_ends_as_if_it_had_not(tmp_path):
    # 18 samples make 4 steps of 4; the fifth is of the second epoch
    whole = run(Curve(dropout=0.3), tmp_path / "whole", epochs=5)
    short = Curve(dropout=0.3)
    rehearsed = {"rehearsed_steps": 5, "epochs": 5}
    with pytest.raises(StoppedOnce):
        run(short, tmp_path / "short", **rehearsed)
    assert [step for step, _ in short.asked][:2] == [0, 1]
    again = Curve(dropout=0.3)
    train_on(partial(run, again, tmp_path / "short", **rehearsed))
    steps = [step for step, _ in again.asked]
    assert steps == [2, 3, 4], "from the checkpoint after two steps to the fifth"
    assert [rows for _, rows in again.asked] == [rows for step, rows in whole.asked if 2 <= step < 5]


def test_a_single_step_stops_after_its_validation(tmp_path):
    task = Curve()
    train_on(partial(run, task, tmp_path, rehearsed_steps=1, epochs=1))
    plain = run(Curve(samples=4), tmp_path / "plain", epochs=1)
    assert [step for step, _ in task.asked] == [0]
    assert difference(task, plain) > 0.0, "of other samples"


def test_what_a_machine_has_no_memory_for_is_told_with_its_need(tmp_path):
    """In a process of its own: the limit is for good."""
    script = (
        "from pathlib import Path; from engine_tasks import Curve, run; from lesion_core.record import observe\n"
        "import resource, torch\n"
        "class Large(Curve):\n"
        "    def loss(self, batch):\n"
        "        torch.ones(1 << 40, dtype=torch.uint8)\n"
        f"observe.limit_memory(); run(Large(), Path({str(tmp_path)!r}))\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | paths)
    needed = re.search(r"RunError: Out of memory with 4 samples.* needs (\d+) MiB or more", done.stderr)
    assert needed, done.stderr[-500:]
    assert 1 << 20 < int(needed[1]) < 1.01 * (1 << 20)
