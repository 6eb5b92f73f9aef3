"""How predictions are compared with the truth, and what is looked at beside the scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesion_core.settings.base import Count, Dataset, Distinct, Fraction, NotNegative, Positive, Prompt, Strict, Whole


class AutomaticMasks(Strict):
    """Lesions from SAM's automatic masks: a grid of points, thresholds of estimated IoU and stability."""

    points_per_side: Count
    predicted_iou: Fraction
    stability: Fraction
    stability_offset: NotNegative


class Scoring(Strict):
    """How a prediction is compared with the truth."""

    segmentation_on: Distinct[Dataset]
    classification_on: Distinct[Dataset]
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    zero_shot_prompts: list[Prompt]
    automatic_masks: AutomaticMasks
    box_jitter: Fraction
    refine: bool
    batch_size: Count

    @model_validator(mode="after")
    def _unprompted_first(self) -> Scoring:
        if "none" not in self.prompts:
            raise ValueError("prompts must contain none: masks, tables and the automatic box rest on it")
        return self


class Explain(Strict):
    """Where networks look: maps of test images against the true masks."""

    methods: list[str]
    seeds: Count
    images: Count
    tolerance: NotNegative
    prior_sigma: Positive
    examples: Whole
    seed: int


class Subgroups(Strict):
    """Classification metrics by sex, age, site and how the diagnosis was confirmed."""

    methods: list[str]
    age_bands: Annotated[list[Positive], Field(min_length=1)]
    resamples: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _bands_ascend(self) -> Subgroups:
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError("age_bands must ascend")
        return self


Corruption = Literal["blur", "noise", "jpeg", "brightness", "hair", "colour_cast"]


class Robustness(Strict):
    """Which methods are scored on corrupted images, and how strong the corruptions are."""

    methods: list[str]
    seeds: Count
    images: Count | None
    corruptions: dict[Corruption, Annotated[list[NotNegative], Field(min_length=1)]]

    @model_validator(mode="after")
    def _strengths_grow(self) -> Robustness:
        for kind, amounts in self.corruptions.items():
            if sorted(set(amounts)) != amounts:
                raise ValueError(f"the amounts of {kind} must grow")
        if max(self.corruptions.get("jpeg", [0.0])) > 99:
            raise ValueError("jpeg: the quality is 100 - amount and must stay positive")
        return self
