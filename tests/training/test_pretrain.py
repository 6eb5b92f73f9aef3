"""Pretraining: synthetic images, prompts, losses, resume, output. A few steps on a few images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_tasks import training
from segmentation_runs import SETTINGS as RUN
from segmentation_runs import restore_torch  # noqa: F401

from lesion_core.errors import SettingsError
from lesion_core.files import read_csv, read_json
from lesion_core.models.sam.network import build_sam
from lesion_core.pixels.datasets import Harmonized
from lesion_core.settings import Pretrain
from lesion_core.training import pretrain as module
from lesion_core.training.pretrain import PROMPT_KINDS, PretrainTask, build, pretrain, synthetic_dataset

SETTINGS = Pretrain(
    seed=5,
    images=4,
    validation_images=2,
    image_size=256,
    prompt_none=0.4,
    prompt_box=0.3,
    training=training(batch_size=2, learning_rate=1e-3, ema_decay=0.9),
    augmentation=RUN["spec"]["augmentation"],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Harmonized:
    return synthetic_dataset(SETTINGS, tmp_path_factory.mktemp("synthetic"))


def task_of(data: Harmonized, **changes) -> PretrainTask:
    return PretrainTask(build(0), data, SETTINGS.model_copy(update=changes), device="cpu")


def test_a_pretraining_writes_weights_and_what_is_known_of_them(tmp_path):
    weights, work = tmp_path / "w.safetensors", tmp_path / "work"
    pretrain(SETTINGS, weights, work, "cpu", 1)
    assert weights.stat().st_size < 10_000_000
    sam = build_sam("sam_vit_t", weights=weights)
    assert all(parameter.dtype == torch.float32 for parameter in sam.parameters())
    about = read_json(tmp_path / "w.safetensors.json")
    assert set(about["scores"]) == {"dice", *(f"dice_{kind}" for kind in PROMPT_KINDS)}
    assert about["parameters"] == sum(parameter.numel() for parameter in sam.parameters())
    assert about["settings"]["seed"] == 5
    assert str(tmp_path) not in str(about)
    assert {"train_iou_head_error", "val_dice_second_click"} <= set(read_csv(work / "history.csv")[0])


def test_images_are_drawn_once_and_again_for_another_seed(data, tmp_path, monkeypatch):
    assert data.images.shape == (6, 256, 256, 3)
    assert set(np.unique(data.masks)) == {0, 255}
    assert [list(data.rows(split)) for split in ("train", "val")] == [[0, 1, 2, 3], [4, 5]]
    monkeypatch.setattr(module, "CHUNK_IMAGES", 4)
    again = synthetic_dataset(SETTINGS, tmp_path)
    assert np.array_equal(again.images, data.images), "chunks and worker processes change nothing"
    monkeypatch.setattr(module, "_draw_all", lambda *_: pytest.fail("drawn again"))
    synthetic_dataset(SETTINGS, tmp_path)
    monkeypatch.undo()
    other = synthetic_dataset(SETTINGS.model_copy(update={"seed": 6}), tmp_path)
    assert not np.array_equal(other.images, data.images)


def test_batches_have_one_kind_of_prompt_which_depends_on_the_step(data):
    task = task_of(data)
    kinds = [task.kind(step) for step in range(400)]
    shares = [kinds.count(kind) / 400 for kind in PROMPT_KINDS]
    assert shares == pytest.approx([0.4, 0.3, 0.15, 0.15], abs=0.07)
    rows = task.epoch_rows(0)[:2]
    given = {"none": set(), "oracle_box": {"boxes"}, "oracle_click_1": {"points", "point_labels"}}
    given["second_click"] = given["oracle_click_1"] | {"second_click"}
    for kind in PROMPT_KINDS:
        batch = task.batch(rows, 0, kinds.index(kind))
        assert set(batch) == {"images", "masks"} | given[kind]
    for image in range(2):
        x, y = batch["points"][image, 0].int().tolist()
        assert batch["masks"][image, 0, y, x] >= 128, "a click lies on the augmented lesion, in x, y order"


def test_a_second_click_fixes_the_prediction(data, monkeypatch):
    task = task_of(data)
    batch = task.batch(task.epoch_rows(0)[:2], 0, next(step for step in range(99) if task.kind(step) == "second_click"))
    guess = torch.full((2, 1, 64, 64), -5.0)
    guess[1] = 5.0
    asked = []
    monkeypatch.setattr(task.module, "decode", lambda *_: guess)
    plain = task.module.decode_all
    monkeypatch.setattr(task.module, "decode_all", lambda *given: asked.append(given[1]) or plain(*given))
    task.predict(batch)
    # The first image's lesion was missed: positive. In the second, skin was taken for lesion: negative.
    assert asked[0].point_labels.tolist() == [[1, 1], [1, 0]]
    for image, inside in enumerate((True, False)):
        x, y = asked[0].points[image, 1].int().tolist()
        assert bool(batch["masks"][image, 0, y, x] >= 128) == inside


@pytest.mark.parametrize(("kind", "taught"), [("none", 0), ("oracle_click_1", 1)])
def test_one_click_teaches_the_best_alternative_and_no_prompt_does_not(data, kind, taught):
    task = task_of(data)
    batch = task.batch(task.epoch_rows(0)[:1], 0, next(step for step in range(99) if task.kind(step) == kind))
    loss, parts = task.loss(batch)
    loss.backward()
    assert parts["iou_head_error"] >= 0
    decoder = task.module.sam.mask_decoder
    felt = [bool(head.layers[0].weight.grad.any()) for head in decoder.output_hypernetworks_mlps]
    assert felt[0]
    assert sum(felt[1:]) == taught
    assert decoder.iou_prediction_head.layers[0].weight.grad.any()


def test_an_impossible_size_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="256 pixels"):
        pretrain(SETTINGS.model_copy(update={"image_size": 128}), tmp_path / "w", tmp_path, "cpu", 1)
