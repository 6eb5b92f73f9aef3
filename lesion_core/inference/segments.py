"""What prediction needs of a segmenter and a classifier, whatever runs them; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.settings.run import Run

# an image's name without ending, its pixels uint8 (H, W, 3), its probability map float32 (S, S) -> columns
Classify = Callable[[str, np.ndarray, np.ndarray], dict[str, Any]]
# images uint8 (B, S, S, 3), harmonized, and the (height, width) they had -> probabilities float32 (B, S, S)
Maps = Callable[[np.ndarray, Sequence[tuple[int, int]]], np.ndarray]


class Segments(Protocol):
    """A segmenter as prediction needs it: a `LoadedSegmenter`, or an exported one without torch."""

    @property
    def run(self) -> Run:
        """Its segmentation run."""

    @property
    def reference(self) -> np.ndarray | None:
        """The histogram that its images are matched to, (3, 256) float64."""

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""

    @property
    def prompt(self) -> str:
        """What it is prompted with; RunError where a person would have to click."""

    def maps(self, images: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Probabilities float32 (B, S, S) of images uint8 (B, S, S, 3) that were resized from (height, width)."""


class Classifies(Protocol):
    """A classifier as prediction needs it: a `classify.RunClassifier`, or an exported one without torch."""

    run: Run
    """Its classification run."""

    reference: np.ndarray | None
    """The histogram that its images are matched to, (3, 256) float64."""

    vocabulary: MetadataVocabulary | None
    """What it learnt of age, sex and site; None if it reads none."""

    temperature: float | None
    """Fitted to validation images when the run was scored."""

    learnt_on: str | None
    """Id of the run whose masks it learnt on."""

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""

    @property
    def needs_masks(self) -> bool:
        """Whether its predictions depend on masks."""

    def probabilities(self, images: np.ndarray, masks: np.ndarray | None, metadata: np.ndarray | None) -> np.ndarray:
        """Class probabilities (N, 7); see ``class_probabilities``."""
