"""Classes for single photographs of any size, with the probability map of a segmenter as mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.settings import CLASSES


def photograph_classifier(run_dir: Path, device: str = "cpu") -> Callable[[np.ndarray, np.ndarray], dict[str, Any]]:
    """A function (photograph uint8 (H, W, 3), probability map float32 (S, S)) -> predicted class and p_<class>.

    Args:
        run_dir: a classification or joint run's folder.
        device: where the model is.
    """
    from lesion_core.data.harmonize import harmonize_image
    from lesion_core.inference.classify import class_probabilities, load_classifier

    loaded = load_classifier(run_dir, device=device)

    def classify(photograph: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
        pixels = harmonize_image(photograph, loaded.size, loaded.reference, loaded.run.appearance)
        soft = np.round(probability * 255).astype(np.uint8)[None] if loaded.needs_masks else None
        values = class_probabilities(loaded.model, pixels[None], soft)[0]
        return {
            "predicted": CLASSES[int(np.argmax(values))],
            **{f"p_{name}": round(float(value), 6) for name, value in zip(CLASSES, values, strict=True)},
        }

    return classify
