"""U-Net segmenters: segmentation-models-pytorch with an encoder of choice, and a tiny twin in plain torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.prompts import Prompts
from lesion_core.models.sam import load_strict, read_weights
from lesion_core.models.trainable import Segmenter

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class UNetSegmenter(Segmenter):
    """A fully trained segmentation network with ImageNet normalisation inside.

    Args:
        network: (B, 3, S, S) -> (B, 1, S, S) logits.
        multiple: S must be a multiple of it.
    """

    def __init__(self, network: nn.Module, *, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(-1, 1, 1), persistent=False)
        self.fix_trainable()

    def forward(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """(B, 3, S, S) float, 0..255, RGB -> lesion logits (B, 1, S, S) float32.

        Raises:
            ImageError: a prompt is given (a U-Net takes none), or S is no multiple of the network's total stride.
        """
        if prompts is not None:
            raise ImageError("A U-Net takes no prompts", remedy='score it with prompt "none" only')
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.multiple for side in images.shape[2:]):
            raise ImageError(
                f"This U-Net takes (B, 3, H, W) with sides that are multiples of {self.multiple}, "
                f"not {tuple(images.shape)}",
                remedy="change model.image_size",
            )
        return self.network((images - self.pixel_mean) / self.pixel_std).float()


class TinyUNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) in small: four scales from S/2 on, two 3x3 convolutions each.

    Group instead of batch normalisation: the small profiles have batches of a few images. The first convolution has
    stride 2 and the logits are upsampled at the end: four times faster, for a rim at most a pixel blurred.

    Args:
        width: channels at S/2, a multiple of 8; doubled at each of the three coarser scales.
    """

    MULTIPLE = 16

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = [width * 2**scale for scale in range(4)]
        self.stem = nn.Conv2d(3, width, kernel_size=3, stride=2, padding=1)
        self.encoders = nn.ModuleList(
            _double_convolution(before, after) for before, after in zip([width, *channels[:-1]], channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.decoders = nn.ModuleList(
            _double_convolution(coarse + fine, fine)
            for coarse, fine in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, 1, S, S) logits."""
        x = self.stem(x)
        skips = []
        for scale, encoder in enumerate(self.encoders):
            x = encoder(x if scale == 0 else self.pool(x))
            skips.append(x)
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decoder(torch.cat([self.upsample(x), skip], dim=1))
        return self.upsample(self.head(x))


def build_unet(
    encoder: str | None, encoder_weights: str | None = None, *, weights: Path | None = None
) -> UNetSegmenter:
    """A U-Net from settings, in eval mode; random parts start from torch's global generator.

    Args:
        encoder: a name of segmentation-models-pytorch (``resnet34``, ``efficientnet-b3``, ``tu-...`` for timm); None:
            ``TinyUNet``.
        encoder_weights: a name of segmentation-models-pytorch, e.g. ``imagenet``; None: random.
        weights: a file with the encoder's tensors, read instead of a download if ``encoder_weights`` is given.

    Raises:
        SettingsError: the encoder is unknown, or weights are asked for without an encoder.
        WeightsError: the encoder's weights are not at hand, or do not fit.
    """
    if encoder is None:
        if encoder_weights is not None:
            raise SettingsError(
                "encoder_weights without an encoder", remedy="set model.encoder, or model.encoder_weights to null"
            )
        return UNetSegmenter(TinyUNet(), multiple=TinyUNet.MULTIPLE).eval()
    # Imported here: with torchvision and timm it takes about ten seconds.
    import segmentation_models_pytorch as smp

    source = encoder_weights if weights is None else None
    try:
        network = smp.Unet(encoder_name=encoder, encoder_weights=source, in_channels=3, classes=1)
    except KeyError as error:
        raise SettingsError(
            f"segmentation-models-pytorch does not know this encoder or its weights: {error.args[0]}",
            remedy="change model.encoder or model.encoder_weights",
        ) from error
    except (OSError, RuntimeError) as error:
        if source is None:
            raise
        raise WeightsError(
            f"Weights {encoder_weights!r} of encoder {encoder!r} cannot be fetched or read: {error}",
            remedy="check the network, or set model.encoder_weights to null",
        ) from error
    if encoder_weights is not None and weights is not None:
        load_strict(network.encoder, read_weights(weights), file=weights)
    return UNetSegmenter(network, multiple=32).eval()


def _double_convolution(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
