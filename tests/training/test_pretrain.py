"""Pretraining: scenes, prompts, losses, output. A few steps on a few scenes."""

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
from lesion_core.settings import Pretrain
from lesion_core.training import scenes as module
from lesion_core.training.pretrain import build, pretrain
from lesion_core.training.promptable import CORRECTIONS, KINDS, PromptableTask, _sample
from lesion_core.training.scenes import Scenes, stored_scenes

SETTINGS = Pretrain(
    seed=5,
    images=4,
    validation_images=2,
    image_size=256,
    training=training(batch_size=2, learning_rate=1e-3, ema_decay=0.9),
    augmentation=RUN["spec"]["augmentation"],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Scenes:
    return stored_scenes(SETTINGS, tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def task(data) -> PromptableTask:
    return PromptableTask(build(0), data, SETTINGS, device="cpu")


def test_a_pretraining_writes_weights_and_what_is_known_of_them(tmp_path):
    weights, work = tmp_path / "w.safetensors", tmp_path / "work"
    pretrain(SETTINGS, weights, work, "cpu", 1)
    assert weights.stat().st_size < 10_000_000
    sam = build_sam("sam_vit_t", weights=weights)
    assert all(parameter.dtype == torch.float32 for parameter in sam.parameters())
    about = read_json(tmp_path / "w.safetensors.json")
    assert set(about["scores"]) == {"dice", *(f"dice_{kind}" for kind in KINDS)}
    assert about["parameters"] == sum(parameter.numel() for parameter in sam.parameters())
    assert about["settings"]["seed"] == 5
    assert str(tmp_path) not in str(about)
    assert {"train_iou_head_error", "train_loss_click", "val_dice_box"} <= set(read_csv(work / "history.csv")[0])


def test_scenes_are_drawn_once_and_again_for_another_seed(data, tmp_path, monkeypatch):
    assert (data.images.shape, data.objects.shape) == ((6, 256, 256, 3), (6, 256, 256))
    monkeypatch.setattr(module, "CHUNK", 4)
    again = stored_scenes(SETTINGS, tmp_path)
    assert np.array_equal(again.images, data.images), "chunks and worker processes change nothing"
    monkeypatch.setattr(module, "_draw_all", lambda *_: pytest.fail("drawn again"))
    stored_scenes(SETTINGS, tmp_path)
    monkeypatch.undo()
    other = stored_scenes(SETTINGS.model_copy(update={"seed": 6}), tmp_path)
    assert not np.array_equal(other.images, data.images)


def test_bits_become_one_mask_per_object(data):
    scene = Scenes(data.images[:1], np.array([[[0, 1], [2, 3]]], np.uint8), 1)
    assert (scene.masks(0) // 255).tolist() == [[[0, 0, 0, 0], [1, 0, 0, 0]], [[0, 1, 0, 0], [1, 1, 0, 0]]]


def nested_scene() -> tuple[np.ndarray, np.ndarray]:
    """A large first object, a second nested in it, a third apart, no fourth."""
    masks = np.zeros((256, 256, 4), np.uint8)
    masks[20:150, 20:150, 0] = 255
    masks[40:80, 40:80, 1] = 255
    masks[180:220, 180:220, 2] = 255
    return np.zeros((256, 256, 3), np.uint8), masks


def test_a_click_means_the_outermost_object_and_a_box_its_own():
    image, masks = nested_scene()
    asked_for = set()
    for seed in range(60):
        sample = _sample(image, masks, np.random.default_rng(seed), 0.0)
        box, click = (int(np.flatnonzero([np.array_equal(one, masks[..., k]) for k in range(3)])[0])
                      for one in sample["asked"])  # fmt: skip
        asked_for |= {("box", box), ("click", click)}
        x, y = sample["points"][0].astype(int)
        assert masks[y, x, click] == 255, "a click lies on the object asked for, in x, y order"
        assert np.array_equal(sample["outermost"][1], masks[..., 0 if click == 1 else click])
        assert np.array_equal(sample["outermost"][0], masks[..., box])
        expected = {0: [20, 20, 149, 149], 1: [40, 40, 79, 79], 2: [180, 180, 219, 219]}
        assert sample["boxes"].tolist() == expected[box]
    assert asked_for == {(kind, number) for kind in ("box", "click") for number in range(3)}


def test_a_sample_depends_on_seed_epoch_and_row_alone(task):
    both, alone = task.batch(np.array([0, 3]), 1, 0), task.batch(np.array([3]), 1, 7)
    assert all(torch.equal(both[name][1:], alone[name]) for name in both)
    later = task.batch(np.array([3]), 2, 7)
    assert not torch.equal(later["images"], alone["images"])


def test_corrections_lie_where_the_prediction_is_wrong(task, monkeypatch):
    batch = task.batch(np.array([0, 1]), 0, 0)
    guess = torch.full((2, 4, 64, 64), -5.0)
    guess[1] = 5.0
    given = []
    monkeypatch.setattr(
        task.module, "decode_all", lambda _, prompts=None: given.append(prompts) or (guess, torch.zeros(2, 4))
    )
    kinds = [kind for kind, *_ in task._decoded(batch)]
    assert kinds == ["none", "box", *["box_corrected"] * CORRECTIONS, "click", *["click_corrected"] * CORRECTIONS]
    assert given[0] is None
    last = given[-1]
    # The first scene's object was missed: positive. In the second, skin was taken for it: negative.
    assert last.point_labels.tolist() == [[1, 1, 1], [1, 0, 0]]
    for image, inside in enumerate((True, False)):
        for x, y in last.points[image, 1:].int().tolist():
            assert bool(batch["asked"][image, 1, y, x] >= 128) == inside
    assert given[3].boxes is not None
    assert given[3].point_labels.tolist() == [[1, 1], [0, 0]]


def test_one_click_alone_teaches_the_alternatives(task):
    loss, parts = task.loss(task.batch(np.array([0]), 0, 0))
    loss.backward()
    assert set(parts) == {"loss_none", "loss_box", "loss_click", "iou_head_error"}
    decoder = task.module.sam.mask_decoder
    felt = [bool(head.layers[0].weight.grad.any()) for head in decoder.output_hypernetworks_mlps]
    assert felt[0]
    assert sum(felt[1:]) == 1, "the best of three"
    assert decoder.iou_prediction_head.layers[0].weight.grad.any()
    assert task.module.sam.prompt_encoder.point_embeddings[2].weight.grad.any(), "a box's corner"


def test_an_impossible_size_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="256 pixels"):
        pretrain(SETTINGS.model_copy(update={"image_size": 128}), tmp_path / "w", tmp_path, "cpu", 1)
