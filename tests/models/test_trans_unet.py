"""TransUNet: its encoder equal to timm's, the weights' file."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lesion_core.errors import WeightsError
from lesion_core.models.registry import build_segmenter
from lesion_core.settings import SegmentationModel
from lesion_core.settings.pretrained import TRANS_UNET, weights_name

FULL = SegmentationModel(kind="trans_unet", image_size=64, encoder="r50_vit_b_16", encoder_weights="imagenet")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A file in the release's format: positions are of 224 pixels."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(TRANS_UNET).state_dict(), path)
    return path


def test_the_tokens_are_those_of_timm(published):
    assert weights_name(FULL) == TRANS_UNET
    model = build_segmenter(FULL, published, 0)
    theirs = timm.create_model(
        TRANS_UNET, pretrained=True, pretrained_cfg_overlay={"file": str(published)}, img_size=64
    ).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    seen = []
    model.network.start.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        logits = model(images)
        tokens = theirs.forward_features(model.normalised(images, None))[:, 1:]
    assert logits.shape == (2, 1, 64, 64)
    torch.testing.assert_close(seen[0].flatten(2).transpose(1, 2), tokens)


def test_another_networks_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"blocks.0.norm1.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"vit_base_r50_s16_224"):
        build_segmenter(FULL, path, 0)
