"""The paper's encoders through timm: they exist under these names, have these sizes, and give tokens to fuse."""

from __future__ import annotations

import pytest
import torch

from lesion_core.errors import SettingsError, WeightsError
from lesion_core.models.backbones import build_encoder
from lesion_core.models.registry import build_classifier
from lesion_core.settings import NETWORKS, ClassificationModel, Extraction
from lesion_core.settings import load as config
from lesion_core.settings.pretrained import TIMM_NAMES

EXTRACTION = Extraction(threshold=0.5, closing=0, smoothing=0.0, largest_component=True, crop_margin=0.0, blend=0.7)
# (token length, tokens per side at 224 px, parameters of the encoder without its ImageNet head)
EXPECTED = {
    ("vit_base", 8): (768, 28, 85_807_872),
    ("vit_base", 16): (768, 14, 85_798_656),
    ("vit_base", 32): (768, 7, 87_455_232),
    ("efficientnet_b4", 32): (1792, 7, 17_548_616),
    ("efficientnet_lite0", 32): (1280, 7, 3_371_008),
    ("efficientnet_lite1", 32): (1280, 7, 4_135_680),
    ("efficientnet_lite2", 32): (1280, 7, 4_811_072),
    ("convnext_tiny", 32): (768, 7, 27_820_128),
    ("densenet201", 32): (1920, 7, 18_092_928),
    ("resnet50", 32): (2048, 7, 23_508_032),
    ("vgg16", 32): (512, 7, 14_714_688),
    ("inception_v3", 32): (2048, 5, 21_785_568),
    ("swin_tiny", 32): (768, 7, 27_519_354),
    ("deit_small", 16): (384, 14, 21_665_664),
}
LITE = {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}  # of the small profiles
ALONE = ("resnet50", "vgg16", "inception_v3", "swin_tiny", "deit_small")  # seen in baselines without fusion alone


def parameters(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


def test_every_name_is_expected():
    assert set(EXPECTED) == set(TIMM_NAMES)


@pytest.mark.parametrize(("backbone", "patch"), sorted(EXPECTED))
def test_tokens_of_the_full_size_encoders(backbone: str, patch: int):
    width, grid, count = EXPECTED[backbone, patch]
    with torch.device("meta"):  # sizes and shapes without memory or arithmetic
        encoder = build_encoder(backbone, 224, patch).eval()
        tokens = encoder(torch.zeros(2, 3, 224, 224))
    assert tokens.shape == (2, 1 + grid * grid, width)
    assert (encoder.width, encoder.grid, encoder.stride) == (width, grid, patch)
    assert parameters(encoder) == count


@pytest.mark.parametrize(("backbone", "patch"), sorted(EXPECTED))
def test_imagenet_weights_are_published_under_the_name(backbone: str, patch: int):
    import timm

    published = timm.get_pretrained_cfg(TIMM_NAMES[backbone, patch], allow_unregistered=False)
    assert published.hf_hub_id == f"timm/{TIMM_NAMES[backbone, patch]}"
    assert published.num_classes == 1000


@pytest.mark.parametrize(
    ("backbone", "patch", "fusion"),
    [
        ("vit_base", 8, "cross_attention"),
        ("efficientnet_b4", 32, "cross_attention"),
        ("convnext_tiny", 32, "concat"),
        ("densenet201", 32, "gated"),
    ],
)
def test_fusion_takes_tokens_of_any_encoder(backbone: str, patch: int, fusion: str):
    settings = ClassificationModel(
        kind="fusion", backbone=backbone, image_size=224, patch_size=patch, fusion=fusion, heads=4
    )
    with torch.device("meta"):
        model = build_classifier(settings, EXTRACTION, seed=1).eval()
        logits = model(torch.zeros(1, 3, 224, 224), torch.zeros(1, 1, 224, 224))
    assert logits.shape == (1, 7)


@pytest.mark.parametrize(("backbone", "patch"), [key for key in sorted(EXPECTED) if key[0] in ALONE])
def test_a_baseline_takes_a_step_and_is_restored(backbone: str, patch: int):
    """Forward and backward in earnest, on small images; its state goes into another, strictly."""
    settings = ClassificationModel(kind="fusion", backbone=backbone, image_size=96, patch_size=patch)
    model = build_classifier(settings, EXTRACTION, seed=1).train()
    torch.manual_seed(1)
    images, masks = torch.rand(2, 3, 96, 96) * 255, torch.zeros(2, 1, 96, 96)
    loss = torch.nn.functional.cross_entropy(model(images, masks), torch.tensor([0, 5]))
    loss.backward()
    learnt = dict(model.trainable_parameters())
    assert all(item.grad is not None and item.grad.isfinite().all() for item in learnt.values())
    with torch.no_grad():
        for item in learnt.values():
            item.sub_(1e-3 * item.grad)
    other = build_classifier(settings, EXTRACTION, seed=2)
    state = model.trainable_state()
    other.load_trainable_state(state)
    loaded = other.trainable_state()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    del state["head.bias"]
    with pytest.raises(WeightsError, match=r"head\.bias"):
        other.load_trainable_state(state)


@pytest.mark.parametrize("backbone", ["convnext_tiny", "densenet201", "swin_tiny"])
def test_convolutional_tokens_are_aligned_with_the_image(backbone: str):
    """Forward in earnest, on a small image: a change in a corner moves that corner's token most."""
    torch.manual_seed(1)
    encoder = build_encoder(backbone, 128, 32).eval()
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., 96:, :32] += 2.0
    with torch.inference_mode():
        before, after = encoder(image), encoder(changed)
    assert torch.isfinite(after).all()
    moved = (after - before)[0, 1:].norm(dim=-1).view(4, 4)
    assert int(moved.argmax()) == 12
    torch.testing.assert_close(after[:, 0], after[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-4)


def test_every_network_of_the_paper_profile_can_be_built():
    networks = {
        (model.backbone, model.image_size, model.patch_size, model.heads)
        for method in config.load("paper").methods.values()
        if method.task == "classification" and (model := method.model).kind in NETWORKS
    }
    assert {backbone for backbone, *_ in networks} == {backbone for backbone, _ in EXPECTED} - LITE
    for backbone, size, patch, heads in networks:
        width, _, _ = EXPECTED[backbone, patch]
        assert size == 224
        assert width % heads == 0


def test_the_dual_network_at_full_size():
    heads = 8
    settings = ClassificationModel(
        kind="dual", backbone="densenet201", image_size=224, patch_size=32, input="masked", fusion="cross_attention",
        heads=heads,
    )  # fmt: skip
    with torch.device("meta"):
        model = build_classifier(settings, EXTRACTION, seed=1).eval()
        assert model(torch.zeros(1, 3, 224, 224), torch.zeros(1, 1, 224, 224)).shape == (1, 7)
    width, _, encoder = EXPECTED["densenet201", 32]
    attention, norms, head = 4 * (width * width + width) + 4 * width, 4 * width, 7 * width + 7
    assert parameters(model) == 2 * encoder + attention + norms + head


def test_patch_sizes_that_an_encoder_does_not_come_in_are_refused():
    with pytest.raises(SettingsError, match=r"\[8, 16, 32\]"):
        build_encoder("vit_base", 224, 14)
    with pytest.raises(SettingsError, match=r"\[32\]"):
        build_encoder("densenet201", 224, 16)
    with pytest.raises(ValueError, match="efficientnet_b4 comes with patch_size"):
        ClassificationModel(kind="fusion", backbone="efficientnet_b4", patch_size=16)
    with pytest.raises(ValueError, match="not aligned"):
        ClassificationModel(kind="fusion", backbone="inception_v3", patch_size=32, fusion="concat")
    with pytest.raises(ValueError, match="no pretrained weights"):
        ClassificationModel(kind="fusion", backbone="vit_t", pretrained=True)
