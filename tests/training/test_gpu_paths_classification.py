"""Classifiers and joint training on a GPU that is not there (see pretended_gpu), and under half precision."""

# ruff: noqa: F811 - fixtures come from other files
from __future__ import annotations

import numpy as np
import pytest
import torch
from classification_runs import TinySegmenter, dual_run, joint_run, layout, make_run, with_metadata  # noqa: F401
from material import HOME
from pretended_gpu import GPU, pretended, step_and_validate  # noqa: F401

from lesion_core.inference.classify import class_probabilities
from lesion_core.models.registry import build_classifier
from lesion_core.training.classification import ClassificationTask, open_images
from lesion_core.training.classification_data import load_labelled_images, load_masked_images
from lesion_core.training.joint import JointModel, JointTask

RUNS = {
    "no fusion": make_run(),
    "cross-attention, crop": make_run(masks="true", fusion="cross_attention", input="crop"),
    "gated, blend": make_run(masks="true", fusion="gated", input="blend"),
    "concatenation, masked": make_run(masks="true", fusion="concat", input="masked"),
    "dual network with metadata": dual_run(),
}


def task_of(name, layout, device):
    run = RUNS[name]
    if run.spec.model.metadata != "none":
        with_metadata(layout)
    images = open_images(run, layout.root)
    vocabulary = images.vocabulary() if run.spec.model.metadata != "none" else None
    model = build_classifier(run.spec.model, run.extraction, seed=1, vocabulary=vocabulary)
    spec = run.spec
    return ClassificationTask(model, images, loss=spec.loss, augmentation=spec.augmentation, seed=1, device=device)


def joint_of(layout, device):
    run = joint_run()
    images = load_labelled_images(layout.root, HOME, ["ham10000"], 32, masks=None, segmenter_run=None)
    classifier = build_classifier(RUNS["cross-attention, crop"].spec.model, run.extraction, seed=1)
    model = JointModel(TinySegmenter(), classifier, 32)
    masked = load_masked_images(layout.root, HOME, ["ham10000"], 32)
    return JointTask(model, images, run.spec, masked=masked, threshold=0.5, seed=1, device=device)


@pytest.mark.parametrize("name", RUNS)
def test_a_step_a_validation_and_a_prediction_stay_on_one_device(layout, name, pretended):
    task = task_of(name, layout, GPU)
    step_and_validate(task, RUNS[name].spec.training)
    images, masks = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32), np.uint8)
    metadata = None if task.metadata is None else np.zeros((2, 3), np.int64)
    found = class_probabilities(task.module, images, masks, metadata=metadata)
    assert found.shape == (2, 7)


def test_joint_training_stays_on_one_device(layout, pretended):
    step_and_validate(joint_of(layout, GPU), joint_run().spec.training)


@pytest.mark.parametrize("name", [*RUNS, "joint"])
def test_half_precision_keeps_the_direction_of_the_gradient(layout, name):
    task = joint_of(layout, "cpu") if name == "joint" else task_of(name, layout, "cpu")
    task.module.train()
    batch = task.batch(task.epoch_rows(0)[:6], 0, 0)
    found = []
    for half in (False, True):
        for parameter in task.trainable().values():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = task.loss(batch)
        assert loss.dtype == torch.float32
        loss.backward()
        found.append({key: item.grad for key, item in task.trainable().items() if item.grad is not None})
    assert found[0].keys() == found[1].keys()
    exact, half = (torch.cat([part[key].flatten() for key in found[0]]) for part in found)
    assert torch.isfinite(half).all()
    assert float(torch.cosine_similarity(exact, half, dim=0)) > 0.9
