"""What earlier attempts and other processes did reaches a run's provenance."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engine_tasks import Curve, training
from test_segmentation_training import folder, make_run, restore_torch, root  # noqa: F401

from lesion_core.errors import RunError
from lesion_core.files import canonical_json, read_json
from lesion_core.record import observe
from lesion_core.record.attempts import Attempts
from lesion_core.settings.run import Run
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.launch import launch, process_rank
from lesion_core.training.segmentation import SegmentationTask, train_run

HERE = Path(__file__).resolve()
MASK, OTHER = "data/ph2/first.png", "data/ph2/second.png"
DAY = 86_400.0
PLAIN = SegmentationTask.batch


class Machine:
    """What the observer reads of a job: set by the test, put in place of the real readings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.cpu, self.gpu, self.host = 0.0, 0.0, None, 0.0
        self.monkeypatch = monkeypatch
        monkeypatch.setattr("lesion_core.record.attempts.time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr(observe, "energy_joules", lambda: {"cpu": self.cpu, "gpu": self.gpu})
        monkeypatch.setattr(observe, "peak_memory_mb", lambda: {"host": self.host, "gpu": None})

    def opens(self, below: Path, *names: str) -> None:
        """A new process, which has opened these."""
        self.monkeypatch.setattr(observe, "_opened", {str(below / name) for name in names})


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def stop_at(monkeypatch: pytest.MonkeyPatch, machine: Machine, stop: int) -> None:
    """A step takes 10 s and 5 J; before step ``stop`` the job is interrupted."""

    def batch(self, rows, epoch, step):
        if step == stop:
            raise KeyboardInterrupt
        machine.now, machine.cpu = machine.now + 10.0, machine.cpu + 5.0
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
    machine.now, machine.cpu, machine.host = 11 * DAY, 0.0, 300.0
    machine.opens(root, "data/never.png")
    stop_at(monkeypatch, machine, 3)  # before its first checkpoint: nothing of it is gone on with
    with pytest.raises(KeyboardInterrupt):
        train_run(run, run_dir, root, "cpu")
    machine.now, machine.cpu, machine.host = 12 * DAY, 0.0, 700.0
    machine.opens(root, OTHER, run_dir.relative_to(root) / CHECKPOINT)
    stop_at(monkeypatch, machine, -1)
    train_run(run, run_dir, root, "cpu")
    about = read_json(run_dir / "provenance.json")
    assert about["started"] == "1970-01-11T00:00:00Z"
    assert about["seconds"] == 40.0
    assert about["energy_joules"] == {"cpu": 20.0, "gpu": None}
    assert about["peak_memory_mb"] == {"host": 900.0, "gpu": None}
    assert about["opened"] == [MASK, OTHER, "runs/a/b/settings.yaml"]
    assert about["extra"]["resumed"] == 1
    assert not (run_dir / CHECKPOINT).exists()


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
    machine.now, machine.cpu = 10.0, 3.0
    stage_1 = attempt.state()
    machine.opens(tmp_path, MASK, OTHER)
    machine.now, machine.cpu = 30.0, 7.0
    stage_2 = attempt.state()
    machine.now, machine.cpu = DAY, 0.0
    machine.opens(tmp_path)
    after = Attempts(tmp_path)
    after.resume(stage_1)
    after.resume(stage_2)
    machine.now, machine.cpu = DAY + 5.0, 1.0
    told = after.total()
    assert (told["started"], told["seconds"], told["energy_joules"]["cpu"]) == (0.0, 35.0, 8.0)
    assert told["opened"] == [MASK, OTHER]


def test_energy_is_of_machines_and_memory_of_the_largest_process(tmp_path, machine):
    """Three processes, two of them on this machine, whose counters they share."""
    attempt = Attempts(tmp_path)
    machine.opens(tmp_path, MASK)
    machine.cpu, machine.gpu, machine.host = 100.0, 40.0, 500.0
    beside = attempt.own() | {"energy_joules": {"cpu": 99.0, "gpu": 39.0}, "opened": [OTHER]}
    beside["peak_memory_mb"] = {"host": 600.0, "gpu": 70.0}
    far = beside | {"machine": "elsewhere", "energy_joules": {"cpu": 20.0, "gpu": None}, "opened": [MASK]}
    attempt.others = [beside, far]
    told = attempt.total()
    assert told["energy_joules"] == {"cpu": 120.0, "gpu": None}, "what one cannot tell has no sum"
    assert told["peak_memory_mb"] == {"host": 600.0, "gpu": 70.0}
    assert told["opened"] == [MASK, OTHER]


def test_a_checkpoint_that_tells_nothing_leaves_the_opened_files_unknown(tmp_path, machine):
    """One of an earlier version: the audit must not take silence for a clean record."""
    machine.opens(tmp_path, MASK)
    fit(Curve(), training(), tmp_path / "run", seed=1, device="cpu", attempts=Attempts(tmp_path))
    path = tmp_path / "run" / CHECKPOINT
    saved = torch.load(path, weights_only=True)
    del saved["attempts"]
    torch.save(saved, path)
    machine.now = DAY
    attempts = Attempts(tmp_path)
    fit(Curve(), training(), tmp_path / "run", seed=1, device="cpu", attempts=attempts)
    told = attempts.total()
    assert told["opened"] is None
    assert told["energy_joules"] == {"cpu": None, "gpu": None}
    assert told["started"] == DAY


def job(root: Path, settings: str, name: str) -> None:  # noqa: F811
    """What each of two processes runs: the second opens ``name``; ``first.png`` also has the first killed at step 3."""
    from lesion_core.training.distributed import process_group

    observe.begin()
    torch.set_num_threads(1)
    if process_rank() == 1:
        (root / name).read_bytes()

    def batch(self, rows, epoch, step):
        if step == 3 and name == MASK and process_rank() == 0:
            os.kill(os.getpid(), 9)
        return PLAIN(self, rows, epoch, step)

    SegmentationTask.batch = batch
    run = Run.model_validate_json(settings)
    with process_group("cpu"):
        train_run(run, folder(root, run), root, "cpu")


def test_what_the_second_process_alone_opened_is_told_also_of_a_killed_attempt(root):  # noqa: F811
    run = make_run().model_copy(update={"processes": 2})
    for name in (MASK, OTHER):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"a mask")
    code = f"import sys; sys.path[:0] = [{str(HERE.parents[1])!r}, {str(HERE.parents[2])!r}];"
    code += "from pathlib import Path; from test_attempts import job;"
    code += f"job(Path({str(root)!r}), {canonical_json(run.model_dump(mode='json'))!r}, sys.argv[1])"
    with pytest.raises(RunError, match="Process 0 of 2 ended by signal SIGKILL"):
        launch([sys.executable, "-c", code, MASK], 2)
    launch([sys.executable, "-c", code, OTHER], 2)
    about = read_json(folder(root, run) / "provenance.json")
    assert about["extra"]["resumed"] == 1
    assert {MASK, OTHER} <= set(about["opened"])
    assert about["seconds"] > about["extra"]["training_seconds"] > 0
    left = {path.name for path in folder(root, run).iterdir() if not path.name.startswith(".")}
    assert left == {"settings.yaml", "weights.safetensors", "history.csv", "provenance.json"}
