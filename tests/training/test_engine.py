"""The training loop: resume bit for bit, selection, early stopping, planted faults, locks."""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lesion_core.errors import RunError
from lesion_core.files import read_csv
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import Training
from lesion_core.training.checkpoint import folder_lock, load_checkpoint, save_checkpoint, write_safetensors
from lesion_core.training.engine import CHECKPOINT, fit, resolve_device, resolve_precision
from lesion_core.training.optim import build_optimizer
from lesion_core.training.schedule import learning_rate_at

SETTINGS = {
    "epochs": 3,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.05,
    "weight_decay": 0.01,
    "momentum": 0.9,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "gradient_clip": 1.0,
    "precision": "fp32",
    "checkpoint_steps": 2,
    "patience": 0,
}


def training(**changes) -> Training:
    return Training(**{**SETTINGS, **changes})


class Line:
    """A small network with dropout and batch norm on a made regression; ``values`` plants validation metrics."""

    selection_metric = "error"
    selection_mode = "min"

    def __init__(self, seed: int = 0, *, samples: int = 22, values: list[float] | None = None, fail_at: int = -1):
        seed_torch(seed, "line")
        self.module = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )
        self.seed, self.samples, self.values, self.fail_at = seed, samples, values, fail_at
        self.validated = 0
        self.seen: list[tuple[int, list[int]]] = []

    def trainable(self):
        return dict(self.module.named_parameters())

    def epoch_rows(self, epoch):
        return generator(self.seed, "order", epoch).permutation(self.samples)

    def batch(self, rows, epoch, step):
        if step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append((step, rows.tolist()))
        x = np.stack([generator(self.seed, "x", int(row)).standard_normal(3) for row in rows]).astype(np.float32)
        noise = generator(self.seed, "augment", epoch, step).standard_normal(x.shape).astype(np.float32)
        return {"x": torch.from_numpy(x + 0.1 * noise), "y": torch.from_numpy(x.sum(axis=1, keepdims=True))}

    def loss(self, batch):
        error = (self.module(batch["x"]) - batch["y"]).square().mean()
        return error, {"absolute": float(error.detach().sqrt())}

    def validate(self):
        assert not self.module.training
        self.validated += 1
        if self.values is not None:
            return {"error": self.values[self.validated - 1]}
        x = torch.linspace(-1, 1, 12).reshape(4, 3)
        return {"error": float((self.module(x) - x.sum(dim=1, keepdim=True)).square().mean())}

    def state(self):
        return self.module.state_dict()

    def load_state(self, state):
        self.module.load_state_dict(state)


def final_bytes(task: Line, folder) -> tuple[bytes, bytes]:
    write_safetensors(folder / "end.safetensors", task.state())
    return (folder / "end.safetensors").read_bytes(), (folder / "history.csv").read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_a_stopped_training_ends_with_the_same_bytes(tmp_path, stop, optimizer):
    settings = training(optimizer=optimizer)
    whole = Line()
    fit(whole, settings, tmp_path / "whole", seed=1, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(Line(fail_at=stop), settings, tmp_path / "cut", seed=1, device="cpu")
    torch.manual_seed(99)
    rest = Line()
    result = fit(rest, settings, tmp_path / "cut", seed=1, device="cpu")
    assert rest.seen[0][0] == (stop // 2 * 2 if stop != 5 else 5), "continued at the last checkpoint or epoch"
    assert final_bytes(rest, tmp_path / "cut") == final_bytes(whole, tmp_path / "whole")
    assert result.epochs == 3


def test_a_killed_process_resumes_with_the_same_bytes(tmp_path):
    """kill -9 in the midst of an epoch, then to the end."""
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests_engine import Line, training\n"
        "from lesion_core.training.engine import fit\n"
        "class Slow(Line):\n"
        "    def batch(self, rows, epoch, step):\n"
        "        print(step, flush=True)\n"
        "        time.sleep(0.02)\n"
        "        return super().batch(rows, epoch, step)\n"
        "fit(Slow(), training(epochs=8), Path(sys.argv[1]), seed=1, device='cpu')\n"
    )
    here = Path(__file__).resolve()
    (tmp_path / "tests_engine.py").write_text(here.read_text(encoding="utf-8"))
    env = {**os.environ, "PYTHONPATH": str(here.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, tmp_path / "cut"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
    for line in job.stdout:
        if line.strip() == "19":
            break
    job.send_signal(signal.SIGKILL)
    job.wait()
    job.stdout.close()
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    rest, whole = Line(), Line()
    fit(rest, training(epochs=8), tmp_path / "cut", seed=1, device="cpu")
    assert rest.seen[0][0] >= 18
    fit(whole, training(epochs=8), tmp_path / "whole", seed=1, device="cpu")
    assert final_bytes(rest, tmp_path / "cut") == final_bytes(whole, tmp_path / "whole")


def test_a_finished_training_is_not_repeated(tmp_path):
    first, again = Line(), Line()
    fit(first, training(), tmp_path, seed=1, device="cpu")
    before = final_bytes(first, tmp_path)
    fit(again, training(), tmp_path, seed=1, device="cpu")
    assert again.seen == []
    assert final_bytes(again, tmp_path) == before


def test_a_checkpoint_of_another_job_is_not_continued(tmp_path, capsys):
    fit(Line(), training(), tmp_path, seed=1, device="cpu")
    other = Line()
    fit(other, training(learning_rate=0.01), tmp_path, seed=1, device="cpu")
    assert other.seen[0][0] == 0
    assert "starting anew" in capsys.readouterr().err
    third = Line()
    fit(third, training(learning_rate=0.01), tmp_path, seed=1, device="cpu", identity="other data")
    assert third.seen[0][0] == 0


def test_a_broken_checkpoint_is_a_run_error(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"PK nonsense")
    with pytest.raises(RunError, match="delete it"):
        fit(Line(), training(), tmp_path, seed=1, device="cpu")


def test_a_full_disk_is_what_the_disk_said_and_leaves_no_half(tmp_path, monkeypatch):
    """torch wraps the error of a write in one of its own."""

    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builtins, "open", lambda *_, **__: Full())
    with pytest.raises(OSError, match="No space left") as caught:
        save_checkpoint(tmp_path / "checkpoint.pt", {"a": torch.zeros(3)})
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "checkpoint.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"identity": "x", "trap": signal.Signals.SIGTERM, "f": os.system}, tmp_path / CHECKPOINT)
    with pytest.raises(RunError):
        load_checkpoint(tmp_path / CHECKPOINT, identity="x")


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("min", [0.5, 0.2, 0.3], 2),
        ("max", [0.5, 0.2, 0.3], 1),
        ("min", [0.2, 0.2, 0.2], 1),
        ("max", [0.1, 0.2, 0.3], 3),
    ],
)
def test_the_best_epoch_is_kept(tmp_path, mode, values, best):
    """The counter-example's bug: a best score that is never updated. Ties go to the first."""
    task = Line(values=values)
    task.selection_mode = mode
    states = []
    validate = task.validate

    def spy():
        states.append({name: value.clone() for name, value in task.state().items()})
        return validate()

    task.validate = spy
    result = fit(task, training(), tmp_path, seed=1, device="cpu")
    assert (result.best_epoch, result.best_value) == (best, values[best - 1])
    for name, value in task.state().items():
        assert torch.equal(value, states[best - 1][name])


def test_patience_ends_the_training(tmp_path):
    task = Line(values=[0.5, 0.4, 0.45, 0.41, 0.1])
    result = fit(task, training(epochs=5, patience=2), tmp_path, seed=1, device="cpu")
    assert (result.epochs, result.best_epoch, result.stopped_early) == (4, 2, True)
    again = Line(values=[])
    repeated = fit(again, training(epochs=5, patience=2), tmp_path, seed=1, device="cpu")
    assert (repeated.epochs, repeated.best_epoch, again.seen) == (4, 2, [])


def test_history_has_no_times_and_one_row_per_epoch(tmp_path):
    fit(Line(), training(), tmp_path, seed=1, device="cpu")
    rows = read_csv(tmp_path / "history.csv")
    assert list(rows[0]) == ["epoch", "step", "lr", "train_absolute", "train_loss", "val_error"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["5", "10", "15"], "22 samples in batches of 4: the last two wait"
    assert all(float(row["val_error"]) > 0 for row in rows)


def test_batches_cover_an_epoch_in_order_and_small_data_make_one_batch(tmp_path):
    task = Line()
    fit(task, training(epochs=1), tmp_path / "a", seed=1, device="cpu")
    assert [row for _, rows in task.seen for row in rows] == task.epoch_rows(0).tolist()[:20]
    small = Line(samples=3)
    fit(small, training(epochs=2), tmp_path / "b", seed=1, device="cpu")
    assert [len(rows) for _, rows in small.seen] == [3, 3]


def test_no_epochs_and_nothing_trainable_write_a_header(tmp_path):
    result = fit(Line(), training(epochs=0), tmp_path / "a", seed=1, device="cpu")
    assert (result.epochs, result.best_epoch) == (0, 0)
    frozen = Line()
    frozen.trainable = dict
    fit(frozen, training(), tmp_path / "b", seed=1, device="cpu")
    for name in "ab":
        assert (tmp_path / name / "history.csv").read_text() == "epoch,step,lr\n"
        assert not (tmp_path / name / CHECKPOINT).exists()


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    task = Line()
    plain = task.loss

    def loss(batch):
        value, parts = plain(batch)
        return (value * math.nan if task.seen[-1][0] == 7 else value), parts

    task.loss = loss
    with pytest.raises(RunError, match="loss is not finite at step 7"):
        fit(task, training(), tmp_path, seed=1, device="cpu")


def test_a_gradient_or_a_metric_that_is_not_finite_is_refused(tmp_path):
    task = Line()

    def loss(batch):
        weight = task.module[0].weight
        return (weight - weight.detach()).square().sum().sqrt() + task.module(batch["x"]).sum() * 0, {}

    task.loss = loss
    with pytest.raises(RunError, match="gradient is not finite at step 0"):
        fit(task, training(), tmp_path / "a", seed=1, device="cpu")
    with pytest.raises(RunError, match="selection metric error is not finite"):
        fit(Line(values=[math.nan]), training(), tmp_path / "b", seed=1, device="cpu")


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(RunError, match="no training samples"):
        fit(Line(samples=0), training(), tmp_path, seed=1, device="cpu")


def test_training_learns_and_dropout_depends_on_the_seed_only(tmp_path):
    one, two, other = Line(), Line(), Line()
    result = fit(one, training(epochs=6), tmp_path / "a", seed=1, device="cpu")
    torch.manual_seed(12345)
    fit(two, training(epochs=6), tmp_path / "b", seed=1, device="cpu")
    fit(other, training(epochs=6), tmp_path / "c", seed=2, device="cpu")
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert final_bytes(one, tmp_path / "a") == final_bytes(two, tmp_path / "b")
    assert final_bytes(one, tmp_path / "a") != final_bytes(other, tmp_path / "c")


def test_the_gradient_is_clipped(tmp_path):
    task = Line()
    plain = task.loss
    task.loss = lambda batch: (plain(batch)[0] * 1e6, {})
    before = {name: value.detach().clone() for name, value in task.trainable().items()}
    settings = training(epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup_fraction=0.0)
    settings = settings.model_copy(update={"batch_size": 22, "learning_rate": 1.0})
    fit(task, settings, tmp_path, seed=1, device="cpu")
    moved = math.sqrt(
        sum(float((value.detach() - before[name]).square().sum()) for name, value in task.trainable().items())
    )
    assert moved == pytest.approx(1.0, rel=1e-3)


def test_half_precision_is_for_gpus(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert [resolve_precision(kind, "cuda") for kind in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    result = fit(Line(), training(precision="bf16"), tmp_path, seed=1, device="cpu")
    assert result.precision == "fp32"
    assert "computing in fp32" in capsys.readouterr().err


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(RunError, match="No GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [resolve_device(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]


def test_two_processes_do_not_train_one_run(tmp_path):
    script = "import sys, time; from pathlib import Path; from lesion_core.training.checkpoint import folder_lock\n"
    script += "with folder_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    job = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline().strip() == "held"
    waiting = [sys.executable, "-c", script.replace("time.sleep(60)", "pass"), tmp_path]
    second = subprocess.Popen(waiting, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "waiting: another process" in second.stderr.readline()
    assert second.poll() is None
    # A killed holder's lock is gone at once.
    job.kill()
    job.wait()
    job.stdout.close()
    out, _ = second.communicate(timeout=30)
    assert out.strip() == "held"


def test_the_lock_may_be_taken_again_by_its_holder(tmp_path):
    with folder_lock(tmp_path), folder_lock(tmp_path / "."):
        started = time.monotonic()
    with folder_lock(tmp_path):
        assert time.monotonic() - started < 1


def test_learning_rate_schedule_by_hand():
    rate = {"base": 2.0, "warmup_fraction": 0.2, "schedule": "cosine"}
    values = [learning_rate_at(step, 10, **rate) for step in range(11)]
    assert values[:3] == [1.0, 2.0, 2.0]
    assert values[6] == pytest.approx(1.0)
    assert values[10] == pytest.approx(0.0)
    assert values[2:] == sorted(values[2:], reverse=True)
    assert learning_rate_at(9, 10, base=2.0, warmup_fraction=0.0, schedule="constant") == 2.0
    with pytest.raises(ValueError, match="unknown schedule"):
        learning_rate_at(5, 10, base=1.0, warmup_fraction=0.0, schedule="step")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizers_have_the_numbers_of_torch(name):
    """Twenty steps beside torch.optim, the same bits: now and then no gradient; decay on matrices only."""
    ours, theirs = Line().module, Line().module
    options = {"learning_rate": 0.1, "weight_decay": 0.5}
    optimizer = build_optimizer(dict(ours.named_parameters()), name=name, **options)
    parameters = [value for _, value in sorted(theirs.named_parameters())]
    groups = [
        {"params": [item for item in parameters if item.ndim >= 2], "weight_decay": 0.5},
        {"params": [item for item in parameters if item.ndim < 2], "weight_decay": 0.0},
    ]
    if name == "adamw":
        reference = torch.optim.AdamW(groups, lr=0.1, foreach=False)
    else:
        reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, foreach=False)
    for step in range(20):
        for module in (ours, theirs):
            for index, (_, parameter) in enumerate(sorted(module.named_parameters())):
                noise = generator(step, index).standard_normal(parameter.shape).astype(np.float32)
                parameter.grad = None if (step + index) % 7 == 0 else torch.from_numpy(noise)
        optimizer.step()
        reference.step()
    for (key, one), (_, two) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(one, two), key
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="unknown optimizer"):
        build_optimizer({}, name="lion", learning_rate=0.1, weight_decay=0.0)


def test_a_training_job_does_not_import_the_compiler(tmp_path):
    """torch._dynamo costs 4 s; torch.optim, Lightning and torch.use_deterministic_algorithms would import it."""
    script = tmp_path / "job.py"
    here = Path(__file__).resolve()
    (tmp_path / "tests_engine.py").write_text(here.read_text(encoding="utf-8"))
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from tests_engine import Line, training\n"
        "from lesion_core.training.engine import fit\n"
        "from lesion_core.seeding import make_deterministic\n"
        "import torch\n"
        "make_deterministic(1)\n"
        "assert torch.get_deterministic_debug_mode() == 1\n"
        "fit(Line(), training(epochs=1), Path(sys.argv[1]), seed=1, device='cpu')\n"
        "heavy = ('torch._dynamo', 'torch._inductor', 'lightning', 'torchvision')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(here.parents[2])}
    done = subprocess.run([sys.executable, script, tmp_path / "run"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_equal_weights_make_equal_files(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2, dtype=torch.float64)}
    write_safetensors(tmp_path / "1.safetensors", tensors)
    write_safetensors(tmp_path / "2.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    from safetensors.torch import load_file

    loaded = load_file(tmp_path / "1.safetensors")
    assert torch.equal(loaded["b"], tensors["b"])


def test_saving_is_atomic(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / CHECKPOINT, {"identity": "x", "value": 1})

    def half(state, handle):
        handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / CHECKPOINT, {"identity": "x", "value": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / CHECKPOINT, identity="x")["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
