"""Joint training: the class loss reaches the trainable part of the segmenter through the soft mask alone."""

# ruff: noqa: F811 - fixtures come from a helper module

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from classification_runs import SIZE, TinySegmenter, classifier_run, joint_run, layout  # noqa: F401

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv
from lesion_core.models.registry import build_classifier
from lesion_core.models.trained import LoadedSegmenter, load_classifier, read_tensors
from lesion_core.paths import Layout
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.training import joint
from lesion_core.training.classification import train_run as train_classifier
from lesion_core.training.classification_data import load_labelled_images


def make_model(size: int = SIZE) -> joint.JointModel:
    run = classifier_run()
    settings = run.spec.model.model_copy(update={"image_size": size})
    return joint.JointModel(TinySegmenter(), build_classifier(settings, run.extraction, seed=1), size)


def make_task(root: Path, run: Run, size: int = SIZE) -> joint.JointTask:
    images = load_labelled_images(root, ["ham10000"], SIZE, masks="true", segmenter_run=None)
    return joint.JointTask(make_model(size), images, run.spec, threshold=0.5, seed=1, device="cpu")


@pytest.mark.parametrize("size", [SIZE, SIZE // 2])
def test_class_loss_alone_reaches_the_adapter_through_the_soft_mask(layout: Layout, size: int):
    task = make_task(layout.root, joint_run(weight_segmentation=0.0), size)
    loss, parts = task.loss(task.batch(np.arange(4), 0, 0))
    loss.backward()
    adapter = task.module.segmenter.adapter
    assert adapter.weight.grad.abs().sum() > 0
    assert task.module.segmenter.frozen.weight.grad is None
    assert float(loss.detach()) == pytest.approx(0.8 * parts["classification_loss"], rel=1e-5)


def test_segmentation_loss_alone_leaves_the_classifier_still(layout: Layout):
    task = make_task(layout.root, joint_run(weight_classification=0.0))
    loss, parts = task.loss(task.batch(np.arange(4), 0, 0))
    loss.backward()
    assert task.module.segmenter.adapter.weight.grad.abs().sum() > 0
    assert not task.module.classifier.head.weight.grad.any()
    assert float(loss.detach()) == pytest.approx(parts["segmentation_loss"], rel=1e-5)


def test_trainable_is_adapter_and_classifier(layout: Layout):
    task = make_task(layout.root, joint_run())
    names = list(task.trainable())
    assert names == sorted(names)
    assert [name for name in names if name.startswith("segmenter.")] == [
        "segmenter.adapter.bias",
        "segmenter.adapter.weight",
    ]
    count = sum(1 for name in names if name.startswith("classifier."))
    assert count == len(list(task.module.classifier.parameters()))


def test_state_returns_what_it_was(layout: Layout):
    task = make_task(layout.root, joint_run())
    kept = task.state()
    with torch.no_grad():
        for parameter in task.trainable().values():
            parameter.add_(1.0)
    task.load_state(kept)
    for name, tensor in task.state().items():
        assert torch.equal(tensor, kept[name])


def test_dice_of_validation_by_hand():
    masks = torch.zeros(3, 1, 4, 4)
    masks[0, 0, :2] = 1.0
    logits = torch.full((3, 1, 4, 4), -5.0)
    logits[0, 0, 1:3] = 5.0  # half of the lesion found, as much beside it
    logits[2, 0, 0, 0] = 5.0  # something where there is nothing
    assert joint._dice(logits, masks, 0.5) == [0.5, 1.0, 0.0]
    logits[0, 0, 2] = 0.0  # what lies beside the lesion is a guess: the threshold decides
    assert joint._dice(logits, masks, 0.5) == [0.5, 1.0, 0.0]
    assert joint._dice(logits, masks, 0.6) == pytest.approx([2 / 3, 1.0, 0.0])


def test_the_threshold_of_validation_is_the_runs(layout: Layout):
    """At a threshold that nothing reaches all masks are empty, and so Dice is 0."""
    images = load_labelled_images(layout.root, ["ham10000"], SIZE, masks="true", segmenter_run=None)
    dices = [
        joint.JointTask(make_model(), images, joint_run().spec, threshold=cut, seed=1, device="cpu").validate()["dice"]
        for cut in (0.0, 1.0)
    ]
    assert dices[0] > 0.0 == dices[1]


def segmentation_run(method: str) -> Run:
    return next(run for run in config.expand(config.load("smoke")).values() if run.method == method)


def test_a_joint_run_starts_from_its_runs_and_writes_both(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    start = layout.run("classification", "cls")
    train_classifier(classifier_run(), start, layout.root, "cpu")
    segmenter = TinySegmenter()
    run = joint_run()

    class Sized(LoadedSegmenter):
        size = SIZE

    def load(folder: Path, weights: Path, device: str) -> LoadedSegmenter:
        assert folder == layout.run("segmentation", "seg")
        return Sized(segmenter, segmentation_run("sam_adapter"), None)

    monkeypatch.setattr(joint, "load_segmenter", load)
    (layout.run("segmentation", "seg")).mkdir(parents=True)
    (layout.run("segmentation", "seg") / "weights.safetensors").write_bytes(b"as if")
    frozen = segmenter.frozen.weight.clone()
    folder = layout.run("joint", "j")
    joint.train_run(run, folder, layout.root, "cpu")
    assert torch.equal(segmenter.frozen.weight, frozen)
    tensors = read_tensors(folder / "weights.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"segmenter", "classifier"}
    assert "segmenter.harmonization.reference" in tensors
    before = read_tensors(start / "weights.safetensors")
    assert not torch.equal(before["head.weight"], tensors["classifier.head.weight"])
    loaded = load_classifier(folder)
    assert torch.equal(loaded.model.head.weight, tensors["classifier.head.weight"])
    assert loaded.reference.shape == (3, 256)
    history = read_csv(folder / "history.csv")
    assert {"train_segmentation_loss", "train_classification_loss", "val_dice", "val_balanced_accuracy"} <= set(
        history[0]
    )


def test_what_cannot_be_joined_is_refused(layout: Layout):
    plain = classifier_run("none", "crop")
    blind = build_classifier(plain.spec.model, plain.extraction, seed=1)
    with pytest.raises(SettingsError, match="no gradient"):
        joint.build_joint(TinySegmenter(), blind, SIZE, "joint")
    fused = make_model().classifier
    still = TinySegmenter()
    still._learnt = ()
    with pytest.raises(SettingsError, match="nothing to learn"):
        joint.build_joint(still, fused, SIZE, "joint")
    with pytest.raises(RunError, match="classifier_run"):
        joint.train_run(
            joint_run().model_copy(update={"classifier_run": None}), layout.run("joint", "j"), layout.root, "cpu"
        )


@pytest.mark.parametrize("method", ["peft_medsam", "med_sa_1"])
def test_a_segmenter_that_learnt_with_prompts_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch, method: str):
    started = LoadedSegmenter(TinySegmenter(), segmentation_run(method), None)
    monkeypatch.setattr(joint, "load_segmenter", lambda *_: started)
    with pytest.raises(SettingsError, match="cannot segment without a prompt"):
        joint.train_run(joint_run(), layout.run("joint", "j"), layout.root, "cpu")
    assert not (layout.run("joint", "j") / "settings.yaml").exists()
