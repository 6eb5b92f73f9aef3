"""Clinical metadata through a transformer encoder (paper C): one token per field, "not known" a token of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lesion_core.catalog.metadata import FIELDS, MetadataVocabulary
from lesion_core.errors import SettingsError
from lesion_core.models.backbones import TransformerLayer

AGE_MODES = ("binned", "continuous")
AGE_BIN_YEARS = 10.0
AGE_BINS = 12  # 0-9, 10-19, ..., 110 and more: fixed, so that no other image's age decides a bin


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
        if age not in AGE_MODES:
            raise SettingsError(f"Unknown age encoding {age!r}", remedy=f"choose one of {', '.join(AGE_MODES)}")
        self.vocabulary, self.age = vocabulary, age
        # row 0 of each table is the token of a value that is not known
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
