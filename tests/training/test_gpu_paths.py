"""What a GPU would run, as far as a machine without one can tell.

Devices: models, losses, prompts and scoring on torch's fake tensors, which compute shapes and devices and refuse to mix
two devices as a GPU would. Types: gradients under bfloat16 autocast on the CPU. The rest by stand-ins.
"""

# ruff: noqa: F811 - fixtures come from other files
from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from engine_tasks import Curve, difference, run, training
from material import HOME
from pretended_gpu import GPU, pretended, step_and_validate  # noqa: F401
from segmentation_runs import SAM, SIZE, make_run, restore_torch, root  # noqa: F401

from lesion_core.errors import RunError
from lesion_core.inference import score_segmentation
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trained import LoadedSegmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.seeding import make_deterministic, seed_torch
from lesion_core.settings import load as config
from lesion_core.training import batches as batching
from lesion_core.training import engine
from lesion_core.training.batches import batches
from lesion_core.training.device import Autocast, resolve_precision, start_fabric
from lesion_core.training.engine import fit
from lesion_core.training.segmae import ReconstructionTask, SegMAETask
from lesion_core.training.segmentation_task import SegmentationTask

MASKING = {"epochs": 1, "masking": "random", "mask_ratio": 0.5, "temperature": 0.1}
SEGMENTERS = {
    "U-Net": {"kind": "unet"},
    "Deep-UNet": {"kind": "deep_unet"},
    "Attention U-Net": {"kind": "attention_unet", "width": 8},
    "ResUNet": {"kind": "res_unet", "width": 2},
    "UNETR": {"kind": "unetr", "width": 4},
    "Swin-UNETR": {"kind": "swin_unetr", "width": 12},
    "SegMAE": {"kind": "segmae"},
    "adapters": {**SAM, "adapter": "bottleneck", "rank": 2, "depth": 1},
    "LoRA, box": {**SAM, "adapter": "lora", "rank": 2, "lora_targets": "qkvo", "prompt": "oracle_box"},
    "GL-Med-SA, a session of clicks": {**SAM, "adapter": "gl_med_sa", "rank": 2, "prompt": "oracle_click_3"},
    "decoder, box": {**SAM, "adapter": "decoder", "prompt": "oracle_box"},
    "decoder, a session of clicks": {**SAM, "adapter": "decoder", "prompt": "oracle_click_3"},
}


def task_of(kind, root, run, device):
    data = Harmonized.open(Layout(root).pixels(HOME, "isic2018_task1", SIZE))
    weights = Layout(root).weights("sam_vit_t") if run.spec.model.kind == "sam" else None
    model = build_segmenter(run.spec.model, weights, run.seed)
    return kind(model, data, run.spec, threshold=0.5, seed=0, device=device)


def run_of(model, **change):
    return make_run(model=model, **({"reconstruction": MASKING} if model["kind"] == "segmae" else {}), **change)


def kinds_of(model):
    return (SegMAETask, ReconstructionTask) if model["kind"] == "segmae" else (SegmentationTask,)


@pytest.fixture
def fake_sam(monkeypatch):
    """SAM at a random start: reading a file gives real tensors, which do not mix with fake ones."""
    monkeypatch.setattr(
        "lesion_core.models.registry.build_sam",
        lambda name, *, image_size, weights: build_sam(name, image_size=image_size),
    )


# Swin-UNETR asks for a tensor's value when it is built
@pytest.mark.parametrize("name", [name for name in SEGMENTERS if name != "Swin-UNETR"])
def test_a_step_and_a_validation_stay_on_one_device(root, name, fake_sam, pretended):
    run = run_of(SEGMENTERS[name])
    for kind in kinds_of(run.spec.model.model_dump()):
        step_and_validate(task_of(kind, root, run, GPU), run.spec.training)


@pytest.mark.parametrize("name", ["adapters", "decoder, box", "U-Net"])
def test_scoring_stays_on_one_device_under_every_prompt(root, name, fake_sam, pretended, monkeypatch):
    run = run_of(SEGMENTERS[name])
    scoring = config.load("smoke").scoring
    model = build_segmenter(run.spec.model, Layout(root).weights("sam_vit_t"), 0).to(GPU)
    prompts = score_segmentation.prompts_of(run.spec.model.model_copy(update={"adapter": "none"}), scoring)
    assert ("automatic" in prompts) == (run.spec.model.kind == "sam")
    monkeypatch.setattr("lesion_core.inference.score_segmentation.read_mask", lambda path, shape: np.ones(shape, bool))
    folder = Layout(root).pixels(HOME, "isic2018_task1", SIZE)
    truths = {entry["image_id"]: folder for entry in Harmonized.open(folder).index}
    # automatic masks choose by values, which fake tensors do not have
    kept = [prompt for prompt in prompts if prompt != "automatic_masks"]
    found = score_segmentation._predictions(
        LoadedSegmenter(model, run, None), folder, truths, "isic2018_task1", 0, kept, scoring, GPU
    )
    assert [sorted(maps) for _, _, maps in found] == [sorted(kept)] * 2


def test_prompts_come_to_the_embeddings_wherever_they_are(pretended):
    model = SamSegmenter(build_sam("sam_vit_t", image_size=80), adapter="none").to(GPU)
    images = torch.rand(2, 3, 80, 80, device=GPU)
    points = Prompts(points=torch.rand(2, 1, 2), point_labels=torch.ones(2, 1, dtype=torch.int64))
    for prompts in (Prompts(boxes=torch.rand(2, 4)), points):
        assert model(images, prompts).device.type == GPU


def test_mixed_devices_are_noticed(pretended):
    """The planted fault: without this the tests above could not fail."""
    with pytest.raises(RuntimeError, match="device"):
        torch.rand(2, device=GPU) + torch.rand(2)


def gradients(task, batch, *, half: bool) -> dict[str, torch.Tensor]:
    task.module.train()
    for parameter in task.trainable().values():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss, _ = task.loss(batch)
    assert loss.dtype == torch.float32
    loss.backward()
    return {name: item.grad for name, item in task.trainable().items() if item.grad is not None}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_half_precision_reaches_every_learnt_tensor_in_the_same_direction(root, name):
    run = run_of(SEGMENTERS[name])
    for kind in kinds_of(run.spec.model.model_dump()):
        task = task_of(kind, root, run, "cpu")
        with torch.no_grad():
            for parameter in task.trainable().values():
                # not at the start, where many gradients are zero
                seed_torch(0, "noise")
                parameter.add_(0.02 * torch.randn_like(parameter))
        batch = task.batch(task.epoch_rows(0)[:4], 0, 1)
        exact, half = (gradients(task, batch, half=half) for half in (False, True))
        assert half.keys() == exact.keys()
        both = [torch.cat([part[name].flatten() for name in exact]) for part in (exact, half)]
        assert torch.isfinite(both[1]).all()
        assert float(torch.cosine_similarity(*both, dim=0)) > 0.9
        assert {item.dtype for item in half.values()} == {torch.float32}


def test_precision_follows_the_device(monkeypatch):
    assert resolve_precision("bf16", "cpu") == resolve_precision("fp16", "cpu") == "fp32"
    asked = []
    for has, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **options: asked.append(options) or has)
        assert resolve_precision("bf16", GPU) == expected
        assert resolve_precision("fp32", GPU) == "fp32"
        assert resolve_precision("fp16", GPU) == "fp16"
    assert asked == [{"including_emulation": False}] * 2


def test_what_comes_in_keeps_its_precision():
    """Fabric would hand pixels 0..255 over in bfloat16, which has 8 bits."""
    kept = []
    fabric = fabric_of("bf16")
    model = torch.nn.Linear(3, 1)
    model.register_forward_pre_hook(lambda module, given: kept.append(given[0].dtype))
    found = fabric.setup_module(model)(torch.rand(2, 3))
    assert (kept, found.dtype) == ([torch.float32], torch.float32)
    with fabric.autocast():
        assert model(torch.rand(2, 3)).dtype == torch.bfloat16


def fabric_of(precision):
    """As on a GPU, its arithmetic on the CPU."""
    return start_fabric("cpu", precision)


def overflowing(plain, parameter):
    """The loss, whose gradient is now infinite."""

    def loss(batch):
        value, parts = plain(batch)
        return value + (0.0 * parameter.sum()).sqrt(), parts

    return loss


@pytest.fixture
def fp16_on_the_cpu(monkeypatch):
    """A training in fp16 with torch's own scaler, its arithmetic in float64."""
    monkeypatch.setattr(Autocast, "forward_context", lambda self: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(Autocast, "convert_output", lambda self, data: data)
    monkeypatch.setattr(engine, "resolve_precision", lambda precision, device: precision)


def test_fp16_scales_the_loss_and_unscales_before_clipping(fp16_on_the_cpu, tmp_path):
    """The order that AMP needs: the same weights as without it."""
    settings = {"batch_size": 3, "accumulation": 2, "gradient_clip": 0.01, "optimizer": "sgd"}
    plain, scaled = (run(Curve(), tmp_path / name, precision=name, **settings) for name in ("fp32", "fp16"))
    assert difference(Curve(), plain) > 1e-4
    assert difference(plain, scaled) < 1e-9


def overflowing_at(steps, task):
    """``task``, the gradient of whose loss is infinite at ``steps``, counted from 0."""
    plain, bad, done = task.loss, overflowing(task.loss, next(task.module.parameters())), []

    def loss(batch):
        done.append(len(done))
        return (bad if done[-1] in steps else plain)(batch)

    task.loss = loss
    return task, done


def test_a_gradient_that_no_scale_fixes_ends_a_training_in_fp16(fp16_on_the_cpu, tmp_path, capsys):
    task, done = overflowing_at(range(1000), Curve(samples=16))
    start = {name: item.clone() for name, item in task.state().items()}
    with pytest.raises(RunError, match="gradient is not finite at step 16") as caught:
        fit(task, training(precision="fp16", epochs=50), tmp_path, seed=0, device="cpu")
    assert "precision" in caught.value.remedy
    assert len(done) == 17  # 65536 is halved to one half
    assert all(torch.equal(start[name], item) for name, item in task.state().items())
    said = capsys.readouterr().err
    assert "step 0 skipped" in said
    assert "scaled by 32768 from now on" in said


def test_some_overflows_are_skipped_and_the_training_goes_on(fp16_on_the_cpu, tmp_path, capsys):
    task, done = overflowing_at((0, 1, 5), Curve(samples=16))
    result = fit(task, training(precision="fp16"), tmp_path, seed=0, device="cpu")
    assert (result.epochs, len(done)) == (2, 8)
    assert capsys.readouterr().err.count("skipped") == 3


def test_a_norm_that_overflows_alone_is_no_skipped_step(fp16_on_the_cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.tensor(math.inf))
    with pytest.raises(RunError, match="gradient is not finite at step 0"):
        fit(Curve(samples=16), training(precision="fp16"), tmp_path, seed=0, device="cpu")


def test_a_gpus_batches_are_made_ahead_pinned_and_in_order(monkeypatch):
    chosen, pinned = [], []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: chosen.append((number, threading.get_ident())))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(batching.os, "cpu_count", lambda: 4)
    task = Curve(samples=24)
    arguments = {"epoch": 0, "steps": range(1, 6), "step": 7}
    ahead = list(batches(task, np.arange(24), 4, **arguments, device=GPU))
    plain = list(batches(Curve(samples=24), np.arange(24), 4, **arguments, device="cpu"))
    assert len(ahead) == len(plain) == 5
    for one, other in zip(ahead, plain, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(pinned) == 5 * 3
    assert {number for number, _ in chosen} == {3}
    assert threading.get_ident() not in {thread for _, thread in chosen}


def test_deterministic_settings(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    kept = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        make_deterministic(1)
        assert torch.get_deterministic_debug_mode() == 1
        assert batching.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.backends.cudnn.allow_tf32 = kept
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


@pytest.mark.parametrize("rule", ["mean_std", "min_max"])
def test_the_gpus_encoder_compiles_in_one_piece(rule):
    """What models_gpu times: traced whole, nothing falls back to Python, the same numbers."""
    seed_torch(0, "compiled")
    model = SamSegmenter(build_sam("sam_vit_t", image_size=80), adapter="none").double()
    model.sam.normalisation = rule
    images = torch.rand(1, 3, 80, 80, dtype=torch.float64)
    with torch.no_grad():
        compiled = torch.compile(model.encode, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model.encode(images))
