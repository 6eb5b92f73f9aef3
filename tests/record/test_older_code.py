"""What older code or other packages began is not gone on with; what a remark changed is."""

# ruff: noqa: F811 - fixtures come from other files
from __future__ import annotations

from importlib import metadata

import pytest
from segmentation_runs import make_run, restore_torch, root  # noqa: F401
from test_provenance import edit, package  # noqa: F401

from lesion_core.training.segmentation import SegmentationTask, train_run

STOPPED_AT = 2


def other_torch(folder, monkeypatch):
    plain = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "torch" else plain(name))


def other_snakemake(folder, monkeypatch):
    plain = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "snakemake" else plain(name))


def other_code(folder, monkeypatch):
    for name in ("training/losses.py", "inference/refine.py"):
        edit(folder / name, "def ", "CHANGED = True\n\n\ndef ")


def other_words(folder, monkeypatch):
    for name in ("training/losses.py", "inference/refine.py"):
        edit(folder / name, '"""', '"""Other words: ')
        edit(folder / name, "def ", "# a remark\ndef ")


@pytest.fixture(params=[other_code, other_torch, other_words, other_snakemake], ids=lambda change: change.__name__)
def changed(request, package, monkeypatch):
    """A function that changes what the job runs on, and whether the job must begin anew after it."""
    folder, clear = package

    def change():
        request.param(folder, monkeypatch)
        clear()

    return change, request.param in (other_code, other_torch)


def stop_at(count, plain, steps, place):
    """``plain``, killed at its call number ``count`` (from 0); the steps are noted."""

    def stopping(*arguments):
        steps.append(arguments[place])
        if len(steps) == count + 1:
            raise KeyboardInterrupt
        return plain(*arguments)

    return stopping


def test_a_training(root, tmp_path, changed, monkeypatch, capsys):
    change, anew = changed
    run, steps = make_run(training={"epochs": 1, "checkpoint_steps": 1, "batch_size": 2}), []
    monkeypatch.setattr(SegmentationTask, "batch", stop_at(STOPPED_AT, SegmentationTask.batch, steps, 3))
    run_dir = tmp_path / "runs" / "segmentation" / run.run_id
    with pytest.raises(KeyboardInterrupt):
        train_run(run, run_dir, root, "cpu")
    change()
    train_run(run, run_dir, root, "cpu")
    assert steps[: STOPPED_AT + 1] == list(range(STOPPED_AT + 1))
    assert steps[STOPPED_AT + 1] == (0 if anew else STOPPED_AT)
    assert ("starting anew" in capsys.readouterr().err) == anew
