"""SegMAE: shapes, sizes, what is masked, the patch-wise loss by hand, the two stages, and timm's ViT inside."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from material import HOME
from safetensors.torch import load_file, save_file
from segmentation_runs import SETTINGS, SIZE, make_run, write_dataset
from torchrun import torchrun

from lesion_core.errors import RunError, WeightsError
from lesion_core.files import read_csv
from lesion_core.models.registry import build_segmenter
from lesion_core.models.segmae import PATCH, build_segmae, patches_of
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import Reconstruction, SegmentationLoss, SegmentationModel
from lesion_core.settings.pretrained import TIMM_NAMES
from lesion_core.training import engine
from lesion_core.training.losses import patch_loss, segmentation_loss, weighted_patches
from lesion_core.training.segmae import ReconstructionTask, SegMAETask, kept_patches, reconstruction_loss
from lesion_core.training.segmentation import train_run

MODEL = {"kind": "segmae"}
LOSS = {"dice": 0.4, "bce": 1.2, "soft_target": False, "patch": 0.8}
MASKING = {"epochs": 2, "masking": "random", "mask_ratio": 0.5, "temperature": 0.1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "smoke"
    write_dataset(root, "isic2018_task1", SIZE, 0, ["train"] * 8 + ["val"] * 3 + ["test"])
    np.save(Layout(root).reference(HOME), np.full((3, 256), 1 / 256))
    return root


@pytest.fixture
def tiny():
    seed_torch(0, "segmae")
    return build_segmae(SegmentationModel(kind="segmae", image_size=SIZE))


@pytest.fixture
def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 255


def run_of(**change):
    training = {"epochs": 2, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.05} | change.pop("training", {})
    spec = {"loss": LOSS, "reconstruction": MASKING} | change
    return make_run(model=MODEL | spec.pop("model", {}), training=training, **spec)


def task_of(kind, root, run):
    data = Harmonized.open(Layout(root).pixels(HOME, "isic2018_task1", SIZE))
    model = build_segmenter(run.spec.model, None, run.seed)
    return kind(model, data, run.spec, threshold=0.5, seed=run.seed, device="cpu")


def test_patches_are_cut_row_by_row():
    image = torch.arange(2 * 3 * 32 * 48).float().view(2, 3, 32, 48)
    patches = patches_of(image)
    assert patches.shape == (2, 6, 768)
    assert torch.equal(patches[1, 4].view(3, 16, 16), image[1, :, 16:32, 16:32])


def test_only_masked_patches_are_reconstructed_and_they_are_not_seen(tiny, images):
    keep = torch.tensor([[0, 5, 9], [1, 2, 15]])
    predicted, true = tiny.reconstruct(images, keep)
    assert predicted.shape == true.shape == (2, 13, 768)
    whole = patches_of((images - tiny.pixel_mean) / tiny.pixel_std)
    masked = [[n for n in range(16) if n not in row] for row in keep.tolist()]
    assert torch.equal(true, torch.stack([whole[b, masked[b]] for b in range(2)]))
    # whatever stands in a masked patch, the prediction is the same; in a seen one it is not
    other = images.clone()
    y, x = divmod(masked[0][3], 4)
    other[0, :, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] = 0
    assert torch.equal(tiny.reconstruct(other, keep)[0], predicted)
    other[0, :, :PATCH, :PATCH] = 0
    assert not torch.equal(tiny.reconstruct(other, keep)[0], predicted)


def test_the_order_of_kept_patches_does_not_matter(tiny, images):
    one, other = torch.tensor([[0, 5, 9]] * 2), torch.tensor([[9, 0, 5]] * 2)
    torch.testing.assert_close(
        tiny.reconstruct(images, one)[0], tiny.reconstruct(images, other)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("patches", "ratio", "seen"), [(196, 0.75, 49), (16, 0.5, 8), (4, 0.99, 1), (4, 0.01, 3)])
def test_as_many_patches_are_seen_as_the_ratio_says(patches, ratio, seen):
    for kept in (kept_patches(patches, ratio, generator(1)), kept_patches(patches, ratio, None)):
        assert len(kept) == len(set(kept.tolist())) == seen
        assert sorted(kept) == kept.tolist()
        assert set(kept.tolist()) <= set(range(patches))


def test_designated_patches_are_the_same_of_every_image_and_epoch(root):
    task = task_of(SegMAETask, root, run_of(reconstruction=MASKING | {"masking": "designated"}))
    kept = torch.cat([task.keep(np.arange(3), when) for when in ("epoch 0", "epoch 1", "validation")])
    assert (kept == kept[0]).all()
    assert kept_patches(196, 0.75, None).tolist() == list(range(0, 196, 4)), "one of four in each row of 14"


def test_patch_wise_loss_by_hand():
    """Equations 6 to 8 with two patches of errors 1 and 0: w = (e / (e + 1), 1 / (e + 1)) at temperature 1."""
    errors = torch.tensor([[1.0, 0.0]])
    e = np.e
    assert float(weighted_patches(errors, 1.0)) == pytest.approx(0.5 * e / (e + 1))
    assert float(weighted_patches(errors, 0.01)) == pytest.approx(0.5), "the worst patch alone"
    assert float(weighted_patches(errors, 1e6)) == pytest.approx(0.25), "all alike: mean of errors over N"
    assert float(weighted_patches(errors, 0.0)) == pytest.approx(0.5), "unweighted: the mean"
    logits = torch.zeros(1, 1, 4, 4)  # probability 1/2: squared error 1/4 everywhere
    target = torch.zeros(1, 1, 4, 4)
    assert float(patch_loss(logits, target, patch_size=2, temperature=0.3)) == pytest.approx(0.25 / 4)


def test_segmentation_loss_is_the_weighted_sum():
    seed_torch(1, "loss")
    logits, target = torch.randn(2, 1, 32, 32), (torch.rand(2, 1, 32, 32) > 0.5).float()
    settings = SegmentationLoss(**LOSS)
    loss, parts = segmentation_loss(logits, target, settings)
    assert set(parts) == {"dice_loss", "bce_loss", "patch_loss"}
    by_hand = patch_loss(logits, target, patch_size=16, temperature=0.1).mean()
    assert parts["patch_loss"] == pytest.approx(float(by_hand))
    expected = 0.4 * parts["dice_loss"] + 1.2 * parts["bce_loss"] + 0.8 * parts["patch_loss"]
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_steps_take_turns_on_the_same_images(root):
    task = task_of(SegMAETask, root, run_of())
    for epoch in range(2):
        rows = task.epoch_rows(epoch)
        assert len(rows) == 16
        assert sorted(rows) == sorted([*range(8), *range(8)])
        assert np.array_equal(rows[:4], rows[4:8])
        even, odd = task.batch(rows[:4], epoch, 4 * epoch), task.batch(rows[4:8], epoch, 4 * epoch + 1)
        assert "keep" not in even
        assert odd["keep"].shape == (4, 8)
        assert torch.equal(even["images"], odd["images"])
    segmenting, parts = task.loss(even)
    assert set(parts) == {"dice_loss", "bce_loss", "patch_loss"}
    segmenting.backward()
    learnt = dict(task.module.trainable_parameters())
    assert all((p.grad is None) == name.startswith("network.mae.") for name, p in learnt.items())
    task.module.zero_grad(set_to_none=True)
    reconstructing, parts = task.loss(odd)
    assert set(parts) == {"reconstruction_loss"}
    reconstructing.backward()
    assert all((p.grad is None) == name.startswith("network.upsampler.") for name, p in learnt.items())


def test_stage_1_leaves_the_upsampler_alone_and_looks_at_no_mask(root, monkeypatch):
    task = task_of(ReconstructionTask, root, run_of())
    monkeypatch.setattr(type(task.data), "masks", None, raising=False)
    names = set(task.trainable())
    assert names == {n for n, _ in task.module.trainable_parameters() if not n.startswith("network.upsampler.")}
    batch = task.batch(task.epoch_rows(0)[:4], 0, 0)
    assert set(batch) == {"images", "keep"}
    assert task.validate() == task.validate()
    settings = Reconstruction(epochs=0, masking="random", mask_ratio=0.5, temperature=0.0)
    predicted, true = task.module.reconstruct(batch["images"].float(), batch["keep"])
    plain = reconstruction_loss(task.module, batch["images"], batch["keep"], settings)
    torch.testing.assert_close(plain, torch.nn.functional.mse_loss(predicted, true))


def test_a_run_has_two_stages_and_a_stopped_one_comes_to_the_same_bytes(root, monkeypatch):
    run = run_of()
    whole, cut = (Layout(root).run("segmentation", run.run_id + suffix) for suffix in ("-a", "-b"))
    train_run(run, whole, root, "cpu")
    first = read_csv(whole / "stage_1" / "history.csv")
    assert [row["epoch"] for row in first] == ["1", "2"]
    assert float(first[1]["val_reconstruction_loss"]) < float(first[0]["val_reconstruction_loss"])
    second = read_csv(whole / "history.csv")
    assert set(second[0]) >= {"train_dice_loss", "train_patch_loss", "train_reconstruction_loss", "val_dice"}
    assert second[-1]["step"] == "8"
    plain = SegMAETask.batch

    def stop(self, rows, epoch, step):
        if step == 5:
            raise KeyboardInterrupt
        return plain(self, rows, epoch, step)

    monkeypatch.setattr(SegMAETask, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, cut, root, "cpu")
    assert (cut / engine.CHECKPOINT).exists()
    monkeypatch.undo()
    monkeypatch.setattr(ReconstructionTask, "batch", lambda *_: pytest.fail("stage 1 is done"))
    train_run(run, cut, root, "cpu")
    for name in ("weights.safetensors", "history.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_stage_1_changes_where_stage_2_starts_and_step_1_has_no_second_branch(root):
    states = {}
    for name, change in {
        "whole": {},
        "no stage 1": {"reconstruction": {**MASKING, "epochs": 0}},
        "step 1": {
            "model": {"stem": False, "mae_decoder": False},
            "reconstruction": None,
            "loss": {**LOSS, "patch": 0.0},
        },
    }.items():
        run = run_of(training={"epochs": 1}, **change)
        folder = Layout(root).run("segmentation", run.run_id)
        train_run(run, folder, root, "cpu")
        states[name] = load_file(folder / "weights.safetensors")
    key = "network.encoder.embed.weight"
    assert not torch.equal(states["whole"][key], states["no stage 1"][key])
    assert not any(name.startswith(("network.mae.", "network.encoder.stem.")) for name in states["step 1"])


def test_impossible_settings_are_refused(root):
    for change in (
        {"reconstruction": None},
        {"model": {"mae_decoder": False}},
        {"loss": {**LOSS, "patch": 0.0, "patch_size": 8}},
        {"loss": {**LOSS, "patch_size": 24}},
    ):
        with pytest.raises(ValueError, match=r"reconstruction must|does not use patch_size|multiple of loss"):
            run_of(**change)
    with pytest.raises(ValueError, match="reconstruction must be set for kind segmae"):
        make_run(model={"kind": "unet"}, reconstruction=MASKING)
    with pytest.raises(ValueError, match="does not use stem"):
        SegmentationModel(kind="unet", image_size=64, stem=False)
    with pytest.raises(RunError, match="do not fill a batch of 9"):
        task_of(SegMAETask, root, run_of(training={"batch_size": 9})).epoch_rows(0)
    assert SETTINGS["spec"]["model"]["kind"] == "unet"


def test_timms_vit_b_16_is_taken_over_strictly(tmp_path):
    path = tmp_path / "vit.safetensors"
    vit = timm.create_model(TIMM_NAMES["vit_base", 16], pretrained=False).eval()
    state = {name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in vit.state_dict().items()}
    vit.load_state_dict(state)
    save_file(state, path)
    model = {"kind": "segmae", "encoder": "vit_b_16", "encoder_weights": "imagenet", "image_size": 224}
    pure = build_segmae(SegmentationModel(**model, stem=False, mae_decoder=False), path)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        tokens, maps = pure.network["encoder"](images)
        # timm's own layers without the class token, which ours does not have
        x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        for block in vit.blocks:
            x = block(x)
        x = vit.norm(x)
    assert not maps
    assert (tokens - x).abs().max() < 1e-4 * x.abs().max()
    hybrid = build_segmae(SegmentationModel(**model), path)
    assert torch.equal(hybrid.network["encoder"].layers[7].mlp[2].weight, state["blocks.7.mlp.fc2.weight"])
    state["blocks.3.attn.qkv.weigth"] = state.pop("blocks.3.attn.qkv.weight")
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"blocks\.3\.attn\.qkv"):
        build_segmae(SegmentationModel(**model), path)


def test_two_processes_train_both_stages_as_one(root):
    """The second takes over stage 1's best epoch, too: weights of stage 2 within rounding."""
    alone = run_of(training={"epochs": 1, "learning_rate": 0.01})
    train_run(alone, Layout(root).run("segmentation", alone.run_id), root, "cpu")
    both = alone.model_copy(update={"processes": 2})
    both.save(Layout(root).run("segmentation", both.run_id))
    done = torchrun(
        "-m", "lesion_core.cli", "train", both.run_id, "--root", root, "--device", "cpu", "--profile", "smoke"
    )
    assert done.returncode == 0, done.stderr
    folders = [Layout(root).run("segmentation", run.run_id) for run in (alone, both)]
    one, two = (load_file(folder / "weights.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one)
    for name in ("history.csv", "stage_1/history.csv"):
        rows, others = (read_csv(folder / name) for folder in folders)
        for row, other in zip(rows, others, strict=True):
            expected = [float(value) for value in row.values()]
            assert [float(value) for value in other.values()] == pytest.approx(expected, abs=1e-4)
