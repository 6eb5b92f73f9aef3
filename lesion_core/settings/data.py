"""Where images come from and what is done to them before any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.base import Count, Dataset, Distinct, Fraction, NotNegative, Positive, Strict, Whole


class Synthetic(Strict):
    """Synthetic images for the smoke profile and for pretraining."""

    seed: int
    size: Annotated[int, Field(ge=32)]
    isic2018_task1: Count
    ham10000_lesions: Count
    images_per_lesion: Annotated[float, Field(ge=1.0)]
    isic2018_task3: Count
    ph2: Count
    official_test: Whole = 0  # images of the test part of Task 1, and of Task 3


class Custom(Strict):
    """A user's own dataset: a folder of images, optional masks, and a CSV."""

    images: str
    csv: str
    masks: str | None = None
    licence: str = "not stated"


class Data(Strict):
    """Which datasets take part, and where they come from."""

    datasets: Annotated[Distinct[Dataset], Field(min_length=1)]
    ph2: str | None
    custom: Custom | None
    retries: Whole
    timeout_seconds: Positive


class Views(Strict):
    """Search for other images of one lesion: local features that agree on a map, and pixels that agree under it."""

    features: Annotated[int, Field(ge=8)] = 200
    candidates: Count = 4
    min_votes: Count = 3
    ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    reprojection: Positive = 4.0
    min_agreement: Positive = 4.0


class Duplicates(Strict):
    """Near-duplicate search: perceptual-hash candidates, verified on pixels; and other views of a lesion."""

    # Keys looked up grow with binomial(20, max_hamming / 4).
    max_hamming: Annotated[int, Field(ge=0, le=15)]
    min_correlation: Fraction
    views: Views = Views()


class Splits(Strict):
    """What both split rules share. ``scale_counts``: a paper's image counts are scaled to the images that there are."""

    seed: int
    train: Positive
    val: Positive
    test: Positive
    scale_counts: bool = False

    @model_validator(mode="after")
    def _sums_to_one(self) -> Splits:
        if abs(self.train + self.val + self.test - 1.0) > 1e-9:
            raise ValueError("train, val and test must add up to 1")
        return self


Rule = Literal["leak_free", "as_published"]
SplitCounts = Annotated[list[Whole], Field(min_length=3, max_length=3)]
# A release's own parts, or images [train, val, test] drawn by image; what is not named is drawn by the common shares.
Parts = dict[Dataset, Literal["release"] | SplitCounts]


class SplitRule(Splits):
    """All that the split tables of one protocol under one rule depend on, beside the images.

    Attributes:
        rule: ``leak_free``: by group across all datasets; ``as_published``: each dataset by itself.
        datasets: that are split together; none under ``as_published``.
        parts: of ``as_published``.
    """

    rule: Rule
    datasets: list[Dataset] = Field(default_factory=list)
    parts: Parts = Field(default_factory=dict)


Colour = Literal["none", "grey_world", "shades_of_grey"]


class Harmonization(Strict):
    """What is done to pixels and masks. ``reference_from``: whose training images make the reference histogram."""

    histogram: Literal["specification", "none"]
    colour: Colour
    hair_removal: bool
    mask_closing: Whole
    mask_min_component: Fraction
    mask_smoothing: NotNegative
    soft_mask_sigma: NotNegative
    reference_size: Count = 512
    scaled_decoding: bool = False
    colour_for: dict[Dataset, Colour] = Field(default_factory=dict)
    reference_from: Distinct[Dataset] = Field(default_factory=list)

    @model_validator(mode="after")
    def _hair_needs_every_pixel(self) -> Harmonization:
        if self.scaled_decoding and self.hair_removal:
            raise ValueError("scaled_decoding must be false with hair_removal: hair is sought at full resolution")
        return self

    def correction(self, datasets: Sequence[str]) -> Colour:
        """The colour correction that images of all of ``datasets`` share; ``colour`` if they differ."""
        own: dict[str, Colour] = dict(self.colour_for.items())
        corrections = {own.get(name, self.colour) for name in datasets}
        return corrections.pop() if len(corrections) == 1 else self.colour


class Extraction(Strict):
    """From probability map to lesion (paper A, section 3.4)."""

    threshold: Fraction
    closing: Whole
    smoothing: NotNegative
    largest_component: bool
    crop_margin: NotNegative
    blend: Fraction
