"""Pretraining: made images, prompts, losses, resume, output. A few steps on a few images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import read_csv, read_json
from lesion_core.models.sam.network import build_sam
from lesion_core.seeding import generator
from lesion_core.settings import Pretrain
from lesion_core.training import pretrain as job
from lesion_core.training import pretrain_data as data

SETTINGS = Pretrain(
    seed=5,
    images=4,
    image_size=256,
    steps=4,
    batch_size=2,
    learning_rate=1e-3,
    weight_decay=0.05,
    checkpoint_steps=2,
    prompt_none=0.4,
    prompt_box=0.3,
)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    threads = torch.get_num_threads()
    for module in (job, data):
        monkeypatch.setattr(module, "HELD_OUT", 2)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


def blobs(count: int = 4, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright discs on black, and their masks."""
    y, x = np.mgrid[:size, :size]
    centres = [(20 + 5 * i, 40 - 4 * i) for i in range(count)]
    masks = np.stack([(x - cx) ** 2 + (y - cy) ** 2 < 144 for cx, cy in centres]).astype(np.float32)
    mask = torch.from_numpy(masks)[:, None]
    return mask.expand(-1, 3, -1, -1) * 200.0, mask


def test_a_stopped_pretraining_ends_with_the_same_bytes(tmp_path, monkeypatch):
    job.pretrain(SETTINGS, tmp_path / "a" / "w.safetensors", tmp_path / "a" / "work", "cpu", 1)
    plain = job.training_loss

    def stop(model, images, masks, settings, step):
        if step == 3:
            raise KeyboardInterrupt
        return plain(model, images, masks, settings, step)

    monkeypatch.setattr(job, "training_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        job.pretrain(SETTINGS, tmp_path / "b" / "w.safetensors", tmp_path / "b" / "work", "cpu", 1)
    steps = []

    def watch(model, images, masks, settings, step):
        steps.append(step)
        return plain(model, images, masks, settings, step)

    monkeypatch.setattr(job, "training_loss", watch)
    assert not (tmp_path / "b" / "w.safetensors").exists()
    job.pretrain(SETTINGS, tmp_path / "b" / "w.safetensors", tmp_path / "b" / "work", "cpu", 1)
    assert steps == [2, 3]
    for name in ("w.safetensors", "w.safetensors.json", "work/history.csv", "work/latest.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name

    weights = tmp_path / "a" / "w.safetensors"
    assert weights.stat().st_size < 10_000_000
    sam = build_sam("sam_vit_t", weights=weights)
    assert all(parameter.dtype == torch.float32 for parameter in sam.parameters())
    about = read_json(tmp_path / "a" / "w.safetensors.json")
    assert set(about["scores"]) == {"none", "box", "click_1", "click_2"}
    assert about["parameters"] == sum(parameter.numel() for parameter in sam.parameters())
    assert about["settings"]["seed"] == 5
    assert str(tmp_path) not in str(about)
    rows = read_csv(tmp_path / "a" / "work" / "history.csv")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert all(sum(bool(row[f"dice_{kind}"]) for kind in job.PROMPT_KINDS) == 1 for row in rows)


def test_images_are_drawn_once_and_again_for_another_seed(tmp_path, monkeypatch):
    made = data.made_images(SETTINGS, tmp_path)
    assert made.images.shape == (6, 256, 256, 3)
    assert made.masks.shape == (6, 256, 256)
    assert set(np.unique(made.masks)) == {0, 1}
    first = np.array(made.images)
    stamp = (tmp_path / "images.npy").stat().st_mtime_ns
    data.made_images(SETTINGS, tmp_path)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == stamp
    monkeypatch.setattr(data, "CHUNK_IMAGES", 4)
    again = data.made_images(SETTINGS, tmp_path / "chunks")
    assert np.array_equal(again.images, first), "chunks and worker processes change nothing"
    other = data.made_images(SETTINGS.model_copy(update={"seed": 6}), tmp_path)
    assert not np.array_equal(other.images, first)


def test_batches_depend_on_seed_and_step_alone_and_leave_the_held_out_alone(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((6, 64, 64), np.uint8)
    masks[:, 20:44, 20:44] = 1
    images[4:], masks[4:] = 0, 0
    made = data.MadeImages(images, masks, "x")
    one, two = data.training_batch(made, SETTINGS, 1), data.training_batch(made, SETTINGS, 1)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], data.training_batch(made, SETTINGS, 2)[0])
    for step in range(6):
        batch, truth = data.training_batch(made, SETTINGS, step)
        assert batch.shape == (2, 3, 64, 64)
        assert truth.shape == (2, 1, 64, 64)
        assert truth.sum() > 0, "a held-out image was used"
        assert batch.min() >= 0
        assert batch.max() <= 255


def test_image_and_mask_move_together():
    images, masks = blobs()
    moved, moved_masks = data.move(images, masks, generator(1))
    assert not torch.equal(moved_masks, masks)
    agree = ((moved[:, :1] >= 100) == (moved_masks > 0.5)).float().mean()
    assert agree > 0.999
    assert set(moved_masks.unique().tolist()) == {0.0, 1.0}


def test_a_lesion_never_leaves_the_picture():
    images, masks = torch.zeros(8, 3, 64, 64), torch.zeros(8, 1, 64, 64)
    masks[:, :, :9, :9] = 1.0
    for seed in range(5):
        _, moved = data.move(images, masks, generator(seed))
        assert moved.sum(dim=(1, 2, 3)).min() >= data.MIN_LESION_PIXELS


def test_colours_change_and_shapes_do_not():
    images, _ = blobs()
    changed = data.recolour(images + 25.0, generator(3))
    assert changed.shape == images.shape
    assert (changed - images).abs().mean() > 3.0
    inside, outside = changed[images > 0].mean(), changed[images == 0].mean()
    assert inside > outside


def test_prompts_point_at_the_lesion_in_x_y_order():
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 4, 20:28] = True
    masks[1, 10:14, 3] = True
    assert job.simulate("none", masks, generator(0), 0.1) is None
    boxes = job.simulate("box", masks, generator(0), 0.0).boxes
    assert boxes.tolist() == [[20, 4, 27, 4], [3, 10, 3, 13]]
    click = job.simulate("click_1", masks, generator(0), 0.1)
    for (x, y), mask in zip(click.points[:, 0].tolist(), masks, strict=True):
        assert mask[int(y), int(x)]
    assert click.point_labels.tolist() == [[1], [1]]


def test_a_second_click_mends_the_prediction():
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:12, 4:12] = True
    first = job.simulate("click_1", masks, generator(0), 0.0)
    logits = torch.full((2, 1, 16, 16), -5.0)
    logits[1] = 5.0
    both = job.with_correction(first, logits, masks, generator(1))
    assert both.points.shape == (2, 2, 2)
    # The first image's lesion was missed: positive. In the second, skin was taken for lesion: negative.
    assert both.point_labels.tolist() == [[1, 1], [1, 0]]
    for index, inside in enumerate((True, False)):
        x, y = both.points[index, 1].int().tolist()
        assert masks[index, y, x] == inside


def test_one_click_teaches_the_alternatives_and_no_prompt_does_not():
    model = job.build(0)
    images, masks = torch.full((1, 3, 256, 256), 90.0), torch.zeros(1, 1, 256, 256)
    images[..., 60:160, 80:200] = 30.0
    masks[..., 60:160, 80:200] = 1.0
    always = {"click": {"prompt_none": 0.0, "prompt_box": 0.0}, "none": {"prompt_none": 1.0, "prompt_box": 0.0}}
    for kind, share in always.items():
        settings = SETTINGS.model_copy(update=share)
        step = next(step for step in range(99) if kind == "none" or _second_draw(settings, step) >= job.SECOND_CLICK)
        model.zero_grad()
        loss, seen, dice = job.training_loss(model, images, masks, settings, step)
        loss.backward()
        assert seen == ("none" if kind == "none" else "click_1")
        assert 0 <= dice <= 1
        heads = model.sam.mask_decoder.output_hypernetworks_mlps
        taught = [head.layers[0].weight.grad is not None and bool(head.layers[0].weight.grad.any()) for head in heads]
        assert taught[0]
        assert sum(taught[1:]) == (0 if kind == "none" else 1), "only the best alternative"
        assert model.sam.mask_decoder.iou_prediction_head.layers[0].weight.grad.any()


def _second_draw(settings: Pretrain, step: int) -> float:
    rng = generator(settings.seed, "pretrain", "prompt", step)
    rng.random()
    return rng.random()


def test_an_impossible_size_and_a_loss_that_is_not_finite_are_refused(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="256 pixels"):
        job.pretrain(SETTINGS.model_copy(update={"image_size": 128}), tmp_path / "w", tmp_path, "cpu", 1)
    monkeypatch.setattr(job, "training_loss", lambda *_: (torch.tensor(float("nan"), requires_grad=True), "none", 0.0))
    with pytest.raises(RunError, match="not finite at step 0"):
        job.pretrain(SETTINGS, tmp_path / "w.safetensors", tmp_path / "work", "cpu", 1)
    assert not (tmp_path / "w.safetensors").exists()
