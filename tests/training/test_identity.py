"""What a checkpoint depends on: changed pixels or masks must not be trained on as if they were the old ones."""

from __future__ import annotations

import numpy as np
import pytest
from material import HOME
from segmentation_runs import (  # noqa: F401
    SIZE,
    SPLITS,
    folder,
    make_run,
    restore_torch,
    root,
    write_dataset,
)

from lesion_core.paths import Layout
from lesion_core.training import checkpoint
from lesion_core.training.checkpoint import input_identity
from lesion_core.training.engine import CHECKPOINT
from lesion_core.training.segmentation import SegmentationTask, train_run


def change_a_pixel(path) -> None:
    array = np.load(path)
    array.reshape(-1)[7] ^= 1
    np.save(path, array)


@pytest.fixture
def data(tmp_path):
    write_dataset(tmp_path, "ph2", SIZE, 4, SPLITS)
    return Layout(tmp_path).pixels(HOME, "ph2", SIZE)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "index.csv"])
def test_the_identity_sees_each_file(data, name):
    run = make_run(train_on=["ph2"])
    before = input_identity(run, [data / "index.csv"])
    assert before == input_identity(run, [data / "index.csv"])
    if name == "index.csv":
        (data / name).write_text((data / name).read_text().replace("ph2_00", "ph2_99"))
    else:
        change_a_pixel(data / name)
    assert input_identity(run, [data / "index.csv"]) != before
    assert input_identity(make_run(train_on=["ph2"], training={"epochs": 3}), [data / "index.csv"]) != before


@pytest.mark.parametrize(("name", "other"), [("code_hash", "0"), ("computing_versions", {"torch": "0.1"})])
def test_the_identity_sees_code_and_packages(data, monkeypatch, name, other):
    run = make_run(train_on=["ph2"])
    before = input_identity(run, [data / "index.csv"])
    monkeypatch.setattr(checkpoint, name, lambda *_: other)
    assert input_identity(run, [data / "index.csv"]) != before


def test_a_training_on_changed_pixels_starts_anew(root, monkeypatch, capsys):  # noqa: F811
    run = make_run(train_on=["ph2"])
    cut = folder(root, run, "-pixels")
    plain = SegmentationTask.batch
    steps = []

    def stop(self, rows, epoch, step):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return plain(self, rows, epoch, step)

    monkeypatch.setattr(SegmentationTask, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, cut, root, "cpu")
    assert (cut / CHECKPOINT).exists()
    images = Layout(root).pixels(HOME, "ph2", SIZE) / "images.npy"
    before = images.read_bytes()
    try:
        change_a_pixel(images)
        train_run(run, cut, root, "cpu")
    finally:
        images.write_bytes(before)
    assert steps[3] == 0
    assert "starting anew" in capsys.readouterr().err
