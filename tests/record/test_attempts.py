"""What earlier attempts did reaches a run's provenance."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from engine_tasks import Curve, training
from segmentation_runs import folder, make_run, restore_torch, root  # noqa: F401

from lesion_core.files import read_json
from lesion_core.record import observe
from lesion_core.record.attempts import Attempts
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.segmentation import SegmentationTask, train_run

MASK, OTHER = "data/ph2/first.png", "data/ph2/second.png"
DAY = 86_400.0
PLAIN = SegmentationTask.batch


class Fixed(set):
    """A set that the process's own audit hook, where an earlier test began it, adds nothing to."""

    def add(self, name: str) -> None:
        pass


class Machine:
    """What the observer reads of a job: set by the test, put in place of the real readings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.gpu, self.host = 0.0, 0.0, 0.0
        self.monkeypatch = monkeypatch
        monkeypatch.setattr("lesion_core.record.attempts.time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr(observe, "gpu_energy_joules", lambda: self.gpu)
        monkeypatch.setattr(observe, "peak_memory_mb", lambda: {"host": self.host, "gpu": None})

    def opens(self, below: Path, *names: str) -> None:
        """A new process, which has opened these."""
        self.monkeypatch.setattr(observe, "_opened", Fixed(str(below / name) for name in names))


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def stop_at(monkeypatch: pytest.MonkeyPatch, machine: Machine, stop: int) -> None:
    """A step takes 10 s and 5 J; before step ``stop`` the job is interrupted."""

    def batch(self, rows, epoch, step):
        if step == stop:
            raise KeyboardInterrupt
        machine.now, machine.gpu = machine.now + 10.0, machine.gpu + 5.0
        return PLAIN(self, rows, epoch, step)

    monkeypatch.setattr(SegmentationTask, "batch", batch)


def test_a_resumed_run_tells_of_all_attempts(root, machine, monkeypatch):  # noqa: F811
    """Two steps in each of two epochs, a checkpoint after each step; stopped after three steps, a day's pause."""
    run = make_run()
    run_dir = folder(root, run, "-resumed")
    machine.now, machine.host = 10 * DAY, 900.0
    machine.opens(root, MASK, "runs/a/b/settings.yaml")
    stop_at(monkeypatch, machine, 3)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, run_dir, root, "cpu")
    machine.now, machine.gpu, machine.host = 11 * DAY, 0.0, 300.0
    machine.opens(root, "data/never.png")
    stop_at(monkeypatch, machine, 3)  # before its first checkpoint: nothing of it is gone on with
    with pytest.raises(KeyboardInterrupt):
        train_run(run, run_dir, root, "cpu")
    machine.now, machine.gpu, machine.host = 12 * DAY, 0.0, 700.0
    machine.opens(root, OTHER, run_dir.relative_to(root) / CHECKPOINT)
    stop_at(monkeypatch, machine, -1)
    train_run(run, run_dir, root, "cpu")
    about = read_json(run_dir / "provenance.json")
    assert about["started"] == "1970-01-11T00:00:00Z"
    assert about["seconds"] == 40.0
    assert about["gpu_energy_joules"] == 20.0
    assert about["peak_memory_mb"] == {"host": 900.0, "gpu": None}
    assert about["opened"] == [MASK, OTHER, "runs/a/b/settings.yaml"]
    assert about["extra"]["resumed"] == 1


def test_attempts_with_other_settings_do_not_count(tmp_path, machine):
    machine.opens(tmp_path, MASK)
    fit(Curve(), training(), tmp_path / "run", seed=1, device="cpu", attempts=Attempts(tmp_path))
    machine.opens(tmp_path, OTHER)
    machine.now = DAY
    changed, same = Attempts(tmp_path), Attempts(tmp_path)
    fit(Curve(), training(), tmp_path / "run", seed=1, device="cpu", attempts=same)
    assert (same.total()["started"], same.total()["opened"]) == (0.0, [MASK, OTHER])
    fit(Curve(), training(learning_rate=0.01), tmp_path / "run", seed=1, device="cpu", attempts=changed)
    assert (changed.total()["started"], changed.total()["opened"]) == (DAY, [OTHER])


def test_an_attempt_in_both_of_a_jobs_checkpoints_counts_once(tmp_path, machine):
    """SegMAE: stage 1's checkpoint holds the attempt as it was then, stage 2's as it was later."""
    attempt = Attempts(tmp_path)
    machine.opens(tmp_path, MASK)
    machine.now, machine.gpu = 10.0, 3.0
    stage_1 = attempt.state()
    machine.opens(tmp_path, MASK, OTHER)
    machine.now, machine.gpu = 30.0, 7.0
    stage_2 = attempt.state()
    machine.now, machine.gpu = DAY, 0.0
    machine.opens(tmp_path)
    after = Attempts(tmp_path)
    after.resume(stage_1)
    after.resume(stage_2)
    machine.now, machine.gpu = DAY + 5.0, 1.0
    told = after.total()
    assert (told["started"], told["seconds"], told["gpu_energy_joules"]) == (0.0, 35.0, 8.0)
    assert told["opened"] == [MASK, OTHER]
