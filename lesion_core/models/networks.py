"""Fully trained segmentation networks, ImageNet normalisation inside, no prompts.

U-Net, U-Net++, DeepLabV3+ and SegFormer of segmentation-models-pytorch, the tiny U-Net, and paper C's Deep-UNet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.deep_unet import DeepUNet, TinyEncoder
from lesion_core.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import Segmenter
from lesion_core.models.unet import TinyUNet
from lesion_core.models.weights import load_strict, read_weights
from lesion_core.settings.segmentation import STRIDE

# kind -> class of segmentation-models-pytorch
ARCHITECTURES = {
    "unet": "Unet",
    "unet_plus_plus": "UnetPlusPlus",
    "deeplabv3_plus": "DeepLabV3Plus",
    "segformer": "Segformer",
}
DEPTH = 5  # scales of an encoder

Built = TypeVar("Built")


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


def build_network(
    kind: str, encoder: str | None, encoder_weights: str | None = None, *, weights: Path | None = None
) -> NetworkSegmenter:
    """A network from settings, in eval mode; random parts start from torch's global generator.

    Args:
        kind: a key of ``ARCHITECTURES``, or ``deep_unet``.
        encoder: a name of segmentation-models-pytorch (``resnet34``, ``efficientnet-b3``, ``tu-...`` for timm); None:
            the scaled-down version, which U-Net and Deep-UNet have.
        encoder_weights: a name of segmentation-models-pytorch, e.g. ``imagenet``; None: random.
        weights: a file with the encoder's tensors, read instead of a download if ``encoder_weights`` is given.

    Raises:
        SettingsError: the encoder is unknown, there is none, or weights are asked for without one.
        WeightsError: the encoder's weights are not at hand, or do not fit.
    """
    if encoder is None:
        return _tiny(kind, encoder_weights)
    source = encoder_weights if weights is None else None
    if kind == "deep_unet":
        built = _fetched(
            lambda: smp.encoders.get_encoder(encoder, in_channels=3, depth=DEPTH, weights=source), encoder, source
        )
        network, own = DeepUNet(built, built.out_channels[1:]), built
    else:
        architecture = getattr(smp, ARCHITECTURES[kind])
        network = _fetched(
            lambda: architecture(encoder_name=encoder, encoder_weights=source, in_channels=3, classes=1),
            encoder,
            source,
        )
        own = network.encoder
    if encoder_weights is not None and weights is not None:
        load_strict(own, read_weights(weights), file=weights)
    return NetworkSegmenter(network, multiple=STRIDE).eval()


def _tiny(kind: str, encoder_weights: str | None) -> NetworkSegmenter:
    if encoder_weights is not None:
        raise SettingsError(
            "encoder_weights without an encoder", remedy="set model.encoder, or model.encoder_weights to null"
        )
    if kind == "unet":
        return NetworkSegmenter(TinyUNet(), multiple=TinyUNet.MULTIPLE).eval()
    if kind == "deep_unet":
        encoder = TinyEncoder()
        return NetworkSegmenter(DeepUNet.tiny(encoder), multiple=encoder.MULTIPLE).eval()
    raise SettingsError(f"{kind} needs an encoder", remedy="set model.encoder, e.g. to resnet34")


def _fetched(build: Callable[[], Built], encoder: str, source: str | None) -> Built:
    try:
        return build()
    except KeyError as error:
        raise SettingsError(
            f"segmentation-models-pytorch does not know this encoder or its weights: {error.args[0]}",
            remedy="change model.encoder or model.encoder_weights",
        ) from error
    except (OSError, RuntimeError) as error:
        if source is None:
            raise
        raise WeightsError(
            f"Weights {source!r} of encoder {encoder!r} cannot be fetched or read: {error}",
            remedy="check the network, or set model.encoder_weights to null",
        ) from error
