"""Two CPU processes of torchrun beside one: the same samples, each once, the same loss and weights up to rounding."""

# ruff: noqa: F811 - fixtures come from a helper module
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from engine_tasks import Curve, difference, histories_agree, run
from hypothesis import given
from hypothesis import strategies as st
from segmentation_runs import SAM, folder, make_run, restore_torch, root, tensors  # noqa: F401
from torchrun import torchrun

from lesion_core.errors import RunError
from lesion_core.files import read_json, write_json
from lesion_core.settings.run import Run
from lesion_core.training import device
from lesion_core.training.device import check_processes, share
from lesion_core.training.engine import CHECKPOINT
from lesion_core.training.segmentation import train_run

SETTINGS = {"accumulation": 2, "batch_size": 3, "ema_decay": 0.9}


class Unused(Curve):
    """A parameter that nothing uses must stay without a gradient in every process."""

    def __init__(self, **options):
        super().__init__(row_keyed=True, **options)
        self.module.register_parameter("idle", torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64)))


def curve_job(folder: Path, kind: str) -> None:
    """What each process runs: two trainings, one after the other; ``die``: the second process is killed."""
    rank, task = os.environ["RANK"], Unused()
    plain = task.loss

    def loss(batch):
        if kind == "die" and rank == "1" and len(task.parts) == 5:
            os.kill(os.getpid(), 9)
        return plain(batch)

    task.loss = loss
    run(task, folder / "run", **SETTINGS)
    torch.save(task.state(), folder / f"end{rank}.pt")
    write_json(folder / f"taken{rank}.json", [task.taken, task.asked])
    run(Unused(samples=5), folder / "second", batch_size=5)


def segmentation_job(root: Path, settings: str) -> None:
    """What each process runs: a run of SAM."""
    run = Run.model_validate_json(Path(settings).read_text(encoding="utf-8"))
    train_run(run, folder(root, run), root, "cpu")


@given(st.integers(0, 100), st.integers(1, 9))
def test_shares_cover_each_sample_once(count, size):
    parts = [share(count, rank, size) for rank in range(size)]
    assert [place for part in parts for place in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_two_processes_train_as_one_also_after_one_of_them_died(tmp_path):
    died = torchrun(__file__, "curve_job", tmp_path, "die")
    assert died.returncode != 0
    assert (tmp_path / "run" / CHECKPOINT).exists(), "the next start goes on from here"
    done = torchrun(__file__, "curve_job", tmp_path, "live")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run: best epoch") == 1, "the first process alone speaks"
    assert read_json(tmp_path / "taken1.json", list)[1][0][0] == 2, "both went on from the checkpoint of the first"
    alone = run(Unused(), tmp_path / "alone", **SETTINGS)
    for rank in range(2):
        together = Unused()
        together.load_state(torch.load(tmp_path / f"end{rank}.pt", weights_only=True))
        assert difference(alone, together) < 1e-10
    histories_agree(tmp_path / "alone", tmp_path / "run", tolerance=1e-10)
    shares = [read_json(tmp_path / f"taken{rank}.json", list) for rank in range(2)]
    kept = [row for epoch in range(2) for row in alone.epoch_rows(epoch).tolist()[:18]][12:]
    assert sorted(shares[0][0] + shares[1][0]) == sorted(kept), "each sample once"
    assert all(len(rows) == 3 for share in shares for _, rows in share[1]), "no process makes the other's samples"
    run(Unused(samples=5), tmp_path / "uneven", batch_size=5)
    histories_agree(tmp_path / "uneven", tmp_path / "second", tolerance=1e-10)


def test_a_run_in_two_processes_is_as_in_one(root, tmp_path):
    """SAM with LoRA, prompts and augmentation: weights and history within rounding, outputs written once."""
    model = {**SAM, "adapter": "lora", "rank": 2, "prompt": "oracle_box"}
    alone = make_run(model=model, training={"epochs": 1, "schedule": "constant"})
    train_run(alone, folder(root, alone), root, "cpu")
    both = alone.model_copy(update={"processes": 2})
    assert both.run_id != alone.run_id
    (tmp_path / "run.json").write_text(both.model_dump_json(), encoding="utf-8")
    done = torchrun(__file__, "segmentation_job", root, tmp_path / "run.json")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder(root, both).iterdir() if not path.name.startswith(".")}
    assert names == {"settings.yaml", "weights.safetensors", "history.csv", "provenance.json", CHECKPOINT}
    expected, ours = tensors(folder(root, alone)), tensors(folder(root, both))
    assert expected.keys() == ours.keys()
    assert all(torch.allclose(expected[name], ours[name], rtol=0, atol=1e-5) for name in expected)
    histories_agree(folder(root, alone), folder(root, both), tolerance=1e-5)


@pytest.mark.parametrize(
    ("started", "processes", "told"),
    [
        (1, 2, "torchrun --standalone --nproc-per-node 2 -m lesion_core.cli train"),
        (3, 2, "set compute.processes to 3"),
        (2, 1, "start it with: lesion train"),
    ],
)
def test_other_processes_than_the_runs_are_refused_with_the_right_command(monkeypatch, started, processes, told):
    monkeypatch.setattr(device, "launched", lambda: started > 1)
    monkeypatch.setenv("WORLD_SIZE", str(started))
    with pytest.raises(RunError, match=f"{started} process.* started for a run of {processes}") as caught:
        check_processes(processes)
    assert told in caught.value.remedy
    check_processes(started)


def test_a_batch_must_feed_all_processes(tmp_path, monkeypatch):
    class Eight:
        world_size, global_rank, is_global_zero = 8, 0, True

    monkeypatch.setattr("lesion_core.training.engine.start_fabric", lambda *_: Eight())
    with pytest.raises(RunError, match="8 processes cannot share a batch of 4"):
        run(Curve(), tmp_path)


if __name__ == "__main__":
    {"curve_job": curve_job, "segmentation_job": segmentation_job}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
