"""Training of segmentation runs on synthetic images: outputs, resume, prompts, what is learnt and what is not."""

# ruff: noqa: F811 - fixtures come from a helper module

from __future__ import annotations

import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from material import HOME
from pydantic import ValidationError
from segmentation_runs import SAM, SIZE, folder, make_run, restore_torch, root, tensors, write_dataset  # noqa: F401

from lesion_core.cli import runs as commands
from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_json, sha256_file
from lesion_core.paths import Layout
from lesion_core.settings.run import Run
from lesion_core.training import run as outputs
from lesion_core.training import segmentation, segmentation_task
from lesion_core.training.engine import CHECKPOINT
from lesion_core.training.segmentation import SegmentationTask, train_run


def test_a_unet_run_writes_its_outputs_and_learns(root):
    run = make_run(training={"epochs": 12, "learning_rate": 0.01}, train_on=["isic2018_task1", "ph2"])
    run_dir = folder(root, run)
    train_run(run, run_dir, root, "cpu")
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    assert names == {"settings.yaml", "weights.safetensors", "history.csv", "provenance.json", CHECKPOINT}
    assert Run.load(run_dir) == run
    history = read_csv(run_dir / "history.csv")
    assert list(history[0]) == ["epoch", "step", "lr", "train_bce_loss", "train_dice_loss", "train_loss", "val_dice"]
    assert len(history) == 12
    assert history[-1]["step"] == "48"
    assert max(float(row["val_dice"]) for row in history) > 0.8
    assert float(history[-1]["train_loss"]) < 0.7 * float(history[0]["train_loss"])
    about = read_json(run_dir / "provenance.json")
    assert about["extra"]["best_validation_dice"] == max(float(row["val_dice"]) for row in history)
    assert about["extra"]["trainable_parameters"] == about["extra"]["parameters"] > 0
    assert about["extra"]["resumed"] == 0
    assert 0 < about["extra"]["training_seconds"] <= about["seconds"]
    assert about["seed"] == run.seed
    assert about["threads"] == run.threads
    assert {"hash", "commit", "dirty"} <= about["code"].keys()
    assert {"python", "torch", "numpy", "segmentation-models-pytorch", "snakemake"} <= about["packages"].keys()
    assert about["hardware"]["cores"] == os.cpu_count()
    for dataset in run.spec.train_on:  # the pixels themselves, not their index alone
        pixels = Layout(root).pixels(HOME, dataset, SIZE) / "images.npy"
        assert about["inputs"][pixels.relative_to(root).as_posix()] == sha256_file(pixels)

    from lesion_core.models.trained import load_segmenter

    loaded = load_segmenter(run_dir)
    assert loaded.reference.shape == (3, 256)
    data = segmentation.Harmonized.open(Layout(root).pixels(HOME, "isic2018_task1", SIZE))
    task = SegmentationTask(loaded.model, data, run.spec, threshold=0.5, seed=3, device="cpu")
    assert task.validate()["dice"] > 0.7


def test_equal_runs_have_equal_bytes_and_a_stopped_one_too(root, monkeypatch):
    run = make_run()
    train_run(run, folder(root, run, "-a"), root, "cpu")
    whole = {name: (folder(root, run, "-a") / name).read_bytes() for name in ("weights.safetensors", "history.csv")}
    cut = folder(root, run, "-b")
    plain = SegmentationTask.batch

    def stop(self, rows, epoch, step):
        if step == 3:
            raise KeyboardInterrupt
        return plain(self, rows, epoch, step)

    monkeypatch.setattr(SegmentationTask, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, cut, root, "cpu")
    assert (cut / CHECKPOINT).exists()
    assert not (cut / "weights.safetensors").exists()
    monkeypatch.setattr(SegmentationTask, "batch", plain)

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(outputs, "write_provenance", full)
    with pytest.raises(OSError, match="disk full"):
        train_run(run, cut, root, "cpu")
    monkeypatch.undo()
    monkeypatch.setattr(SegmentationTask, "batch", lambda *_: pytest.fail("trained again"))
    train_run(run, cut, root, "cpu")
    assert {name: (cut / name).read_bytes() for name in whole} == whole


def test_a_stopped_job_loses_none_of_its_finished_runs(root, monkeypatch):
    """The job is stopped in its second run, Snakemake removes the outputs of both, and the job is called again."""
    runs = [make_run(training={"epochs": 2, "learning_rate": rate}) for rate in (0.002, 0.004)]
    folders = [folder(root, run) for run in runs]
    given = SimpleNamespace(rehearsal=None, compute=SimpleNamespace(device="cpu"))
    monkeypatch.setattr(commands, "runs_and_sections", lambda *_: (runs, folders, given))
    plain, asked, stopping = SegmentationTask.batch, [], True

    def batch(self, rows, epoch, step):
        number = [run.spec for run in runs].index(self.spec)
        asked.append((number, step))
        if stopping and asked[-1] == (1, 2):
            raise KeyboardInterrupt
        return plain(self, rows, epoch, step)

    monkeypatch.setattr(SegmentationTask, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        commands.train([], root)
    names = ("weights.safetensors", "history.csv", "settings.yaml")
    first = {name: (folders[0] / name).read_bytes() for name in names}
    for name in (*names, "provenance.json"):
        (folders[0] / name).unlink()
    stopping, before = False, len(asked)
    commands.train([], root)
    assert {number for number, _ in asked[before:]} == {1}, "the finished run is not trained again"
    assert {name: (folders[0] / name).read_bytes() for name in names} == first
    assert read_json(folders[0] / "provenance.json")["extra"]["resumed"] == 1
    assert (folders[1] / "weights.safetensors").is_file()
    assert not [path for each in folders for path in each.rglob(CHECKPOINT)], "the job is done"


@pytest.mark.parametrize("adapter", ["bottleneck", "lora"])  # paper B's: test_paper_methods
def test_a_sam_run_learns_adapters_and_keeps_only_them(root, adapter, monkeypatch):
    model = {**SAM, "adapter": adapter, "rank": 4, "prompt": "oracle_click_1"}
    run = make_run(model=model | ({"depth": 1} if adapter == "bottleneck" else {}), training={"epochs": 1})
    built = []
    plain = segmentation.build_segmenter
    monkeypatch.setattr(segmentation, "build_segmenter", lambda *a: built.append(plain(*a)) or built[0])
    train_run(run, folder(root, run), root, "cpu")
    kept = tensors(folder(root, run))
    learnt = dict(built[0].trainable_parameters())
    assert set(kept) == set(learnt) | {"harmonization.reference"}
    assert kept["harmonization.reference"].dtype == torch.float64
    fresh = plain(run.spec.model, Layout(root).weights("sam_vit_t"), run.seed)
    before, after = fresh.state_dict(), built[0].state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= set(learnt), "a frozen tensor moved"


@pytest.mark.parametrize("model", [SAM, {"kind": "otsu"}])
def test_nothing_to_train_writes_outputs_all_the_same(root, model):
    run = make_run(model=model)
    run_dir = folder(root, run)
    train_run(run, run_dir, root, "cpu")
    assert set(tensors(run_dir)) == {"harmonization.reference"}
    assert (run_dir / "history.csv").read_text() == "epoch,step,lr\n"
    assert read_json(run_dir / "provenance.json")["extra"]["trainable_parameters"] == 0


def test_no_epochs_keep_the_start(root):
    run = make_run(training={"epochs": 0})
    train_run(run, folder(root, run), root, "cpu")
    fresh = segmentation.build_segmenter(run.spec.model, None, run.seed).trainable_state()
    kept = tensors(folder(root, run))
    assert all(torch.equal(kept[name], value) for name, value in fresh.items())


def make_task(root, run: Run) -> SegmentationTask:
    data = segmentation.Harmonized.open(Layout(root).pixels(HOME, "isic2018_task1", SIZE))
    model = segmentation.build_segmenter(run.spec.model, Layout(root).weights("sam_vit_t"), run.seed)
    return SegmentationTask(model, data, run.spec, threshold=0.5, seed=run.seed, device="cpu")


@pytest.mark.parametrize("prompt", ["oracle_click_1", "oracle_click_3", "oracle_box"])
def test_prompts_follow_the_augmented_mask(root, prompt):
    run = make_run(model={**SAM, "adapter": "lora", "rank": 2, "prompt": prompt})
    task = make_task(root, run)
    rows = task.epoch_rows(0)[:4]
    batch = task.batch(rows, 0, 0)
    assert batch["images"].dtype == batch["masks"].dtype == torch.uint8
    for index in range(4):
        mask = batch["masks"][index, 0] >= 128
        if prompt == "oracle_box":
            ys, xs = torch.nonzero(mask, as_tuple=True)
            tight = torch.tensor([xs.min(), ys.min(), xs.max(), ys.max()]).float()
            assert (batch["boxes"][index] - tight).abs().max() <= 0.1 * max(
                xs.max() - xs.min(), ys.max() - ys.min()
            ) + 1
        else:
            assert all(mask[int(y), int(x)] for x, y in batch["points"][index])
            assert batch["point_labels"][index].tolist() == [1]
    assert ("click_draws" in batch) == (prompt == "oracle_click_3")
    same = task.batch(rows[::-1].copy(), 0, 7)
    assert torch.equal(same["images"].flip(0), batch["images"]), "a sample does not depend on its place or the step"
    assert not torch.equal(task.batch(rows, 1, 0)["images"], batch["images"])
    loss, parts = task.loss(batch)
    assert torch.isfinite(loss)
    assert set(parts) == {"dice_loss", "bce_loss"}


def test_a_session_of_clicks_ends_in_the_loss_of_its_last_prediction(root):
    """By hand: two rounds without gradient, each click on missed lesion, then the decoder with all three clicks."""
    run = make_run(model={**SAM, "adapter": "gl_med_sa", "rank": 2, "prompt": "oracle_click_3"})
    task = make_task(root, run)
    batch = task.batch(task.epoch_rows(0)[:2], 0, 0)
    model, asked = task.module, []
    plain = model.decode
    model.decode = lambda embeddings, prompts: asked.append(prompts) or plain(embeddings, prompts)
    task.loss(batch)[0].backward()
    assert [prompts.points.shape[1] for prompts in asked] == [1, 2, 3]
    assert torch.equal(asked[0].points, batch["points"])
    masks = batch["masks"][:, 0] >= 128
    for before, after in itertools.pairwise(asked):
        with torch.no_grad():
            logits = plain(model.encode(batch["images"].float()), before)
        predicted = torch.nn.functional.interpolate(logits, size=SIZE, mode="bilinear")[:, 0] >= 0
        for image, missed in enumerate(masks & ~predicted):
            (x, y), label = after.points[image, -1].long(), after.point_labels[image, -1]
            assert label == (1 if missed.any() else -1)
            assert label == -1 or missed[y, x]
    assert all(parameter.grad is not None for _, parameter in model.trainable_parameters())


def test_epochs_take_training_images_only(root):
    task = make_task(root, make_run())
    for epoch in range(3):
        assert sorted(task.epoch_rows(epoch)) == list(range(8))
    assert list(task.val_rows) == [8, 9, 10]
    assert list(task.epoch_rows(0)) != list(task.epoch_rows(1))


def test_validation_dice_by_hand(root):
    """A model that calls everything lesion has Dice 2a / (1 + a) for a lesion of area a."""

    class Everything(torch.nn.Module):
        def forward(self, images, prompts=None):
            return torch.full((len(images), 1, 16, 16), 3.0)

    task = make_task(root, make_run())
    areas = [float((task.data.soft_mask(row) >= 128).mean()) for row in task.val_rows]
    task.module = Everything()
    assert task.validate()["dice"] == pytest.approx(np.mean([2 * a / (1 + a) for a in areas]))
    task.threshold = 0.99
    assert task.validate()["dice"] == 0.0


def test_the_loss_of_coarse_logits_is_taken_at_twice_their_size(root, monkeypatch):
    class Coarse(torch.nn.Module):
        def forward(self, images, prompts=None):
            return torch.zeros(len(images), 1, images.shape[-1] // 4, images.shape[-1] // 4)

    task = make_task(root, make_run())
    task.module = Coarse()
    sizes = []
    plain = segmentation_task.segmentation_loss
    monkeypatch.setattr(
        segmentation_task, "segmentation_loss", lambda a, b, c: sizes.append(a.shape[-1]) or plain(a, b, c)
    )
    task.loss(task.batch(task.epoch_rows(0)[:2], 0, 0))
    assert sizes == [SIZE // 2]


def test_bad_runs_are_refused(root, tmp_path):
    with pytest.raises(ValidationError, match="prompt"):
        make_run(model={**SAM, "adapter": "lora", "prompt": "automatic"})  # its box comes from a trained model
    write_dataset(tmp_path, "ph2", SIZE, 2, ["train"] * 3 + ["test"])
    np.save(Layout(tmp_path).reference(HOME), np.full((3, 256), 1 / 256))
    run = make_run(train_on=["ph2"])
    with pytest.raises(RunError, match="No validation image of ph2"):
        train_run(run, folder(tmp_path, run), tmp_path, "cpu")
    Layout(tmp_path).reference(HOME).unlink()
    with pytest.raises(RunError, match="reference histogram cannot be read"):
        train_run(run, folder(tmp_path, run), tmp_path, "cpu")
