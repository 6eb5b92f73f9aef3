"""The dual network with clinical metadata (paper C): image and segmented lesion, cross-attention, metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lesion_core.catalog.metadata import FIELDS, NO_AGE, MetadataVocabulary
from lesion_core.models.backbones import TransformerLayer, build_encoder
from lesion_core.models.classifier import ClassifierModule, prepare_input
from lesion_core.models.fusion import HeadedAttention
from lesion_core.settings import CLASSES, ClassificationModel, Extraction

METADATA_WIDTH = 128  # ours: length of the metadata tokens
METADATA_HEADS = 4
METADATA_LAYERS = 2
AGE_BIN_YEARS = 10.0
AGE_BINS = 12  # 0-9, 10-19, ..., 110 and more: fixed, so that no other image's age decides a bin


class LesionAttention(HeadedAttention):
    """Q and V from the image's tokens, K from the segmented lesion's (paper C).

    Where the lesion's tokens resemble a token's query, the image's own features at those places are gathered.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.norm_image, self.norm_lesion = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, image_tokens: Tensor, lesion_tokens: Tensor) -> Tensor:
        image = self.norm_image(image_tokens)
        return self.attend(image, self.norm_lesion(lesion_tokens), image)


class MetadataEncoder(nn.Module):
    """Age, sex and site, float32 (B, 3) as ``MetadataVocabulary.encode`` gives them -> float32 (B, width).

    A class token and one token per field pass through pre-norm transformer layers; the class token is the result.

    Args:
        vocabulary: of the training images.
        age: ``binned``: a learnt token per ten years; ``continuous``: a linear map of (age - mean) / sd.
        width: length of the tokens. heads, layers: of the transformer.
    """

    def __init__(self, vocabulary: MetadataVocabulary, *, age: str, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.vocabulary, self.age = vocabulary, age
        # row 0 of each table is the token of an unknown value
        self.ages = nn.Embedding(1 + AGE_BINS, width) if age == "binned" else nn.Embedding(1, width)
        self.years = nn.Linear(1, width) if age == "continuous" else None
        self.sexes = nn.Embedding(1 + len(vocabulary.sexes), width)
        self.sites = nn.Embedding(1 + len(vocabulary.sites), width)
        self.field = nn.Parameter(torch.randn(1, len(FIELDS), width) * 0.02)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, metadata: Tensor) -> Tensor:
        tokens = torch.stack(
            [
                self._age(metadata[:, 0]),
                self.sexes(metadata[:, 1].long()),
                self.sites(metadata[:, 2].long()),
            ],
            dim=1,
        )
        tokens = torch.cat([self.class_token.expand(len(metadata), -1, -1), tokens + self.field], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, 0])

    def _age(self, years: Tensor) -> Tensor:
        known = years >= 0
        if self.years is None:
            bins = 1 + (years / AGE_BIN_YEARS).floor().clamp(0, AGE_BINS - 1).long()
            return self.ages(torch.where(known, bins, 0))
        standard = (years - self.vocabulary.age_mean) / self.vocabulary.age_sd
        unknown = self.ages(torch.zeros_like(years, dtype=torch.long))
        return torch.where(known[:, None], self.years(standard[:, None]), unknown)


class DualNetwork(ClassifierModule):
    """forward(images (B, 3, S, S) float32 RGB 0..255, soft masks (B, 1, S, S) float32 0..1, metadata (B, 3) or None)
    -> logits (B, 7), order ``CLASSES``.

    Two encoders of the same architecture and separate weights; the second one sees ``settings.input`` (masked, crop or
    blend; ``full`` is the ablation without segmentation: both see the image). Their tokens Z and L are joined by
    ``settings.fusion``: ``cross_attention`` Z + F, F being what ``LesionAttention`` gathers; ``none`` Z + L; ``concat``
    W [Z ; L]; ``gated`` g F + (1 - g) Z, g = sigmoid(W [Z ; F]). The mean token and the projected metadata are added
    (additive fusion), then a linear head.

    Args:
        vocabulary: of the training images; None where ``settings.metadata`` is none.
        weights: file of the backbone's weights, for either encoder; None: a random start.
    """

    def __init__(
        self,
        model: ClassificationModel,
        extraction: Extraction,
        vocabulary: MetadataVocabulary | None,
        weights: Path | None = None,
    ) -> None:
        super().__init__(model, extraction)
        self.image_encoder, self.lesion_encoder = (
            build_encoder(model.backbone, model.image_size, model.patch_size, weights) for _ in range(2)
        )
        width = self.image_encoder.width
        attends = model.fusion in ("cross_attention", "gated")
        self.attention = LesionAttention(width, model.heads) if attends else None
        self.mix = nn.Linear(2 * width, width) if model.fusion in ("concat", "gated") else None
        self.norm = nn.LayerNorm(width)
        self.metadata = None
        if model.metadata != "none":
            assert vocabulary is not None
            self.metadata = MetadataEncoder(
                vocabulary, age=model.metadata, width=METADATA_WIDTH, heads=METADATA_HEADS, layers=METADATA_LAYERS
            )
            self.metadata_project = nn.Linear(METADATA_WIDTH, width)
        self.norm_fused = nn.LayerNorm(width)
        self.dropout = nn.Dropout(model.dropout)
        self.head = nn.Linear(width, len(CLASSES))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.fix_trainable()

    @property
    def needs_metadata(self) -> bool:
        """Whether the prediction depends on metadata."""
        return self.metadata is not None

    @property
    def vocabulary(self) -> MetadataVocabulary | None:
        """What the metadata encoder knows."""
        return None if self.metadata is None else self.metadata.vocabulary

    def forward(self, images: Tensor, masks: Tensor, metadata: Tensor | None = None) -> Tensor:
        lesion, _ = prepare_input(
            images, masks, self.settings.input, blend=self.extraction.blend, margin=self.extraction.crop_margin
        )
        tokens = self.image_encoder(self.normalise(images))
        lesion_tokens = self.lesion_encoder(self.normalise(lesion))
        found = lesion_tokens if self.attention is None else self.attention(tokens, lesion_tokens)
        fused = self.norm(self._joined(tokens, found).mean(dim=1))
        if self.metadata is not None:
            if metadata is None:  # an image of which nothing is known, e.g. of ``lesion predict``
                metadata = images.new_zeros(len(images), 3)
                metadata[:, 0] = NO_AGE
            fused = fused + self.metadata_project(self.metadata(metadata))
        return self.head(self.dropout(self.norm_fused(fused)))

    def _joined(self, tokens: Tensor, found: Tensor) -> Tensor:
        if self.mix is None:
            return tokens + found
        mixed = self.mix(torch.cat([tokens, found], dim=-1))
        return mixed if self.attention is None else torch.lerp(tokens, found, torch.sigmoid(mixed))
