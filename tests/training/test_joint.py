"""Joint training: the class loss reaches the trainable part of the segmenter through the soft mask alone."""

# ruff: noqa: F811 - fixtures come from a helper module

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from classification_runs import (  # noqa: F401
    SEGMENTER,
    SIZE,
    TinySegmenter,
    classifier_run,
    joint_run,
    layout,
    make_pseudo_masks,
    make_root,
)
from material import HOME

from lesion_core.errors import MaskError, SettingsError
from lesion_core.files import read_csv, read_json, write_csv
from lesion_core.models.registry import build_classifier
from lesion_core.models.trained import LoadedSegmenter, load_classifier, read_tensors
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.training import joint
from lesion_core.training.classification import train_run as train_classifier
from lesion_core.training.classification_data import load_labelled_images, load_masked_images
from lesion_core.training.losses import segmentation_loss


def make_model(size: int = SIZE) -> joint.JointModel:
    run = classifier_run()
    settings = run.spec.model.model_copy(update={"image_size": size})
    return joint.JointModel(TinySegmenter(), build_classifier(settings, run.extraction, seed=1), size)


def make_task(root: Path, run: Run, size: int = SIZE, threshold: float = 0.5) -> joint.JointTask:
    """L_seg learns from ham10000's own masks or, where the run says so, from those of another dataset."""
    own = run.spec.segmentation_from == "labelled_images"
    images = load_labelled_images(root, HOME, ["ham10000"], SIZE, masks="true" if own else None, segmenter_run=None)
    masked = None if own else load_masked_images(make_root(root, "ph2").root, HOME, ["ph2"], SIZE)
    given = {"masked": masked, "threshold": threshold, "seed": 1, "device": "cpu"}
    return joint.JointTask(make_model(size), images, run.spec, **given)


def two_batches(**changes: object) -> Run:
    return joint_run(segmentation_from="segmenter_images", **changes)


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


def test_segmentation_learns_from_true_masks_of_other_images(layout: Layout):
    """L_seg and its gradient are those of the masked batch; the labelled images' content does not reach them."""
    task = make_task(layout.root, two_batches(weight_classification=0.0))
    batch = task.batch(np.arange(4), 0, 0)
    adapter = task.module.segmenter.adapter
    expected, _ = segmentation_loss(
        task.module.segmenter(batch["masked_images"], None), batch["masks"], task.spec.segmentation_loss
    )
    [wanted] = torch.autograd.grad(expected, adapter.weight)
    batch["images"] = torch.zeros_like(batch["images"])
    loss, parts = task.loss(batch)
    loss.backward()
    assert parts["segmentation_loss"] == pytest.approx(float(expected.detach()))
    assert torch.equal(adapter.weight.grad, wanted)
    assert not task.module.classifier.head.weight.grad.any()


def test_the_class_loss_does_not_see_the_masked_batch(layout: Layout):
    task = make_task(layout.root, two_batches(weight_segmentation=0.0))
    batch = task.batch(np.arange(4), 0, 0)
    found = []
    for key in ("images", "masked_images"):
        loss, _ = task.loss(
            {**batch, key: batch[key].flip(0), "masks": 1 - batch["masks"], "targets": batch["targets"]}
        )
        found.append(float(loss.detach()))
    assert float(task.loss(batch)[0].detach()) == found[1] != found[0]


def test_both_batches_hang_on_seed_epoch_and_step_alone(layout: Layout):
    task = make_task(layout.root, two_batches())
    again = joint.JointTask(
        make_model(), task.images, task.spec, masked=task.masked, threshold=0.5, seed=1, device="cpu"
    )
    first, second = task.batch(np.arange(4), 1, 9), again.batch(np.arange(4), 1, 9)
    assert set(first) == {"images", "masked_images", "masks", "targets"}
    assert all(len(value) == 4 and torch.equal(value, second[name]) for name, value in first.items())
    other = again.batch(np.arange(4), 1, 10)
    assert not torch.equal(other["masked_images"], first["masked_images"])


@pytest.mark.parametrize("count", [4, 100])
def test_every_masked_image_comes_once_before_any_comes_again(layout: Layout, count: int):
    task = make_task(layout.root, two_batches())
    rows = task.masked.train
    stream = np.concatenate([task.masked_rows(step, count) for step in range(1 + 2 * len(rows) // count)])
    rounds = [stream[: len(rows)], stream[len(rows) : 2 * len(rows)]]
    assert all(sorted(part) == list(rows) for part in rounds)
    assert list(rounds[0]) != list(rounds[1])


def test_validation_judges_masks_of_the_masked_images(layout: Layout):
    task = make_task(layout.root, two_batches())
    data, rows = task.masked.data, task.masked.val
    images = torch.from_numpy(np.stack([data.image(row) for row in rows])).permute(0, 3, 1, 2).float()
    masks = torch.from_numpy(np.stack([data.soft_mask(row) for row in rows]))[:, None] / 255.0
    with torch.no_grad():
        expected = joint._dice(task.module.segmenter(images, None), masks, 0.5)
    assert task.validate()["dice"] == pytest.approx(np.mean(expected))


def test_masked_images_must_be_there(layout: Layout):
    path = make_root(layout.root, "ph2").pixels(HOME, "ph2", SIZE) / "index.csv"
    rows = [{**row, "split": "train" if row["split"] == "val" else row["split"]} for row in read_csv(path)]
    write_csv(path, INDEX_COLUMNS, rows)
    with pytest.raises(MaskError, match="No validation image of ph2 has a mask"):
        load_masked_images(layout.root, HOME, ["ph2"], SIZE)


def test_trainable_is_adapter_and_classifier(layout: Layout):
    task = make_task(layout.root, joint_run())
    names = sorted(task.trainable())
    assert [name for name in names if name.startswith("segmenter.")] == [
        "segmenter.adapter.bias",
        "segmenter.adapter.weight",
    ]
    count = sum(1 for name in names if name.startswith("classifier."))
    assert count == len(list(task.module.classifier.parameters()))


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
    dices = [make_task(layout.root, joint_run(), threshold=cut).validate()["dice"] for cut in (0.0, 1.0)]
    assert dices[0] > 0.0 == dices[1]


def segmentation_run(method: str) -> Run:
    return next(run for run in config.expand(config.load("smoke")).values() if run.method == method)


@pytest.mark.parametrize("source", ["segmenter_images", "labelled_images", "pseudo_masks"])
def test_a_joint_run_starts_from_its_runs_and_writes_both(layout: Layout, monkeypatch: pytest.MonkeyPatch, source: str):
    start = layout.run("classification", "cls")
    train_classifier(classifier_run(), start, layout.root, "cpu")
    segmenter = TinySegmenter()
    run, started = joint_run(segmentation_from=source), segmentation_run("sam_adapter")
    masked = started.spec.train_on if source == "segmenter_images" else []
    for name in masked:
        make_root(layout.root, name)
    if source == "pseudo_masks":
        run = run.model_copy(update={"segmenter_run": SEGMENTER})
        make_pseudo_masks(layout, [f"im{number:03d}" for number in range(56)])
    home = layout.run("segmentation", run.segmenter_run)

    class Sized(LoadedSegmenter):
        size = SIZE

    def load(folder: Path, weights: Path, device: str) -> LoadedSegmenter:
        assert folder == home
        return Sized(segmenter, started, None)

    monkeypatch.setattr(joint, "load_segmenter", load)
    home.mkdir(parents=True)
    (home / "weights.safetensors").write_bytes(b"as if")
    frozen = segmenter.frozen.weight.clone()
    folder = layout.run("joint", "j")
    joint.train_run(run, folder, layout.root, "cpu")
    assert torch.equal(segmenter.frozen.weight, frozen)
    tensors = read_tensors(folder / "weights.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"segmenter", "classifier"}
    assert "segmenter.harmonization.reference" in tensors
    inputs = read_json(folder / "provenance.json")["inputs"]
    read = {
        name
        for name in (*started.spec.train_on, "ham10000")
        if f"protocols/{HOME}/pixels/{name}/{SIZE}/index.csv" in inputs
    }
    assert read == {*masked, "ham10000"}
    assert any("pseudo" in name for name in inputs) == (source == "pseudo_masks")
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


@pytest.mark.parametrize("method", ["peft_medsam", "med_sa_1"])
def test_a_segmenter_that_learnt_with_prompts_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch, method: str):
    started = LoadedSegmenter(TinySegmenter(), segmentation_run(method), None)
    monkeypatch.setattr(joint, "load_segmenter", lambda *_: started)
    with pytest.raises(SettingsError, match="cannot segment without a prompt"):
        joint.train_run(joint_run(), layout.run("joint", "j"), layout.root, "cpu")
    assert not (layout.run("joint", "j") / "settings.yaml").exists()
