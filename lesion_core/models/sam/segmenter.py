"""SAM with adapters as a segmenter: one prompt (or none) per image, one mask per image, in batches."""

from __future__ import annotations

from typing import Literal

import torch
from segment_anything.modeling import MaskDecoder, Sam
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lesion_core.errors import ImageError
from lesion_core.models.sam.adapters import Init, Targets, add_lora, add_med_sa, bottlenecks, highway
from lesion_core.models.sam.attention import use_attention
from lesion_core.models.sam.network import normalise
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import Segmenter


class SamSegmenter(Segmenter):
    """A frozen SAM in which adapters of its image encoder (papers A, B) or its mask decoder (paper E) alone learn.

    Args:
        sam: from ``build_sam``, weights loaded; it is taken over: frozen, and changed in place by LoRA and Med-SA.
        adapter: ``none`` (frozen SAM), ``bottleneck``, ``lora``, ``med_sa`` (after attention and beside the MLP),
            ``gmed_sa`` (around each block), ``gl_med_sa`` (both), or ``decoder``: the mask decoder learns, no adapter.
        rank: r of LoRA, width of every bottleneck.
        depth: bottlenecks per layer; only of ``bottleneck``.
        gated: with input-dependent gates; only of ``bottleneck``.
        adapter_init: ``zero``: step 0 equals the model without adapters to the bit; ``random``: it does not.
        lora_targets: projections with LoRA; only of ``lora``.

    Adapters start from torch's global generator: ``seeding.seed_torch(seed, "adapters")`` first.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        adapter: Literal["none", "bottleneck", "lora", "med_sa", "gmed_sa", "gl_med_sa", "decoder"],
        rank: int = 64,
        depth: int = 2,
        gated: bool = False,
        adapter_init: Init = "zero",
        lora_targets: Targets = "qv",
    ) -> None:
        super().__init__()
        sam.requires_grad_(False)
        # The engine sets it: blocks are then computed again in the backward pass instead of kept.
        self.activation_checkpointing = False
        encoder = sam.image_encoder
        self.sam = sam
        self.adapters = None
        self.highway = None
        if adapter == "bottleneck":
            self.adapters = bottlenecks(encoder, rank, depth, gated=gated, init=adapter_init)
        if adapter == "lora":
            add_lora(encoder, rank, lora_targets, init=adapter_init)
        if adapter == "decoder":
            _free_decoder(sam.mask_decoder)
        if adapter in ("gmed_sa", "gl_med_sa"):
            self.highway = highway(encoder, rank, init=adapter_init)
        if adapter in ("med_sa", "gl_med_sa"):
            add_med_sa(encoder, rank, init=adapter_init)
        use_attention(encoder)
        self.fix_trainable()

    @property
    def image_size(self) -> int:
        """S, the side of the input in pixels."""
        return self.sam.image_encoder.img_size

    def forward(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Lesion logits of a batch.

        Args:
            images: (B, 3, S, S) float, 0..255, RGB; normalised here as the weights expect it (``normalise``).
            prompts: one per image, on any device, or None: no sparse prompt and SAM's learnt "no mask" dense embedding.

        Returns:
            (B, 1, S/4, S/4) float32: SAM's mask token 0, its only mask if no other is asked for.

        Raises:
            ImageError: images of another shape, or not one prompt per image.
        """
        return self.decode(self.encode(images), prompts)

    def encode(self, images: Tensor) -> Tensor:
        """Image embeddings (B, C, S/16, S/16) of (B, 3, S, S) images 0..255; the adapters act here and only here."""
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ImageError(
                f"SAM is built for (B, 3, {size}, {size}) images, not {tuple(images.shape)}",
                remedy="harmonize to model.image_size",
            )
        return self.embed(normalise(self.sam, images))

    def embed(self, x: Tensor) -> Tensor:
        """Image embeddings (B, C, S/16, S/16) of (B, 3, S, S) normalised pixels."""
        encoder = self.sam.image_encoder
        # Contiguous: else every norm and projection copies its input, in the convolution's strides.
        x = (encoder.patch_embed(x) + encoder.pos_embed).contiguous()
        for layer in range(len(encoder.blocks)):
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._layer, x, layer, use_reentrant=False)
            else:
                x = self._layer(x, layer)
        return encoder.neck(x.permute(0, 3, 1, 2))

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        """One block with its adapters: (B, S/16, S/16, d) -> the same shape."""
        before, x = x, self.sam.image_encoder.blocks[layer](x)
        if self.adapters is not None:
            x = self.adapters[layer](x)
        if self.highway is not None:
            x = x + self.highway[layer](before)
        return x

    def decode(self, embeddings: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Lesion logits (B, 1, S/4, S/4) float32 from ``encode``'s embeddings; see ``forward``."""
        return self._decode(embeddings, prompts, 1)[0].float()

    def decode_all(self, embeddings: Tensor, prompts: Prompts | None = None) -> tuple[Tensor, Tensor]:
        """All four masks and their estimated IoU: (B, 4, S/4, S/4) and (B, 4) float32; mask 0 is the single one."""
        masks, iou = self._decode(embeddings, prompts, self.sam.mask_decoder.num_mask_tokens)
        return masks.float(), iou.float()

    def _decode(self, embeddings: Tensor, prompts: Prompts | None, masks: int) -> tuple[Tensor, Tensor]:
        if prompts is not None and len(prompts) != len(embeddings):
            raise ImageError(f"{len(embeddings)} images but {len(prompts)} prompts", remedy="give one prompt per image")
        if prompts is not None:
            prompts = prompts.to(embeddings.device)
        encoder = self.sam.prompt_encoder
        # Its index assignments need one dtype throughout, which autocast breaks; it costs next to nothing.
        with torch.autocast(embeddings.device.type, enabled=False):
            sparse, dense = encoder(
                points=None if prompts is None or prompts.points is None else _points(prompts),
                boxes=None if prompts is None or prompts.boxes is None else prompts.boxes.float(),
                masks=None,
            )
            position = encoder.get_dense_pe()
        sparse = sparse.expand(len(embeddings), -1, -1)
        return decode_masks(self.sam.mask_decoder, embeddings, position, sparse, dense, masks)


def _free_decoder(decoder: MaskDecoder) -> None:
    """Let learn what mask 0 passes through (paper E); the IoU head and the nested masks' own heads feel no gradient."""
    decoder.requires_grad_(True)
    decoder.iou_prediction_head.requires_grad_(False)
    for head in decoder.output_hypernetworks_mlps[1:]:
        head.requires_grad_(False)


def decode_masks(
    decoder: MaskDecoder, embeddings: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, masks: int
) -> tuple[Tensor, Tensor]:
    """``MaskDecoder.predict_masks`` for a batch of images with one prompt each, instead of one image with many.

    The published method repeats the image embedding once per prompt, so that a batch of B images yields B * B masks.

    Args:
        decoder: segment_anything's MaskDecoder; its modules are used as they are.
        embeddings: (B, C, g, g). position: (1, C, g, g). sparse: (B, N, C), N may be 0. dense: (B or 1, C, g, g).
        masks: the first ``masks`` mask tokens are decoded.

    Returns:
        logits (B, masks, 4 g, 4 g) and estimated IoU (B, masks).
    """
    batch, channels, height, width = embeddings.shape
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(batch, -1, -1), sparse], dim=1)
    queries, keys = decoder.transformer(embeddings + dense, position.expand(batch, -1, -1, -1), tokens)
    image = keys.transpose(1, 2).reshape(batch, channels, height, width)
    upscaled = decoder.output_upscaling(image)
    weights = torch.stack(
        [decoder.output_hypernetworks_mlps[token](queries[:, 1 + token]) for token in range(masks)], dim=1
    )
    # As many rows as segment_anything multiplies: a product of another shape sums in another order.
    rows = nn.functional.pad(weights, (0, 0, 0, decoder.num_mask_tokens - masks))
    logits = (rows @ upscaled.flatten(2))[:, :masks].unflatten(2, upscaled.shape[2:])
    return logits, decoder.iou_prediction_head(queries[:, 0])[:, :masks]


def _points(prompts: Prompts) -> tuple[Tensor, Tensor]:
    points, labels = prompts.clicks()
    return points.float(), labels
