"""The dual network with clinical metadata (paper C): photograph and segmented lesion, cross-attention, metadata."""

from __future__ import annotations

from torch import Tensor, nn

from lesion_core.catalog.metadata import NO_AGE, MetadataVocabulary
from lesion_core.errors import SettingsError
from lesion_core.models.backbones import build_encoder
from lesion_core.models.classifier import ClassifierModule, prepare_input
from lesion_core.models.metadata import MetadataEncoder
from lesion_core.settings import CLASSES, ClassificationModel, Extraction

METADATA_WIDTH = 128  # ours: length of the metadata tokens
METADATA_HEADS = 4
METADATA_LAYERS = 2


class LesionAttention(nn.Module):
    """F = softmax(Q K' / sqrt(d_head)) V: Q and V from the photograph, K from the segmented lesion (paper C).

    Tokens (B, T, d) of both encoders -> (B, T, d). Where the lesion's tokens resemble a token's query, the photograph's
    own features at those places are gathered.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise SettingsError(
                f"A token length of {width} does not divide into {heads} heads",
                remedy="choose model.heads that divide the backbone's token length",
            )
        self.heads = heads
        self.norm_image, self.norm_lesion = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)

    def forward(self, image_tokens: Tensor, lesion_tokens: Tensor) -> Tensor:
        def split(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        image, lesion = self.norm_image(image_tokens), self.norm_lesion(lesion_tokens)
        query, key, value = split(self.query(image)), split(self.key(lesion)), split(self.value(image))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.project(attended.transpose(1, 2).flatten(2))


class DualNetwork(ClassifierModule):
    """forward(images (B, 3, S, S) float32 RGB 0..255, soft masks (B, 1, S, S) float32 0..1, metadata (B, 3) or None)
    -> logits (B, 7), order ``CLASSES``.

    Two encoders of the same architecture and separate weights; the second one sees ``settings.input`` (masked, crop or
    blend; ``full`` is the ablation without segmentation: both see the photograph). With ``fusion: cross_attention`` the
    photograph's tokens gain what ``LesionAttention`` gathers, without it (``none``) the lesion's tokens are added. The
    mean token and the projected metadata are added (additive fusion), then a linear head.

    Args:
        vocabulary: of the training images; None where ``settings.metadata`` is none.
    """

    def __init__(
        self, model: ClassificationModel, extraction: Extraction, vocabulary: MetadataVocabulary | None
    ) -> None:
        super().__init__(model, extraction)
        self.image_encoder, self.lesion_encoder = (
            build_encoder(model.backbone, model.image_size, model.patch_size, pretrained=model.pretrained)
            for _ in range(2)
        )
        width = self.image_encoder.width
        self.attention = LesionAttention(width, model.heads) if model.fusion == "cross_attention" else None
        self.norm = nn.LayerNorm(width)
        self.metadata = None
        if model.metadata != "none":
            if vocabulary is None:
                raise SettingsError("A network with metadata needs the training images' vocabulary")
            self.metadata = MetadataEncoder(
                vocabulary, age=model.metadata, width=METADATA_WIDTH, heads=METADATA_HEADS, layers=METADATA_LAYERS
            )
            self.metadata_project = nn.Linear(METADATA_WIDTH, width)
        self.norm_fused = nn.LayerNorm(width)
        self.dropout = nn.Dropout(model.dropout)
        self.head = nn.Linear(width, len(CLASSES))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

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
        tokens = tokens + (lesion_tokens if self.attention is None else self.attention(tokens, lesion_tokens))
        fused = self.norm(tokens.mean(dim=1))
        if self.metadata is not None:
            if metadata is None:  # a photograph of which nothing is known, e.g. of ``lesion predict``
                metadata = images.new_zeros(len(images), 3)
                metadata[:, 0] = NO_AGE
            fused = fused + self.metadata_project(self.metadata(metadata))
        return self.head(self.dropout(self.norm_fused(fused)))
