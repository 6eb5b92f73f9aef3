"""What `lesion export` wrote, a segmenter or a classifier: onnxruntime runs it, and nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.errors import MaskError, WeightsError
from lesion_core.inference.expected_dice import ExpectedDice
from lesion_core.pixels.resize import resize_masks
from lesion_core.settings.run import Run

KEY = "lesion"  # of the file's metadata: JSON of ``run``, ``made_from``, ``reference`` and what its kind needs
IMAGES, MASKS, METADATA = "images", "masks", "metadata"
PROBABILITY, CALIBRATED = "probability", "calibrated"
OPTIONS = {"segmentation": "--onnx", "classification": "--classifier-onnx"}


class _Exported:
    """An .onnx file, the run in it, and the histogram that images are matched to.

    Args:
        path: the .onnx file.

    Raises:
        WeightsError: it is no file of `lesion export`, of an older version, or of a run of another task.
    """

    task: str

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # images go side by side: two threads within one cost half as much CPU again
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._about = json.loads(self._session.get_modelmeta().custom_metadata_map[KEY])
            self.run = Run.model_validate(self._about["run"])
            self.made_from = str(self._about["made_from"])
            self.reference = None if self._about["reference"] is None else np.array(self._about["reference"])
        except Exception as error:  # onnxruntime's own errors share no other base
            raise WeightsError(
                f"This is no model that this version exported ({type(error).__name__}: {error})",
                file=path,
                remedy="write it again with `lesion export RUN`",
            ) from error
        if self.run.task != self.task:
            raise WeightsError(
                f"This model is of a {self.run.task} run, and one of {self.task} is needed",
                file=path,
                remedy=f"give it with {OPTIONS[self.run.task]}; `lesion export` writes the other kind too",
            )


class ExportedSegmenter(_Exported):
    """See ``segments.Segments``; a graph of uint8 (1, S, S, 3) RGB, harmonized, to float32 (1, S, S)."""

    task = "segmentation"
    prompt = "none"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.expected = ExpectedDice.read(self._about["expected_dice"])

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return self.run.segmentation.model.image_size

    def maps(self, images: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """Lesion probabilities float32 (B, S, S) of images uint8 (B, S, S, 3), one by one; ``sizes`` are not used."""
        return np.concatenate([self._session.run([PROBABILITY], {IMAGES: image[None]})[0] for image in images])


class ExportedClassifier(_Exported):
    """See ``segments.Classifies``; a graph of uint8 (1, S, S, 3) RGB, harmonized, to float32 (1, 7).

    Its further inputs, where the run has them: ``masks`` uint8 (1, S, S), soft, 0 to 255; ``metadata`` float32 (1, 3).
    """

    task = "classification"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.temperature: float | None = self._about["temperature"]
        self.learnt_on: str | None = self._about["learnt_on"]
        known = self._about["vocabulary"]
        self.vocabulary = None if known is None else MetadataVocabulary.from_bytes(np.frombuffer(known.encode(), "u1"))

    @property
    def size(self) -> int:
        """S, the side of its input in pixels."""
        return self.run.classification.model.image_size

    @property
    def needs_masks(self) -> bool:
        """Whether its predictions depend on masks."""
        return self.run.classification.model.uses_masks

    def probabilities(
        self, images: np.ndarray, masks: np.ndarray | None, metadata: np.ndarray | None, *, output: str = PROBABILITY
    ) -> np.ndarray:
        """Class probabilities float32 (N, 7), one image at a time; see ``class_probabilities``.

        Args:
            output: ``calibrated`` for those at the run's temperature.

        Raises:
            MaskError: the run needs masks and there are none.
        """
        given = {IMAGES: images}
        if self.needs_masks:
            if masks is None:
                raise MaskError("The classifier needs a mask for each image", remedy="give a segmenter")
            given[MASKS] = resize_masks(masks, self.size)
        if self.vocabulary is not None:
            assert metadata is not None
            given[METADATA] = metadata
        rows = range(len(images))
        return np.concatenate(
            [self._session.run([output], {name: value[[row]] for name, value in given.items()})[0] for row in rows]
        )
