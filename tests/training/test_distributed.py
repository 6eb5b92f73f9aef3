"""Two CPU processes beside one: the same samples, each once, the same loss and weights; a dead process ends the job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_tasks import Curve, difference, training
from hypothesis import given
from hypothesis import strategies as st
from test_segmentation_training import SAM, folder, make_run, restore_torch, root, tensors  # noqa: F401

from lesion_core.cli.runs import train
from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_json, write_json
from lesion_core.training.distributed import process_group, shard
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.launch import demand_processes, launch, process_rank, watch_launcher
from lesion_core.training.segmentation import train_run

HERE = Path(__file__).resolve()
CASES = {
    "row_keyed": ({"row_keyed": True}, {"accumulation": 2, "batch_size": 3}),
    "out_of_memory": ({"room": 2}, {"batch_size": 6, "ema_decay": 0.9}),
}


class Unused(Curve):
    """A parameter that nothing uses must stay without a gradient in every process."""

    def __init__(self, **options):
        super().__init__(**options)
        self.module.register_parameter("idle", torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64)))


def job(folder: Path, case: str) -> None:
    """What each process runs."""
    watch_launcher()
    torch.set_num_threads(1)
    options, changes = CASES["row_keyed" if case == "die" else case]
    task = Unused(**options)
    if case == "die" and process_rank() == 1:
        plain = task.loss

        def loss(batch):
            if len(task.parts) == 5:
                os.kill(os.getpid(), 9)
            return plain(batch)

        task.loss = loss
    with process_group("cpu"):
        try:
            fit(task, training(**changes), folder / "run", seed=1, device="cpu")
            torch.save(task.state(), folder / "end.pt")
        finally:
            write_json(folder / f"taken{process_rank()}.json", [task.taken, task.asked])


def start(folder: Path, case: str) -> None:
    code = f"import sys; sys.path[:0] = [{str(HERE.parents[1])!r}, {str(HERE.parents[2])!r}];"
    code += f"from pathlib import Path; from test_distributed import job; job(Path({str(folder)!r}), {case!r})"
    launch([sys.executable, "-c", code], 2)


@given(st.integers(0, 100), st.integers(1, 9))
def test_shards_cover_each_sample_once(count, size):
    parts = [shard(count, rank, size) for rank in range(size)]
    assert [place for part in parts for place in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(tmp_path, case):
    options, changes = CASES[case]
    alone = Unused(**options)
    fit(alone, training(**changes), tmp_path / "alone", seed=1, device="cpu")
    start(tmp_path, case)
    shares = [read_json(tmp_path / f"taken{rank}.json", list) for rank in range(2)]
    size = training(**changes).batch_size * training(**changes).accumulation
    kept = [row for epoch in range(2) for row in alone.epoch_rows(epoch).tolist()[: 18 // size * size]]
    assert sorted(shares[0][0] + shares[1][0]) == sorted(kept), "each sample once"
    assert len(shares[0][0]) == len(shares[1][0])
    if case == "row_keyed":
        assert all(len(rows) == 3 for share in shares for _, rows in share[1]), "no process makes the other's samples"
    together = Unused(**options)
    together.load_state(torch.load(tmp_path / "end.pt", weights_only=True))
    assert difference(alone, together) < 1e-10
    rows = [read_csv(tmp_path / name / "history.csv") for name in ("alone", "run")]
    for one, two in zip(*rows, strict=True):
        assert list(one) == list(two)
        assert [float(one[name]) for name in one] == pytest.approx([float(two[name]) for name in two], abs=1e-10)


def test_a_dead_process_ends_the_job_with_a_message(tmp_path):
    started = time.monotonic()
    with pytest.raises(RunError, match="Process 1 of 2 ended by signal SIGKILL"):
        start(tmp_path, "die")
    assert time.monotonic() - started < 90
    assert (tmp_path / "run" / CHECKPOINT).exists(), "the next start goes on from here"
    assert not (tmp_path / "end.pt").exists()
    start(tmp_path, "row_keyed")
    assert read_json(tmp_path / "taken1.json", list)[1][0][0] == 2, "both went on from the checkpoint of the first"
    options, changes = CASES["row_keyed"]
    alone, together = Unused(**options), Unused(**options)
    fit(alone, training(**changes), tmp_path / "alone", seed=1, device="cpu")
    together.load_state(torch.load(tmp_path / "end.pt", weights_only=True))
    assert difference(alone, together) < 1e-10


def test_the_command_trains_in_two_processes_as_in_one(root, monkeypatch):  # noqa: F811
    """``lesion train`` of SAM with LoRA, prompts and augmentation: weights and history within rounding."""
    model = {**SAM, "adapter": "lora", "rank": 2, "prompt": "oracle_box"}
    alone = make_run(model=model, training={"epochs": 1, "schedule": "constant"})
    train_run(alone, folder(root, alone), root, "cpu")
    both = alone.model_copy(update={"processes": 2})
    assert both.run_id != alone.run_id
    both.save(folder(root, both))
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[2]))
    command = [sys.executable, "-m", "lesion_core.cli", "train", both.run_id, "--root", root, "--device", "cpu"]
    done = subprocess.run([*command, "--profile", "smoke"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("best epoch 1") == 1, "the first process alone speaks"
    names = {path.name for path in folder(root, both).iterdir() if not path.name.startswith(".")}
    assert names == {"settings.yaml", "weights.safetensors", "history.csv", "provenance.json"}
    expected, ours = tensors(folder(root, alone)), tensors(folder(root, both))
    assert expected.keys() == ours.keys()
    assert all(torch.allclose(expected[name], ours[name], rtol=0, atol=1e-5) for name in expected)
    for one, two in zip(*(read_csv(folder(root, run) / "history.csv") for run in (alone, both)), strict=True):
        assert [float(one[name]) for name in one] == pytest.approx([float(two[name]) for name in two], abs=1e-5)


def test_torchrun_may_start_the_processes_and_gives_the_same_bytes(root, monkeypatch):  # noqa: F811
    model = {**SAM, "adapter": "lora", "rank": 2, "prompt": "oracle_box"}
    run = make_run(model=model, training={"epochs": 1, "schedule": "constant"}).model_copy(update={"processes": 2})
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[2]))
    train = ["-m", "lesion_core.cli", "train", run.run_id, "--root", str(root), "--device", "cpu", "--profile", "smoke"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    written = []
    for command in ([sys.executable, *train], [*torchrun, *train]):
        run.save(folder(root, run))
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("best epoch 1") == 1, "the first process alone speaks"
        written.append([(folder(root, run) / name).read_bytes() for name in ("weights.safetensors", "history.csv")])
        shutil.rmtree(folder(root, run))
    assert written[0] == written[1]


def test_nothing_to_train_is_written_once_under_torchrun(root, monkeypatch):  # noqa: F811
    # An audit hook would stay for all other tests.
    monkeypatch.setattr("lesion_core.record.observe.begin", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = make_run(training={"epochs": 0}).model_copy(update={"processes": 2})
    run.save(folder(root, run))
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for rank, written in ((1, False), (0, True)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        train([run.run_id], root, profile="smoke", device="cpu")
        assert (folder(root, run) / "weights.safetensors").exists() == written


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"WORLD_SIZE": "3", "RANK": "0"}, "3 processes were started .* for a run of 2"),
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not set"),
    ],
)
def test_processes_that_do_not_fit_the_run_are_refused(environment, told, monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=told) as caught:
        demand_processes(2)
    assert "torchrun" in str(caught.value)


def test_the_launchers_own_processes_and_a_single_one_are_let_through(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    demand_processes(2)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LESION_RENDEZVOUS": "/somewhere"}.items():
        monkeypatch.setenv(name, value)
    demand_processes(2)


def test_a_batch_must_feed_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("lesion_core.training.engine.world", lambda: (0, 8))
    with pytest.raises(RunError, match="cannot be shared by 8 processes"):
        fit(Curve(), training(), tmp_path, seed=0, device="cpu")


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may be there to reap it.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_each_process_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RunError, match="Process 4 on this machine finds 2 GPUs"), process_group("cuda"):
        pass


def test_an_orphan_ends_itself(tmp_path):
    """The launcher is killed with -9: its processes notice."""
    code = (
        f"import sys; sys.path.insert(0, {str(HERE.parents[2])!r});"
        "from lesion_core.training.launch import launch;"
        "child = 'import sys, os, time; sys.path.insert(0, sys.argv[1]);"
        "from lesion_core.training.launch import watch_launcher; watch_launcher();"
        "print(os.getpid(), flush=True); time.sleep(60)';"
        f"launch([sys.executable, '-c', child, {str(HERE.parents[2])!r}], 1)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(launcher.stdout.readline())
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    # The pipe closes when its last holder ends.
    deadline = time.monotonic() + 20
    assert launcher.stdout.read() == ""
    assert time.monotonic() < deadline
    launcher.stdout.close()
    # its files are closed a moment before it is gone
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)
