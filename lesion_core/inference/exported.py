"""A segmenter that `lesion export` wrote: onnxruntime runs it, and nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

from lesion_core.errors import WeightsError
from lesion_core.settings import SegmentationMethod
from lesion_core.settings.run import Run

KEY = "lesion"  # of the file's metadata: JSON of ``run`` and ``reference``
INPUT, OUTPUT = "images", "probability"


class ExportedSegmenter:
    """See ``predict.Segments``; a graph of uint8 (1, S, S, 3) RGB, harmonized, to float32 (1, S, S).

    Args:
        path: the .onnx file.

    Raises:
        WeightsError: it is no file of `lesion export`, or of an older version.
    """

    prompt = "none"

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            about = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
            self.run = Run.model_validate(about["run"])
            self.reference = None if about["reference"] is None else np.array(about["reference"])
        except Exception as error:  # onnxruntime's own errors share no other base
            raise WeightsError(
                f"This is no model that this version exported ({type(error).__name__}: {error})",
                file=path,
                remedy="write it again with `lesion export RUN`",
            ) from error

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return cast(SegmentationMethod, self.run.spec).model.image_size

    def maps(self, images: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Lesion probabilities float32 (B, S, S) of images uint8 (B, S, S, 3), one by one; ``sizes`` are not used."""
        return np.concatenate([self._session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])
