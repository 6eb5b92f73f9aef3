"""The training loop: resume bit for bit, selection, accumulation, moving average, planted faults, locks."""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_tasks import Curve, difference, final_bytes, histories_agree, run, training
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv
from lesion_core.training.checkpoint import folder_lock, load_checkpoint, save_checkpoint, write_safetensors
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.history import EVENTS
from lesion_core.training.optimizer import MovingAverage

TESTS = Path(__file__).resolve().parents[1]
LAYERS = {"dropout": 0.3, "norm": True}
ALL = {"accumulation": 2, "batch_size": 2, "ema_decay": 0.9, "schedule": "plateau", "plateau_patience": 0}
ALL |= {"checkpoint_steps": 1, "epochs": 3}
COSINE = {"batch_size": 4, "checkpoint_steps": 2, "epochs": 3}


def states(task: Curve) -> list[dict[str, torch.Tensor]]:
    """The task's state at each of its validations."""
    seen, plain = [], task.validate

    def validate():
        seen.append({name: value.clone() for name, value in task.state().items()})
        return plain()

    task.validate = validate
    return seen


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("settings", "stop", "kept"), [(ALL, 3, 3), (ALL, 4, 4), (COSINE, 1, 0), (COSINE, 7, 6)])
def test_a_stopped_training_ends_with_the_same_bytes(tmp_path, settings, stop, kept, optimizer):
    settings = settings | {"optimizer": optimizer}
    whole = run(Curve(**LAYERS), tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(Curve(fail_at=stop, **LAYERS), tmp_path / "cut", **settings)
    torch.manual_seed(99)
    rest = run(Curve(**LAYERS), tmp_path / "cut", **settings)
    assert rest.asked[0][0] == kept, "continued at the last checkpoint"
    assert final_bytes(rest, tmp_path / "cut") == final_bytes(whole, tmp_path / "whole")


def test_a_killed_process_resumes_with_the_same_bytes(tmp_path):
    """kill -9 in the midst of an epoch, between two checkpoints, then to the end; everything is switched on."""
    settings = ALL | {"epochs": 10, "checkpoint_steps": 3}
    script = (
        f"import sys, time; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]\n"
        "from pathlib import Path\n"
        "from engine_tasks import Curve, run\n"
        "class Slow(Curve):\n"
        "    def batch(self, rows, epoch, step):\n"
        "        print(step, flush=True)\n"
        "        time.sleep(0.05)\n"
        "        return super().batch(rows, epoch, step)\n"
        f"run(Slow(**{LAYERS!r}), Path({str(tmp_path / 'cut')!r}), **{settings!r})\n"
    )
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in job.stdout:
        if line.strip() == "11":
            break
    job.kill()
    job.wait()
    job.stdout.close()
    whole = run(Curve(**LAYERS), tmp_path / "whole", **settings)
    rest = run(Curve(**LAYERS), tmp_path / "cut", **settings)
    assert rest.asked[0][0] >= 9
    assert final_bytes(rest, tmp_path / "cut") == final_bytes(whole, tmp_path / "whole")


def test_a_finished_training_is_not_repeated(tmp_path):
    before = final_bytes(run(Curve(), tmp_path), tmp_path)
    again = run(Curve(), tmp_path)
    assert again.asked == []
    assert final_bytes(again, tmp_path) == before


def test_a_checkpoint_of_another_job_is_not_continued(tmp_path, capsys):
    run(Curve(), tmp_path)
    assert run(Curve(), tmp_path, learning_rate=0.01).asked[0][0] == 0
    assert "starting anew" in capsys.readouterr().err
    third = Curve()
    fit(third, training(learning_rate=0.01), tmp_path, seed=1, device="cpu", identity="other data")
    assert third.asked[0][0] == 0


def test_a_broken_checkpoint_is_a_run_error(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"PK nonsense")
    with pytest.raises(RunError, match="delete it"):
        run(Curve(), tmp_path)


def test_a_full_disk_is_what_the_disk_said_and_leaves_no_half(tmp_path, monkeypatch):
    """torch wraps the error of a write in one of its own."""

    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path / CHECKPOINT, {"identity": "x", "value": 1})
    monkeypatch.setattr(builtins, "open", lambda *_, **__: Full())
    with pytest.raises(OSError, match="No space left") as caught:
        save_checkpoint(tmp_path / CHECKPOINT, {"identity": "x", "value": torch.zeros(3)})
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / CHECKPOINT)
    assert load_checkpoint(tmp_path / CHECKPOINT, identity="x")["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


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
    task = Curve(values=values)
    task.selection_mode = mode
    seen = states(task)
    result = fit(task, training(epochs=3), tmp_path, seed=1, device="cpu")
    assert (result.best_epoch, result.best_value) == (best, values[best - 1])
    assert all(torch.equal(value, seen[best - 1][name]) for name, value in task.state().items())


def test_patience_ends_the_training(tmp_path):
    settings = training(epochs=5, patience=2)
    result = fit(Curve(values=[0.5, 0.4, 0.45, 0.41, 0.1]), settings, tmp_path, seed=1, device="cpu")
    assert (result.epochs, result.best_epoch, result.stopped_early) == (4, 2, True)
    again = Curve(values=[])
    repeated = fit(again, settings, tmp_path, seed=1, device="cpu")
    assert (repeated.epochs, repeated.best_epoch, again.asked) == (4, 2, [])


def test_history_has_no_times_and_one_row_per_epoch(tmp_path):
    run(Curve(samples=22), tmp_path, epochs=3)
    rows = read_csv(tmp_path / "history.csv")
    assert list(rows[0]) == ["epoch", "step", "lr", "train_absolute", "train_loss", "val_error"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["5", "10", "15"], "22 samples in batches of 4: the last two wait"
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])


def test_batches_cover_an_epoch_in_order_and_small_data_make_one_batch(tmp_path):
    task = run(Curve(), tmp_path / "a", epochs=1)
    assert [row for _, rows in task.asked for row in rows] == task.epoch_rows(0).tolist()[:16]
    small = run(Curve(samples=3), tmp_path / "b")
    assert [len(rows) for _, rows in small.asked] == [3, 3]


def test_no_epochs_and_nothing_trainable_write_a_header(tmp_path):
    frozen = Curve()
    frozen.trainable = dict
    for folder, task, epochs in ((tmp_path / "a", Curve(), 0), (tmp_path / "b", frozen, 2)):
        result = fit(task, training(epochs=epochs), folder, seed=1, device="cpu")
        assert (result.epochs, result.best_epoch) == (0, 0)
        assert (folder / "history.csv").read_text() == "epoch,step,lr\n"
        assert not (folder / CHECKPOINT).exists()


def test_a_loss_a_gradient_or_a_metric_that_is_not_finite_is_refused(tmp_path):
    task = Curve()
    plain = task.loss

    def loss(batch):
        value, parts = plain(batch)
        return (value * math.nan if task.asked[-1][0] == 3 else value), parts

    task.loss = loss
    with pytest.raises(RunError, match="loss is not finite at step 3"):
        run(task, tmp_path / "a")
    steep = Curve()

    def infinite(batch):
        weight = steep.module[0].weight
        return (weight - weight.detach()).square().sum().sqrt() + steep.module(batch["x"]).sum() * 0, {}

    steep.loss = infinite
    with pytest.raises(RunError, match="gradient is not finite at step 0"):
        run(steep, tmp_path / "b")
    with pytest.raises(RunError, match="selection metric error is not finite"):
        run(Curve(values=[math.nan]), tmp_path / "c")


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(RunError, match="no training samples"):
        run(Curve(samples=0), tmp_path)


def test_dropout_depends_on_the_seed_only(tmp_path):
    ends = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(12345 + len(ends))
        ends.append(final_bytes(run(Curve(dropout=0.5), tmp_path / name, seed=seed), tmp_path / name))
    assert ends[0] == ends[1] != ends[2]


def test_the_gradient_is_clipped(tmp_path):
    task, start = Curve(), Curve()
    plain = task.loss
    task.loss = lambda batch: (plain(batch)[0] * 1e6, {})
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_fraction": 0.0}
    run(task, tmp_path, **settings, epochs=1, batch_size=18, learning_rate=1.0)
    moved = sum(float((task.state()[name] - value).square().sum()) for name, value in start.state().items())
    assert math.sqrt(moved) == pytest.approx(1.0, rel=1e-3)


def test_half_precision_is_for_gpus(tmp_path, capsys):
    assert fit(Curve(), training(precision="bf16"), tmp_path, seed=1, device="cpu").precision == "fp32"
    assert "computing in fp32" in capsys.readouterr().err


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
    out, _ = second.communicate(timeout=60)
    assert out.strip() == "held"
    for _ in range(2):  # and is free again after its holder's end
        with folder_lock(tmp_path):
            pass


def test_equal_weights_make_equal_files(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2, dtype=torch.float64)}
    write_safetensors(tmp_path / "1.safetensors", tensors)
    write_safetensors(tmp_path / "2.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    assert torch.equal(load_file(tmp_path / "1.safetensors")["b"], tensors["b"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_accumulation_equals_the_bigger_batch(tmp_path, optimizer):
    """A loss that is summed, not averaged, over the micro-batches would triple the gradient: SGD would show it."""
    settings = {"optimizer": optimizer, "gradient_clip": 0.0}
    whole = run(Curve(), tmp_path / "whole", batch_size=6, **settings)
    parts = run(Curve(), tmp_path / "parts", batch_size=2, accumulation=3, **settings)
    assert (set(whole.parts), set(parts.parts)) == ({6}, {2})
    assert parts.asked == whole.asked
    assert difference(Curve(), whole) > 1e-3
    assert difference(whole, parts) < 1e-12
    histories_agree(tmp_path / "whole", tmp_path / "parts", tolerance=1e-12)


def test_moving_average_by_hand():
    value = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    average = MovingAverage({"v": value}, decay=0.15)
    expected = torch.tensor([1.0, -2.0])
    for step, (now, decay) in enumerate([((3.0, 0.0), 0.1), ((5.0, 4.0), 0.15), ((0.0, 8.0), 0.15)]):
        value.data = torch.tensor(now)
        average.update(step)
        expected = decay * expected + (1 - decay) * torch.tensor(now)
        torch.testing.assert_close(average.state_dict()["v"], expected)
    with average.applied():
        torch.testing.assert_close(value.detach(), expected)
    assert value.tolist() == [0.0, 8.0]


def test_the_average_is_what_is_validated_and_kept(tmp_path, monkeypatch):
    task, raw, update = Curve(norm=True), [], MovingAverage.update

    def spy(self, step):
        update(self, step)
        raw.append({name: value.clone() for name, value in task.state().items()})

    monkeypatch.setattr(MovingAverage, "update", spy)
    seen = states(task)
    run(task, tmp_path, ema_decay=0.9)
    kept = task.state()
    assert any(all(torch.equal(kept[name], one[name]) for name in kept) for one in seen)
    for name in ("0.weight", "1.running_mean"):
        assert not any(torch.equal(kept[name], one[name]) for one in raw)
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state"]
    assert all(torch.equal(last[name], raw[-1][name]) for name in last), "training itself goes on from the raw weights"


def pooled(**options) -> Curve:
    """Its batch norm sees one value per channel of a sample, as DeepLabV3+'s after its image pooling."""
    task = Curve(norm=True, **options)
    task.module.smallest_batch = 2
    return task


def test_no_micro_batch_is_smaller_than_the_network_takes(tmp_path):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run(Curve(norm=True, samples=5), tmp_path / "torch", batch_size=2, accumulation=3)
    cut = run(pooled(samples=5), tmp_path / "cut", batch_size=2, accumulation=3)
    assert set(cut.parts) == {2, 3}
    assert sum(cut.parts) == 5 * training().epochs


@pytest.mark.parametrize(("samples", "settings"), [(18, {"batch_size": 1, "accumulation": 8}), (1, {"batch_size": 4})])
def test_too_few_samples_for_the_network_are_refused_at_once(tmp_path, samples, settings):
    task = pooled(samples=samples)
    with pytest.raises(RunError, match="of which needs 2: a batch norm") as caught:
        run(task, tmp_path, **settings)
    assert "raise training.batch_size to 2" in caught.value.remedy
    assert task.parts == []


@pytest.mark.parametrize("where", ["loss", "validate"])
def test_out_of_memory_says_what_to_do(tmp_path, where):
    task = pooled()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (planted)")

    setattr(task, where, full)
    with pytest.raises(RunError, match="Out of memory with 4 samples") as caught:
        run(task, tmp_path)
    for words in ("lower training.batch_size (to no less than 2)", "raise training.accumulation"):
        assert words in caught.value.remedy


def test_activation_checkpointing_needs_something_to_recompute(tmp_path):
    with pytest.raises(SettingsError, match="computed twice"):
        run(Curve(), tmp_path, activation_checkpointing=True)


def test_tensorboard_reads_the_history(tmp_path):
    for name, asked in (("a", True), ("b", True), ("none", False)):
        run(Curve(), tmp_path / name, tensorboard=asked, epochs=3)
    assert not list((tmp_path / "none").glob("events*"))
    assert (tmp_path / "a" / EVENTS).read_bytes() == (tmp_path / "b" / EVENTS).read_bytes()
    read = EventAccumulator(str(tmp_path / "a"))
    read.Reload()
    rows = read_csv(tmp_path / "a" / "history.csv")
    assert set(read.Tags()["scalars"]) == {"lr", "train_absolute", "train_loss", "val_error"}
    for name in read.Tags()["scalars"]:
        events = read.Scalars(name)
        assert [event.step for event in events] == [int(row["step"]) for row in rows]
        assert [event.value for event in events] == pytest.approx([float(row[name]) for row in rows], rel=1e-6)
