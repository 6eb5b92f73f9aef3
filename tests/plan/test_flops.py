"""Operations that torch counts on weightless models, against formulas worked by hand."""

from __future__ import annotations

import pytest

from lesion_core.errors import SettingsError
from lesion_core.models.sam.network import VARIANTS
from lesion_core.plan.flops import flops_per_image
from lesion_core.settings import load as config


@pytest.fixture(scope="module")
def runs():
    return config.expand(config.load("smoke"))


def of(runs, method):
    return next(run for run in runs.values() if run.method == method)


def encoder_operations(name: str, size: int) -> int:
    """SAM's image encoder (Kirillov et al., 2023; Li et al., 2022): two operations for each product and sum."""
    variant = VARIANTS[name]
    width, grid, window = variant.embed_dim, size // 16, variant.window
    tokens, head = grid**2, width // variant.heads
    total = tokens * width * 3 * 16**2  # patches
    for block in range(variant.depth):
        side = grid if block in variant.global_attention else window
        parts = 1 if side == grid else (-(-grid // window)) ** 2
        inside = parts * side**2  # with the padding of the last windows
        total += 4 * inside * width**2 + 8 * tokens * width**2  # projections, MLP
        total += 2 * inside * side**2 * width  # scores and weighted values
        total += 2 * inside * variant.heads * side * head  # relative positions along both axes
    out = variant.prompt_dim
    return 2 * (total + tokens * (width * out + 9 * out**2))  # and the neck


def test_sams_encoder_by_hand(runs):
    run = of(runs, "sam_frozen")
    counted = flops_per_image(run, runs)
    assert counted["encode"] == encoder_operations("sam_vit_t", run.spec.model.image_size)
    assert counted["forward"] == counted["encode"] + counted["decode"]
    assert counted["decode"] > 0
    assert "train" not in counted


def test_adapters_need_the_backward_pass_of_what_lies_behind_them(runs):
    frozen, adapted = (flops_per_image(of(runs, name), runs) for name in ("sam_frozen", "sam_adapter"))
    assert adapted["forward"] > frozen["forward"]
    # gradients flow through all later activations, but not into the frozen weights: about two forward passes
    assert 1.8 < adapted["train"] / adapted["forward"] < 2.4


def test_stored_embeddings_leave_the_decoder_alone(runs):
    run = of(runs, "peft_medsam")
    counted = flops_per_image(run, runs)
    assert counted["forward"] == counted["encode"] + counted["decode"]
    assert counted["train"] < 3 * counted["decode"]


def test_a_convolutional_network_costs_three_passes_but_for_the_gradient_of_the_photograph(runs):
    run = of(runs, "unet")
    counted = flops_per_image(run, runs)
    from lesion_core.models.registry import build_segmenter

    first = next(part for part in build_segmenter(run.spec.model, None, 0).modules() if hasattr(part, "kernel_size"))
    side = run.spec.model.image_size // first.stride[0]
    photograph = 2 * side**2 * 3 * first.out_channels * first.kernel_size[0] ** 2
    assert counted["train"] == 3 * counted["forward"] - photograph


def test_reconstruction_sees_a_quarter_of_the_patches(runs):
    counted = flops_per_image(of(runs, "segmae"), runs)
    assert 0 < counted["reconstruct"] < counted["train"]


def test_joint_training_costs_both(runs):
    run = of(runs, "joint_proposed")
    joint, segmenter, classifier = (
        flops_per_image(part, runs) for part in (run, runs[run.segmenter_run], runs[run.classifier_run])
    )
    assert joint["forward"] == segmenter["forward"] + classifier["forward"]
    # the classifier's gradient goes on into the mask, which its own training leaves out
    assert joint["train"] >= segmenter["train"] + classifier["train"]


def test_dual_network_is_counted_with_metadata(runs):
    counted = flops_per_image(of(runs, "dual_network"), runs)
    assert 2.5 < counted["train"] / counted["forward"] < 3.0


@pytest.mark.parametrize("method", ["otsu", "vit_cross_attention_tta"])
def test_what_has_no_network_is_refused(runs, method):
    with pytest.raises(SettingsError, match="no network"):
        flops_per_image(of(runs, method), runs)
