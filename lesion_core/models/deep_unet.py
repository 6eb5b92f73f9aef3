"""Deep-UNet of paper C: an encoder, an ASPP bottleneck, dual (depthwise channel and spatial) attention on the skips.

The paper draws its parts and names them; widths, rates and the gate's inside are our reading of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesion_core.models.unet import convolution, double_convolution

# Rates of the bottleneck's dilated convolutions, ours: 6, 12, 18 would look past the 16 x 16 map of a 512 pixel image.
RATES = (2, 4, 6)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., 2017): 1x1, three dilated 3x3 and image pooling, joined by a 1x1.

    Args:
        before, after: channels; ``after`` is a multiple of 8.
        rates: of the dilated convolutions.
    """

    def __init__(self, before: int, after: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [convolution(before, after, 1), *(convolution(before, after, rate=rate) for rate in rates)]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(before, after, 1), nn.ReLU(inplace=True))
        self.join = convolution(after * (len(rates) + 2), after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, h, w) -> (B, after, h, w)."""
        pooled = self.pool(x).expand(-1, -1, *x.shape[2:])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))


class DualAttentionGate(nn.Module):
    """A skip weighted by channel and by place, both told by the skip and the coarser features together.

    q = ReLU(W_s skip + W_g coarse) passes a depthwise 3x3 convolution; its mean over places gives a weight per channel,
    a 1x1 convolution a weight per place: skip * sigmoid(channel) * sigmoid(place).

    Args:
        skip, coarse: channels of the two inputs.
    """

    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        hidden = max(8, skip // 2 // 8 * 8)
        self.of_skip = nn.Conv2d(skip, hidden, 1, bias=False)
        self.of_coarse = nn.Conv2d(coarse, hidden, 1)
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.GroupNorm(8, hidden),
            nn.ReLU(inplace=True),
        )
        self.channel = nn.Conv2d(hidden, skip, 1)
        self.place = nn.Conv2d(hidden, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """(B, skip, h, w) and (B, coarse, h, w) -> (B, skip, h, w), smaller in size everywhere."""
        together = self.depthwise(torch.relu(self.of_skip(skip) + self.of_coarse(coarse)))
        by_channel = torch.sigmoid(self.channel(together.mean(dim=(2, 3), keepdim=True)))
        return skip * by_channel * torch.sigmoid(self.place(together))


class _OpenGate(nn.Module):
    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        return skip


class DeepUNet(nn.Module):
    """Encoder, ASPP, and a decoder whose skips pass dual attention gates.

    Args:
        encoder: (B, 3, S, S) -> feature maps of falling size; those beyond ``channels``, such as the image itself, come
            first and are left aside.
        channels: of the maps at strides 2, 4, 8, ...
        decoder: channels of the decoder's maps, from the coarsest skip on; the bottleneck has twice the first.
    """

    def __init__(
        self, encoder: nn.Module, channels: Sequence[int], decoder: Sequence[int] = (256, 128, 64, 32)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.scales = len(channels)
        self.bottleneck = ASPP(channels[-1], 2 * decoder[0])
        before = (2 * decoder[0], *decoder[:-1])
        skips = channels[-2::-1]
        self.gates = nn.ModuleList(DualAttentionGate(skip, coarse) for skip, coarse in zip(skips, before, strict=True))
        self.decoders = nn.ModuleList(
            double_convolution(skip + coarse, after) for skip, coarse, after in zip(skips, before, decoder, strict=True)
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(decoder[-1], 1, kernel_size=1)

    @classmethod
    def tiny(cls, encoder: TinyEncoder) -> DeepUNet:
        """The small twin."""
        return cls(encoder, encoder.channels, decoder=(32, 16, 8))

    def open_gates(self) -> None:
        """The ablation without attention gates: skips pass as they are."""
        self.gates = nn.ModuleList(_OpenGate() for _ in self.gates)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, 1, S, S) logits."""
        maps = self.encoder(x)[-self.scales :]
        x = self.bottleneck(maps[-1])
        for gate, decoder, skip in zip(self.gates, self.decoders, maps[-2::-1], strict=True):
            x = self.upsample(x)
            x = decoder(torch.cat([gate(skip, x), x], dim=1))
        return self.upsample(self.head(x))


class TinyEncoder(nn.Module):
    """Four scales, each a 3x3 convolution of stride 2 and two of stride 1: the twin of EfficientNet-B3."""

    channels = (8, 16, 32, 64)
    MULTIPLE = 16

    def __init__(self) -> None:
        super().__init__()
        before = (3, *self.channels[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(start, end, 3, stride=2, padding=1), double_convolution(end, end))
            for start, end in zip(before, self.channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> maps at strides 2, 4, 8, 16."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
