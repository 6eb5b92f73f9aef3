"""Accumulation, moving average, running out of memory, TensorBoard, determinism, and resuming with all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_tasks import Curve, difference, training

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv
from lesion_core.training.checkpoint import write_safetensors
from lesion_core.training.ema import MovingAverage
from lesion_core.training.engine import CHECKPOINT, fit
from lesion_core.training.history import EVENTS
from lesion_core.training.oom import is_out_of_memory

ALL = {
    "accumulation": 2,
    "ema_decay": 0.9,
    "schedule": "plateau",
    "plateau_patience": 0,
    "checkpoint_steps": 1,
    "epochs": 3,
}
OPTIONS = {"dropout": 0.3, "norm": True, "room": 3}


def run(task: Curve, folder: Path, seed: int = 1, **changes) -> Curve:
    fit(task, training(**changes), folder, seed=seed, device="cpu")
    return task


def files_of(task: Curve, folder: Path) -> tuple[bytes, bytes]:
    write_safetensors(folder / "end.safetensors", task.state())
    return (folder / "end.safetensors").read_bytes(), (folder / "history.csv").read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_accumulation_equals_the_bigger_batch(tmp_path, optimizer):
    whole = run(Curve(), tmp_path / "whole", batch_size=6, optimizer=optimizer)
    parts = run(Curve(), tmp_path / "parts", batch_size=2, accumulation=3, optimizer=optimizer)
    assert set(whole.parts) == {6}
    assert set(parts.parts) == {2}
    assert parts.asked == whole.asked
    assert difference(whole, parts) < 1e-12
    for one, two in zip(
        read_csv(tmp_path / "whole/history.csv"), read_csv(tmp_path / "parts/history.csv"), strict=True
    ):
        assert float(one["train_loss"]) == pytest.approx(float(two["train_loss"]), abs=1e-12)


def test_accumulation_is_not_a_sum(tmp_path):
    """A loss that is summed, not averaged, over the parts would triple the gradient: SGD would show it."""
    settings = {"optimizer": "sgd", "gradient_clip": 0.0, "epochs": 1, "momentum": 0.0, "warmup_fraction": 0.0}
    start = Curve()
    whole = run(Curve(), tmp_path / "whole", batch_size=18, **settings)
    parts = run(Curve(), tmp_path / "parts", batch_size=6, accumulation=3, **settings)
    assert difference(start, whole) > 1e-3
    assert difference(whole, parts) < 1e-12


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
    task = Curve(norm=True)
    raw, seen = [], []
    update, validate = MovingAverage.update, task.validate

    def spy(self, step):
        update(self, step)
        raw.append({name: value.clone() for name, value in task.state().items()})

    def watch():
        seen.append({name: value.clone() for name, value in task.state().items()})
        return validate()

    monkeypatch.setattr(MovingAverage, "update", spy)
    task.validate = watch
    fit(task, training(ema_decay=0.9), tmp_path, seed=1, device="cpu")
    kept = task.state()
    assert any(all(torch.equal(kept[name], one[name]) for name in kept) for one in seen)
    assert not any(torch.equal(kept["0.weight"], one["0.weight"]) for one in raw)
    assert not any(torch.equal(kept["1.running_mean"], one["1.running_mean"]) for one in raw)
    plain = run(Curve(norm=True), tmp_path / "plain", epochs=2)
    assert difference(task, plain) > 1e-4
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state"]
    assert all(torch.equal(last[name], raw[-1][name]) for name in last), "training itself goes on from the raw weights"


@pytest.mark.parametrize("stop", [1, 3, 4, 5])
def test_resuming_is_exact_with_everything_on(tmp_path, stop):
    whole = run(Curve(**OPTIONS), tmp_path / "whole", **ALL)
    with pytest.raises(KeyboardInterrupt):
        run(Curve(fail_at=stop, **OPTIONS), tmp_path / "cut", **ALL)
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    torch.manual_seed(99)
    rest = run(Curve(**OPTIONS), tmp_path / "cut", **ALL)
    assert rest.asked[0][0] == stop
    assert max(rest.parts) == 2, "what was halved stays halved"
    assert files_of(rest, tmp_path / "cut") == files_of(whole, tmp_path / "whole")


def test_a_killed_process_resumes_exactly_with_everything_on(tmp_path):
    """kill -9, between two checkpoints of a training that ran out of memory at its first step."""
    tests = Path(__file__).resolve().parent
    script = (
        f"import sys, time; sys.path[:0] = [{str(tests)!r}, {str(tests.parents[1])!r}]\n"
        "from pathlib import Path\n"
        "from test_engine_options import ALL, OPTIONS, Curve, run\n"
        "class Slow(Curve):\n"
        "    def batch(self, rows, epoch, step):\n"
        "        print(step, flush=True)\n"
        "        time.sleep(0.05)\n"
        "        return super().batch(rows, epoch, step)\n"
        f"run(Slow(**OPTIONS), Path({str(tmp_path / 'cut')!r}), **(ALL | {{'epochs': 10, 'checkpoint_steps': 3}}))\n"
    )
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in job.stdout:
        if line.strip() == "11":
            break
    job.kill()
    job.wait()
    job.stdout.close()
    settings = ALL | {"epochs": 10, "checkpoint_steps": 3}
    whole = run(Curve(**OPTIONS), tmp_path / "whole", **settings)
    rest = run(Curve(**OPTIONS), tmp_path / "cut", **settings)
    assert rest.asked[0][0] >= 9
    assert files_of(rest, tmp_path / "cut") == files_of(whole, tmp_path / "whole")


def test_out_of_memory_halves_the_batch_as_accumulation_would(tmp_path, capsys):
    calm = run(Curve(dropout=0.2, norm=True), tmp_path / "calm", batch_size=2, accumulation=4)
    tight = run(Curve(dropout=0.2, norm=True, room=2), tmp_path / "tight", batch_size=8)
    said = capsys.readouterr().err
    assert "out of memory at step 0: from now on 2 passes of at most 4 samples" in said
    assert "out of memory at step 0: from now on 4 passes of at most 2 samples" in said
    assert tight.parts[:3] == [8, 4, 2]
    assert set(tight.parts[2:]) == {2}
    assert difference(calm, tight) == 0.0, "the same bits as accumulation, batch norm's statistics and dropout included"
    assert "as with 4 parts by training.accumulation (dropout, stochastic depth and batch norm depend on" in said
    whole = run(Curve(), tmp_path / "whole", batch_size=8)
    parts = run(Curve(room=3), tmp_path / "parts", batch_size=8)
    assert difference(whole, parts) < 1e-12


@pytest.mark.parametrize("layers", [{"dropout": 0.2}, {"norm": True}])
def test_noise_and_batch_norm_depend_on_the_parts(tmp_path, layers):
    """What the log says of a halved batch: the numbers of that accumulation, not of the whole batch."""
    whole = run(Curve(**layers), tmp_path / "whole", batch_size=8)
    tight = run(Curve(room=4, **layers), tmp_path / "tight", batch_size=8)
    calm = run(Curve(**layers), tmp_path / "calm", batch_size=4, accumulation=2)
    assert difference(calm, tight) == 0.0
    assert difference(whole, tight) > 1e-4


def test_out_of_memory_midway_leaves_no_trace(tmp_path):
    """Memory runs out in the second part of a step: gradient and statistics of the first are dropped."""

    class Once(Curve):
        def loss(self, batch):
            if len(self.parts) == 3:
                self.parts.append(len(batch["x"]))
                self.module(batch["x"])
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
            return super().loss(batch)

    settings = {"batch_size": 4, "accumulation": 2, "epochs": 1, "optimizer": "sgd"}
    once = run(Once(norm=True, samples=16), tmp_path / "once", **settings)
    assert once.parts == [4, 4, 4, 4, 2, 2, 2, 2]

    calm = Curve(norm=True, samples=16)
    # The same cut by hand: four-sample parts in the first step, two-sample parts in the second.
    from lesion_core.training.step import Stepper

    plain = Stepper.step

    def cut(self, batch, number, samples):
        self.pieces = 2 if number == 0 else 4
        return plain(self, batch, number, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", cut)
        run(calm, tmp_path / "calm", **settings)
    assert difference(once, calm) == 0.0


def test_one_sample_too_many_is_refused(tmp_path):
    with pytest.raises(RunError, match="activation_checkpointing") as caught:
        run(Curve(room=0), tmp_path, batch_size=8)
    assert "one sample cannot be halved" in str(caught.value)


def pooled(**options) -> Curve:
    """Its batch norm sees one value per channel of a sample, as DeepLabV3+'s after its image pooling."""
    task = Curve(norm=True, **options)
    task.module.smallest_batch = 2
    return task


def test_no_part_is_smaller_than_the_network_takes(tmp_path):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run(Curve(norm=True, samples=5), tmp_path / "torch", batch_size=2, accumulation=3)
    cut = run(pooled(samples=5), tmp_path / "cut", batch_size=2, accumulation=3)
    assert set(cut.parts) == {2, 3}
    assert sum(cut.parts) == 5 * training().epochs
    two = run(Curve(norm=True, samples=5), tmp_path / "two", batch_size=3, accumulation=2)
    assert difference(cut, two) == 0.0


def test_memory_is_halved_to_what_the_network_takes_and_no_further(tmp_path, capsys):
    enough = run(pooled(room=3, samples=7), tmp_path / "enough", batch_size=7)
    assert enough.parts[:3] == [7, 3, 4]
    assert set(enough.parts[3:]) == {2, 3}
    assert "from now on 3 passes of at most 3 samples" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"a batch of 2 samples cannot be halved \(a batch norm") as caught:
        run(pooled(room=1), tmp_path / "tight", batch_size=8)
    assert "GPU with more memory" in caught.value.remedy


@pytest.mark.parametrize(
    ("samples", "processes", "settings"),
    [(18, 1, {"batch_size": 1, "accumulation": 8}), (1, 1, {"batch_size": 4}), (18, 2, {"batch_size": 3})],
)
def test_too_few_samples_for_the_network_are_refused_at_once(tmp_path, monkeypatch, samples, processes, settings):
    task = pooled(samples=samples)
    monkeypatch.setattr("lesion_core.training.engine.world", lambda: (0, processes))
    with pytest.raises(RunError, match="Each process and pass needs 2 samples") as caught:
        run(task, tmp_path, **settings)
    assert f"raise training.batch_size to {2 * processes}" in caught.value.remedy
    assert task.parts == []


def test_memory_that_ends_in_validation_is_told(tmp_path):
    task = Curve()

    def validate():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    task.validate = validate
    task.module.smallest_batch = 2
    with pytest.raises(RunError, match="while validating after epoch 1") as caught:
        run(task, tmp_path)
    assert "lower training.batch_size (to no less than 2)" in caught.value.remedy


def test_the_allocators_own_words_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_it(tmp_path):
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
    assert is_out_of_memory(torch.OutOfMemoryError("x"))

    class Broken(Curve):
        def loss(self, batch):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run(Broken(), tmp_path)


def test_activation_checkpointing_needs_something_to_recompute(tmp_path):
    with pytest.raises(SettingsError, match="computed twice"):
        run(Curve(), tmp_path, activation_checkpointing=True)


def test_tensorboard_reads_the_history(tmp_path):
    run(Curve(), tmp_path / "a", tensorboard=True, epochs=3)
    run(Curve(), tmp_path / "b", tensorboard=True, epochs=3)
    run(Curve(), tmp_path / "none")
    assert not list((tmp_path / "none").glob("events*"))
    assert (tmp_path / "a" / EVENTS).read_bytes() == (tmp_path / "b" / EVENTS).read_bytes()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "a"))
    read.Reload()
    rows = read_csv(tmp_path / "a" / "history.csv")
    assert set(read.Tags()["scalars"]) == {"lr", "train_absolute", "train_loss", "val_error"}
    for name in read.Tags()["scalars"]:
        events = read.Scalars(name)
        assert [event.step for event in events] == [int(row["step"]) for row in rows]
        assert [event.value for event in events] == pytest.approx([float(row[name]) for row in rows], rel=1e-6)


def test_tensorboard_is_imported_on_demand_alone():
    code = (
        "import sys, lesion_core.training.engine;"
        "print([name for name in ('tensorboard', 'torch._dynamo', 'google.protobuf') if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_two_processes_give_the_same_bytes_in_deterministic_mode(tmp_path):
    """Convolution, scatter and interpolation under ``make_deterministic``: the same weights to the bit, twice."""
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, torch\n"
        "from lesion_core.seeding import make_deterministic, seed_torch\n"
        "make_deterministic(1)\n"
        "assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1\n"
        "assert not torch.backends.cudnn.benchmark\n"
        "import os; assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'\n"
        "seed_torch(3, 'job')\n"
        "nn = torch.nn\n"
        "model = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "    nn.Upsample(scale_factor=2, mode='bilinear'), nn.Dropout(0.5), nn.ConvTranspose2d(16, 4, 3))\n"
        "x = torch.rand(2, 3, 64, 64)\n"
        "model(x).square().mean().backward()\n"
        "import hashlib\n"
        "digest = hashlib.sha256()\n"
        "for name, item in sorted(model.named_parameters()):\n"
        "    digest.update(item.grad.numpy().tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    env.pop("CUBLAS_WORKSPACE_CONFIG", None)
    jobs = [
        subprocess.Popen([sys.executable, script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [job.communicate()[0].strip() for job in jobs]
    assert len(outputs[0]) == 64
    assert outputs[0] == outputs[1]
