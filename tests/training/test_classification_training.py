"""Training of classifiers on a small made root: learning, determinism, resuming, the data's refusals."""

# ruff: noqa: F811 - fixtures come from a helper module

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from classification_runs import SEGMENTER, SIZE, layout, make_pseudo_masks, make_root, make_run  # noqa: F401
from material import HOME

from lesion_core.errors import MaskError, RunError, SplitError
from lesion_core.files import read_csv, read_json, write_csv
from lesion_core.inference.classify import class_probabilities
from lesion_core.models.registry import build_classifier
from lesion_core.models.trained import load_classifier, read_tensors
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.seeding import generator
from lesion_core.training.classification import (
    ClassificationTask,
    epoch_order,
    mixed,
    selection_value,
    train_run,
    validation_metrics,
)
from lesion_core.training.classification_data import load_labelled_images


def run_dir(layout: Layout, name: str) -> Path:
    return layout.run("classification", name)


def test_a_network_learns_and_its_folder_predicts_alike(layout: Layout):
    folder = run_dir(layout, "a")
    train_run(make_run(masks="true", epochs=6, fusion="cross_attention", input="crop"), folder, layout.root, "cpu")
    history = read_csv(folder / "history.csv")
    assert len(history) == 6
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    best = max(float(row["val_balanced_accuracy"]) for row in history)
    assert best > 0.5
    loaded = load_classifier(folder)
    assert loaded.needs_masks
    np.testing.assert_array_equal(loaded.reference, np.load(layout.reference(HOME)))
    data = load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="true", segmenter_run=None)
    images, masks = data.data.images[data.val], np.stack([data.mask(row) for row in data.val])
    found = class_probabilities(loaded.model, images, masks)
    correct = found.argmax(axis=1) == data.labels[data.val]
    assert correct.mean() == pytest.approx(best)  # as many validation images per class: both accuracies agree
    provenance = read_json(folder / "provenance.json")
    assert provenance["run_id"].startswith("test-ham10000-s1-")


@pytest.mark.parametrize(("kind", "least"), [("majority", 1 / 7), ("color_histogram", 0.9)])
def test_baselines_train_in_closed_form(layout: Layout, kind: str, least: float):
    changes = {"kind": kind, "backbone": None}
    masks = None if kind == "majority" else "true"
    run = make_run(masks=masks, **changes, **({} if masks is None else {"input": "masked"}))
    train_run(run, run_dir(layout, kind), layout.root, "cpu")
    loaded = load_classifier(run_dir(layout, kind))
    data = load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="true", segmenter_run=None)
    images, masks_given = data.data.images[data.val], np.stack([data.mask(row) for row in data.val])
    found = class_probabilities(loaded.model, images, masks_given)
    assert (found.argmax(axis=1) == data.labels[data.val]).mean() >= least - 1e-9
    assert "harmonization.reference" in read_tensors(run_dir(layout, kind) / "weights.safetensors")


def test_pseudo_masks_are_those_of_the_image_at_the_classifiers_size(layout: Layout):
    ids = [f"im{number:03d}" for number in range(56)]
    make_pseudo_masks(layout, ids)
    data = load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="method", segmenter_run=SEGMENTER)
    for row in (0, 30):
        mask = data.mask(row)
        assert mask.shape == (SIZE, SIZE)
        assert mask.max() == 100 + row
        assert mask[16, 16] == 100 + row
        assert mask[0, 0] == 0


def test_two_datasets_keep_their_own_pseudo_masks(layout: Layout):
    make_root(layout.root, "isic2018_task3")
    ids = [f"im{number:03d}" for number in range(56)]
    make_pseudo_masks(layout, ids)
    maps = make_pseudo_masks(layout, ids, "isic2018_task3") / "probabilities.npy"
    np.save(maps, np.full((56, 16, 16), 7, np.uint8))
    names = ["isic2018_task3", "ham10000"]
    data = load_labelled_images(layout.root, HOME, names, SIZE, masks="method", segmenter_run=SEGMENTER)
    assert len(data.train) == 70
    assert data.mask(3).max() == 103
    assert set(np.unique(data.mask(56))) == {7}


def test_images_without_pseudo_mask_are_named(layout: Layout):
    make_pseudo_masks(layout, [f"im{number:03d}" for number in range(56) if number != 17])
    with pytest.raises(MaskError, match="im017"):
        load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="method", segmenter_run=SEGMENTER)
    with pytest.raises(MaskError, match="no pseudo-masks of ham10000"):
        load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="method", segmenter_run="other")


def test_pseudo_masks_in_another_order_are_refused(layout: Layout):
    make_pseudo_masks(layout, [f"im{number:03d}" for number in reversed(range(56))])
    with pytest.raises(MaskError, match="row-aligned"):
        load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="method", segmenter_run=SEGMENTER)


def test_a_class_without_training_images_is_named_with_those_that_wait(tmp_path: Path):
    layout = make_root(tmp_path, drop="df")
    with pytest.raises(SplitError, match="df") as caught:
        load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks=None, segmenter_run=None)
    assert len(caught.value.ids) == 8
    assert caught.value.ids[0] == "im003"
    assert caught.value.ids[-1] == "im052"  # a test image: training lacks its class


def test_images_without_true_mask_are_named(layout: Layout):
    path = layout.pixels(HOME, "ham10000", SIZE) / "index.csv"
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        shift = int(row["mask_row"])
        row["mask_row"] = "-1" if shift == 5 else str(shift - (shift > 5))
    write_csv(path, INDEX_COLUMNS, rows)
    masks = path.with_name("masks.npy")
    np.save(masks, np.delete(np.load(masks), 5, axis=0))
    with pytest.raises(MaskError, match="im005"):
        load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="true", segmenter_run=None)


def test_a_missing_reference_histogram_is_told(layout: Layout):
    layout.reference(HOME).unlink()
    with pytest.raises(RunError, match="reference histogram"):
        train_run(make_run(), run_dir(layout, "a"), layout.root, "cpu")
    assert not (run_dir(layout, "a") / "settings.yaml").exists()


def test_samples_differ_between_epochs_and_places_but_not_between_calls(layout: Layout):
    run = make_run()
    data = load_labelled_images(layout.root, HOME, ["ham10000"], SIZE, masks="true", segmenter_run=None)
    task = ClassificationTask(
        build_classifier(run.spec.model, run.extraction, seed=1),
        data,
        loss=run.spec.loss.model_copy(update={"mixup_alpha": 0.0}),
        augmentation=run.spec.augmentation,
        seed=1,
        device="cpu",
    )
    rows = np.array([3, 3])
    first, again = task.batch(rows, 0, 0), task.batch(rows, 0, 0)
    assert torch.equal(first["images"], again["images"])
    assert not torch.equal(first["images"][0], first["images"][1])
    assert not torch.equal(first["images"], task.batch(rows, 1, 5)["images"])
    assert first["targets"].argmax(dim=1).tolist() == [3, 3]
    assert first["masks"].min() >= 0
    assert first["masks"].max() == 1
    assert set(task.epoch_rows(0)) <= set(data.train)
    assert not np.array_equal(task.epoch_rows(0), task.epoch_rows(1))


def test_balanced_sampling_draws_classes_alike_and_uniform_is_a_permutation():
    labels = np.repeat([0, 1], [900, 100])
    drawn = labels[epoch_order(labels, "inverse_frequency", 1, 0)]
    assert 400 < drawn.sum() < 600
    order = epoch_order(labels, "uniform", 1, 0)
    assert sorted(order) == list(range(1000))


def test_mixup_mixes_everything_alike_and_its_shares_follow_beta():
    rng = np.random.default_rng(0)
    images, targets = torch.rand(6, 3, 5, 5), torch.eye(6)
    draw = generator("mixup")
    share, partner = draw.beta(0.4, 0.4), draw.permutation(6)
    pixels, labels = mixed([images, targets], 0.4, generator("mixup"))
    torch.testing.assert_close(pixels, (share * images + (1 - share) * images[partner]).float())
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))
    ramp = torch.arange(2.0)
    shares = np.array([float(mixed([ramp], 0.4, rng)[0].diff()) for _ in range(4000)])
    shares = np.abs(shares[shares != 1.0])  # without the draws that mix a sample with itself
    # |2 l - 1| of l ~ Beta(a, a): the mean square is 4 Var = 1 / (2 a + 1)
    assert (shares**2).mean() == pytest.approx(1 / 1.8, abs=0.03)


def test_selection_is_balanced_accuracy_and_loss_only_breaks_ties():
    assert selection_value(0.5, 1.0) > selection_value(0.5, 2.0)
    step = 1 / (7 * 700)
    assert selection_value(0.5 + step, 1e9) > selection_value(0.5, 0.0)
    logits = torch.tensor([[2.0, 0.0, 0, 0, 0, 0, 0], [2.0, 0.0, 0, 0, 0, 0, 0], [0.0, 3.0, 0, 0, 0, 0, 0]])
    found = validation_metrics(logits, np.array([0, 1, 1]))
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["accuracy"] == pytest.approx(2 / 3)
