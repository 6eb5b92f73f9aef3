"""Fully trained segmentation networks, ImageNet normalisation inside, no prompts.

U-Net, U-Net++, DeepLabV3+ and SegFormer of segmentation-models-pytorch, the tiny U-Net, and paper C's Deep-UNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from lesion_core.errors import ImageError, SettingsError
from lesion_core.models.deep_unet import DeepUNet, TinyEncoder
from lesion_core.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import Segmenter
from lesion_core.models.unet import TinyUNet
from lesion_core.models.weights import not_the_weights_of, read_weights
from lesion_core.settings.segmentation import STRIDE

# kind -> class of segmentation-models-pytorch
ARCHITECTURES = {
    "unet": "Unet",
    "unet_plus_plus": "UnetPlusPlus",
    "deeplabv3_plus": "DeepLabV3Plus",
    "segformer": "Segformer",
}
DEPTH = 5  # scales of an encoder


class NetworkSegmenter(Segmenter):
    """A fully trained segmentation network with ImageNet normalisation inside.

    Args:
        network: (B, 3, S, S) -> (B, 1, S, S) logits.
        multiple: S must be a multiple of it.
        size: the only S that it takes; None: any.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, network: Any, *, multiple: int, size: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.multiple, self.size = multiple, size
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(-1, 1, 1), persistent=False)
        self.fix_trainable()

    def forward(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """(B, 3, S, S) float, 0..255, RGB -> lesion logits (B, 1, S, S) float32.

        Raises:
            ImageError: a prompt is given (these networks take none), or S is no multiple of the total stride or not the
                one size that the network takes.
        """
        return self.network(self.normalised(images, prompts)).float()

    def normalised(self, images: Tensor, prompts: Prompts | None) -> Tensor:
        """Checked and normalised images; see ``forward``."""
        if prompts is not None:
            raise ImageError("This network takes no prompts", remedy='score it with prompt "none" only')
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.multiple for side in images.shape[2:]):
            raise ImageError(
                f"This network takes (B, 3, H, W) with sides that are multiples of {self.multiple}, "
                f"not {tuple(images.shape)}",
                remedy="change model.image_size",
            )
        if self.size is not None and any(side != self.size for side in images.shape[2:]):
            raise ImageError(
                f"This network takes images of {self.size} x {self.size} pixels, not {tuple(images.shape[2:])}",
                remedy="give it images of model.image_size",
            )
        return (images - self.pixel_mean) / self.pixel_std


def build_network(kind: str, encoder: str | None, weights: Path | None = None) -> NetworkSegmenter:
    """A network from settings, in eval mode; random parts start from torch's global generator.

    Args:
        kind: a key of ``ARCHITECTURES``, or ``deep_unet``.
        encoder: a name of segmentation-models-pytorch (``resnet34``, ``efficientnet-b3``, ``tu-...`` for timm); None:
            the scaled-down version, which U-Net and Deep-UNet have.
        weights: file of the encoder's weights as published; None: a random start.

    Raises:
        SettingsError: the encoder is unknown, or there is none.
        WeightsError: the weights do not fit.
    """
    if encoder is None:
        return _tiny(kind)
    try:
        if kind == "deep_unet":
            own = smp.encoders.get_encoder(encoder, in_channels=3, depth=DEPTH)
            network = DeepUNet(own, own.out_channels[1:])
        else:
            network = getattr(smp, ARCHITECTURES[kind])(encoder_name=encoder, encoder_weights=None, classes=1)
            own = network.encoder
    except KeyError as error:
        raise SettingsError(
            f"segmentation-models-pytorch does not know this encoder: {error.args[0]}", remedy="change model.encoder"
        ) from error
    if weights is not None:
        state = read_weights(weights)
        if encoder.startswith("tu-"):  # timm's has layers behind the last map, which are no part of the encoder
            own = own.model
            state = {name: state[name] for name in own.state_dict() if name in state}
        try:
            own.load_state_dict(state)
        except RuntimeError as error:
            raise not_the_weights_of(encoder, weights, error) from error
    return NetworkSegmenter(network, multiple=STRIDE).eval()


def _tiny(kind: str) -> NetworkSegmenter:
    if kind == "unet":
        return NetworkSegmenter(TinyUNet(), multiple=TinyUNet.MULTIPLE).eval()
    if kind == "deep_unet":
        encoder = TinyEncoder()
        return NetworkSegmenter(DeepUNet.tiny(encoder), multiple=encoder.MULTIPLE).eval()
    raise SettingsError(f"{kind} needs an encoder", remedy="set model.encoder, e.g. to resnet34")
