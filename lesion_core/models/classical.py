"""Honest floors for the classifiers: the majority class, and a colour histogram under logistic regression.

Both are fitted in seconds, keep their parameters as plain arrays and predict with NumPy (and OpenCV for the
colour space).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression

from lesion_core.errors import WeightsError
from lesion_core.metrics.classification import balanced_accuracy
from lesion_core.settings import CLASSES

BINS = 16
HSV_RANGES = (180.0, 256.0, 256.0)
# smallest first: among equals the more regularised model wins
INVERSE_REGULARISATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def colour_histogram(image: np.ndarray, mask: np.ndarray | None = None, bins: int = BINS) -> np.ndarray:
    """Square roots of the normalised histograms of hue, saturation and value.

    Args:
        image: uint8 (S, S, 3) RGB. mask: uint8 (S, S), lesion where >= 128, or None for the whole image; an
            empty mask counts as None.
        bins: per channel, evenly spaced over OpenCV's ranges (hue 0..179, saturation and value 0..255).

    Returns:
        float32 (3 * bins,); the squares of each channel's part sum to 1 (Hellinger map).
    """
    pixels = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV).reshape(-1, 3)
    if mask is not None:
        lesion = np.asarray(mask).reshape(-1) >= 128
        if lesion.any():
            pixels = pixels[lesion]
    parts = []
    for channel, span in enumerate(HSV_RANGES):
        place = (pixels[:, channel] * (bins / span)).astype(np.int64)
        parts.append(np.bincount(place, minlength=bins))
    return np.sqrt(np.concatenate(parts) / len(pixels)).astype(np.float32)


class Majority:
    """Gives every image the training set's class frequencies, so that it predicts the most frequent class."""

    needs_masks = False

    def __init__(self, frequencies: np.ndarray) -> None:
        self.frequencies = np.asarray(frequencies, np.float64)

    @classmethod
    def fit(cls, labels: np.ndarray) -> Majority:
        """From training labels, int (N,) in 0..6."""
        counts = np.bincount(labels, minlength=len(CLASSES))
        return cls(counts / counts.sum())

    def class_probabilities(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, 7); the pixels are not looked at."""
        return np.tile(self.frequencies, (len(images), 1)).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """The parameters."""
        return {"frequencies": self.frequencies}


class ColourHistogram:
    """Multinomial logistic regression on standardised colour histograms, classes weighted by 1 / n_c.

    Args:
        state: mean and scale, float64 (48,); coefficients (7, 48); intercept (7,).
        masked: histogram of the lesion alone instead of the whole image.
    """

    def __init__(self, state: dict[str, np.ndarray], *, masked: bool) -> None:
        self.mean, self.scale = state["mean"], state["scale"]
        self.coefficients, self.intercept = state["coefficients"], state["intercept"]
        self.needs_masks = masked

    @classmethod
    def fit(
        cls,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        *,
        masked: bool,
        strengths: Sequence[float] = INVERSE_REGULARISATIONS,
    ) -> tuple[ColourHistogram, list[dict[str, float]]]:
        """Fit one model per C and keep the one with the best balanced accuracy on validation, ties to the
        smaller C.

        Args:
            train, validation: features float32 (N, 48) of ``colour_histogram`` and labels int (N,) in 0..6;
                every class must occur in ``train``.
            masked: how the features were made; kept for prediction.

        Returns:
            The model, and a row {"c", "val_balanced_accuracy"} per candidate.
        """
        features, labels = np.asarray(train[0], np.float64), train[1]
        # the floor on the scale keeps nearly empty bins from shouting
        state = {"mean": features.mean(axis=0), "scale": features.std(axis=0) + 1e-3}
        found: list[tuple[float, ColourHistogram]] = []
        rows = []
        for strength in strengths:
            regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
            regression.fit((features - state["mean"]) / state["scale"], labels)
            model = cls({**state, "coefficients": regression.coef_, "intercept": regression.intercept_}, masked=masked)
            predicted = model.probabilities_of(validation[0]).argmax(axis=1)
            score = balanced_accuracy(validation[1], predicted)
            rows.append({"c": strength, "val_balanced_accuracy": score})
            found.append((score, model))
        return max(found, key=lambda item: item[0])[1], rows

    def probabilities_of(self, features: np.ndarray) -> np.ndarray:
        """Features (N, 48) -> softmax probabilities float32 (N, 7)."""
        scores = (features - self.mean) / self.scale @ self.coefficients.T + self.intercept
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)

    def class_probabilities(self, images: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        """uint8 (N, S, S, 3) and, if ``needs_masks``, uint8 (N, S, S) -> float32 (N, 7)."""
        chosen = masks if self.needs_masks and masks is not None else [None] * len(images)
        features = [colour_histogram(image, mask) for image, mask in zip(images, chosen, strict=True)]
        return self.probabilities_of(np.stack(features))

    def state(self) -> dict[str, np.ndarray]:
        """The parameters."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "coefficients": np.asarray(self.coefficients),
            "intercept": np.asarray(self.intercept),
        }


SHAPES = {
    "majority": {"frequencies": (len(CLASSES),)},
    "color_histogram": {
        "mean": (3 * BINS,),
        "scale": (3 * BINS,),
        "coefficients": (len(CLASSES), 3 * BINS),
        "intercept": (len(CLASSES),),
    },
}


def load_classical(kind: str, state: dict[str, np.ndarray], *, masked: bool) -> Majority | ColourHistogram:
    """A fitted baseline from its parameters.

    Raises:
        WeightsError: tensors are missing, superfluous or of another shape.
    """
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != SHAPES[kind]:
        raise WeightsError(
            f"These weights do not fit {kind}: found {found}, expected {SHAPES[kind]}", remedy="train the run again"
        )
    if kind == "majority":
        return Majority(state["frequencies"])
    return ColourHistogram(state, masked=masked)
