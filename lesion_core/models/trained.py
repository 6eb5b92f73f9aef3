"""A trained run's folder as a model ready to use: a segmenter or a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.errors import RunError, WeightsError, about
from lesion_core.models.classical import ColourHistogram, Majority, load_classical
from lesion_core.models.classifier import ClassifierModule
from lesion_core.models.registry import build_classifier, build_segmenter
from lesion_core.models.sam.frame import PaddedSam
from lesion_core.models.sam.prompts import Prompts, automatic_prompts
from lesion_core.models.trainable import finish, to_input
from lesion_core.paths import Layout
from lesion_core.settings import NETWORKS, ClassificationMethod, SegmentationMethod, SegmentationModel
from lesion_core.settings.run import Run

PACKAGED = Path(__file__).resolve().parent.parent / "weights"
REFERENCE_KEY = "harmonization.reference"
VOCABULARY_KEY = "metadata_vocabulary"
SEGMENTER_PREFIX = "segmenter."  # of a joint run's tensors, as the next one
CLASSIFIER_PREFIX = "classifier."


@dataclass(frozen=True)
class LoadedSegmenter:
    """A segmentation model in evaluation mode, its run, and the histogram its images were matched to.

    Attributes:
        model: forward(images float32 (B, 3, S, S) in 0..255, prompts) -> logits (B, 1, s, s).
        run: the segmentation run (for a joint run: the segmentation run it started from).
        reference: (3, 256) float64 reference histogram, or None where the run used none.
    """

    model: Any
    run: Run
    reference: np.ndarray | None

    @property
    def size(self) -> int:
        """Side length S of the model's square input, in pixels."""
        return self.settings.image_size

    @property
    def settings(self) -> SegmentationModel:
        """What the model was built from."""
        return cast(SegmentationMethod, self.run.spec).model

    @property
    def prompt(self) -> str:
        """What it is prompted with outside scoring: ``none``, or ``automatic`` where it learnt with boxes.

        Raises:
            RunError: it learnt with clicks, which this command cannot provide.
        """
        prompt = self.settings.unaided_prompt
        if prompt is None:
            raise RunError(
                f"{self.run.run_id} learnt to segment from clicks ({self.settings.prompt}), and predict cannot provide"
                " clicks",
                remedy="choose a run whose model.prompt is none or oracle_box",
            )
        return prompt

    def maps(self, images: np.ndarray, sizes: Sequence[tuple[int, int]], prompts: Prompts | None = None) -> np.ndarray:
        """Lesion probabilities at the model's size, under its own ``prompt``.

        Args:
            images: uint8 (B, S, S, 3) RGB, harmonized.
            sizes: (height, width) of the images that they were resized from, in pixels.
            prompts: a person's, one for each image, in place of its own.

        Returns:
            float32 (B, S, S) in [0, 1]; logits upsampled bilinearly before the sigmoid.
        """
        model = self.facing(sizes)
        given = to_input(images, next((one.device for one in self.model.parameters()), torch.device("cpu")))
        with torch.inference_mode():
            if prompts is not None or self.prompt == "none":
                return finish(model(given, prompts), self.size)
            embeddings = model.encode(given)
            unprompted = finish(model.decode(embeddings, None), self.size)
            boxes = automatic_prompts(unprompted, threshold=self.run.extraction.threshold)
            return finish(model.decode(embeddings, boxes), self.size)

    def facing(self, sizes: Sequence[tuple[int, int]]) -> Any:
        """The model as it sees images of these (height, width), resized as they come: in SAM's frame if it is so.

        Images that are square fill both frames alike.
        """
        if self.settings.frame == "resized" or all(height == width for height, width in sizes):
            return self.model
        return PaddedSam(self.model, sizes)


def starting_weights(name: str | None, weights_dir: Path) -> Path | None:
    """Where published weights lie, by ``settings.pretrained.weights_name``: the results folder, then the package.

    Raises:
        WeightsError: they are in neither place.
    """
    if name is None:
        return None
    places = [folder / f"{name}.safetensors" for folder in (Path(weights_dir), PACKAGED)]
    for place in places:
        if place.is_file():
            return place
    raise WeightsError(
        f"Weights of {name} not found",
        file=places[0],
        remedy=f"run the rule that fetches them: snakemake results/<profile>/weights/{name}.safetensors",
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's weights.safetensors.

    Raises:
        RunError: the file is missing.
        WeightsError: the file is not a safetensors file.
    """
    if not Path(path).is_file():
        raise RunError("The run has no weights", file=path, remedy="train the run first")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"Weights cannot be read: {error}", file=path, remedy="train the run again") from error


def with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _opened(run_dir: Path, task: str, prefix: str) -> tuple[Run, dict[str, torch.Tensor], np.ndarray | None]:
    """The run of a task in a folder, of a joint run the one it started from; its tensors; its reference histogram."""
    run, tensors = Run.load(run_dir), read_tensors(run_dir / "weights.safetensors")
    if run.task == "joint":
        reference = tensors.pop(SEGMENTER_PREFIX + REFERENCE_KEY, None)
        start = run.segmenter_run if task == "segmentation" else run.classifier_run
        run, tensors = Run.load(Layout.of_run(run_dir).run(task, str(start))), with_prefix(tensors, prefix)
    elif run.task == task:
        reference = tensors.pop(REFERENCE_KEY, None)
    else:
        told = f"{run.run_id} is a {run.task} run, not one of {task}"
        raise RunError(told, file=run_dir, remedy=f"give a {task} run, or a joint one")
    return run, tensors, None if reference is None else reference.numpy()


def load_segmenter(run_dir: Path, weights_dir: Path | None = None, device: str = "cpu") -> LoadedSegmenter:
    """Build a segmentation (or joint) run's model and load its weights strictly.

    Args:
        run_dir: ``results/<profile>/runs/<place>/<run_id>``.
        weights_dir: folder of foundation weights; None: ``results/<profile>/weights`` of that run.

    Raises:
        RunError: the folder is not a segmentation or joint run.
        WeightsError: tensors are missing, renamed or of another shape.
    """
    run_dir = Path(run_dir)
    start, tensors, reference = _opened(run_dir, "segmentation", SEGMENTER_PREFIX)
    settings = cast(SegmentationMethod, start.spec).model
    # the stored weights hold all that is learnt: of what is published, SAM's frozen parts alone are needed
    weights = starting_weights(settings.backbone, weights_dir or Layout.of_run(run_dir).root / "weights")
    model = build_segmenter(settings, weights, start.seed)
    with about(run_dir / "weights.safetensors"):
        model.load_trainable_state(tensors)
    model.eval().to(device)
    return LoadedSegmenter(model, start, reference)


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier in evaluation mode, its run, and the histogram its images were matched to.

    Attributes:
        model: what ``class_probabilities`` takes.
        run: the classification run (for a joint run: the classification run it started from).
        reference: (3, 256) float64 reference histogram, or None where the run used none.
    """

    model: ClassifierModule | Majority | ColourHistogram
    run: Run
    reference: np.ndarray | None

    @property
    def size(self) -> int:
        """Side length S of the model's square input, in pixels."""
        return cast(ClassificationMethod, self.run.spec).model.image_size

    @property
    def needs_masks(self) -> bool:
        """Whether its predictions depend on masks."""
        return self.model.needs_masks

    @property
    def vocabulary(self) -> MetadataVocabulary | None:
        """What it learnt of age, sex and site; None if it reads no metadata."""
        return getattr(self.model, "vocabulary", None)

    def metadata(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """Index records as float32 (N, 3), as the model was taught to read them; None if it reads no metadata."""
        return None if self.vocabulary is None else self.vocabulary.encode(records)


def load_classifier(run_dir: Path, device: str = "cpu") -> LoadedClassifier:
    """Build a classification (or joint) run's classifier and load its weights strictly.

    Args:
        run_dir: ``results/<profile>/runs/<place>/<run_id>``; a joint run needs its starting run beside it.

    Raises:
        RunError: the folder is not a classification or joint run.
        WeightsError: tensors are missing, renamed or of another shape.
    """
    run_dir = Path(run_dir)
    run, tensors, reference = _opened(run_dir, "classification", CLASSIFIER_PREFIX)
    settings = cast(ClassificationMethod, run.spec).model
    model: Any
    if settings.kind in NETWORKS:
        model = build_classifier(settings, run.extraction, seed=run.seed, vocabulary=_vocabulary(tensors))
        with about(run_dir / "weights.safetensors"):
            model.load_trainable_state(tensors)
        model.eval().to(device)
    else:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        model = load_classical(settings.kind, arrays, masked=settings.input != "full")
    return LoadedClassifier(model, run, reference)


def _vocabulary(tensors: dict[str, torch.Tensor]) -> MetadataVocabulary | None:
    """Take the metadata vocabulary out of a run's tensors, if it has one."""
    content = tensors.pop(VOCABULARY_KEY, None)
    return None if content is None else MetadataVocabulary.from_bytes(content.numpy())
