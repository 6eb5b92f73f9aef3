"""A trained run's folder as a model ready to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lesion_core.errors import RunError, WeightsError, about
from lesion_core.settings.run import Run

if TYPE_CHECKING:
    import torch

    from lesion_core.models.sam.frame import PaddedSam

PACKAGED = Path(__file__).resolve().parent.parent / "weights"
REFERENCE_KEY = "harmonization.reference"


@dataclass(frozen=True)
class LoadedSegmenter:
    """A segmentation model in evaluation mode, its run, and the histogram its images were matched to.

    Attributes:
        model: forward(images float32 (B, 3, S, S) in 0..255, prompts) -> logits (B, 1, s, s).
        run: the segmentation run (for a joint run: the segmentation run it started from).
        reference: (3, 256) float64 reference histogram, or None where the run used none.
    """

    model: torch.nn.Module
    run: Run
    reference: np.ndarray | None

    @property
    def size(self) -> int:
        """Side length S of the model's square input, in pixels."""
        return self.run.spec.model.image_size

    def facing(self, sizes: Sequence[tuple[int, int]]) -> torch.nn.Module | PaddedSam:
        """The model as it sees photographs of these (height, width), squeezed as they come: in SAM's frame if it is so.

        Photographs that are square fill both frames alike.
        """
        if self.run.spec.model.frame == "squeezed" or all(height == width for height, width in sizes):
            return self.model
        from lesion_core.models.sam.frame import PaddedSam

        return PaddedSam(self.model, sizes)


def foundation_weights(backbone: str | None, weights_dir: Path | None) -> Path | None:
    """Where a foundation model's weights lie: the results folder first, then the package.

    Raises:
        WeightsError: they are in neither place.
    """
    if backbone is None:
        return None
    places = [] if weights_dir is None else [Path(weights_dir) / f"{backbone}.safetensors"]
    places.append(PACKAGED / f"{backbone}.safetensors")
    for place in places:
        if place.is_file():
            return place
    raise WeightsError(
        f"Weights of {backbone} not found",
        file=places[0],
        remedy=f"run the rule that fetches them: snakemake results/<profile>/weights/{backbone}.safetensors",
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's weights.safetensors.

    Raises:
        RunError: the file is missing.
        WeightsError: the file is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise RunError("The run has no weights", file=path, remedy="train the run first")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"Weights cannot be read: {error}", file=path, remedy="train the run again") from error


def load_segmenter(
    run_dir: Path, weights_dir: Path | None = None, device: str = "cpu", *, attention: str | None = None
) -> LoadedSegmenter:
    """Build a segmentation (or joint) run's model and load its weights strictly.

    Args:
        run_dir: ``results/<profile>/runs/<place>/<run_id>``.
        weights_dir: folder of foundation weights; None: ``results/<profile>/weights`` of that run.
        device: ``cpu`` or ``cuda``.
        attention: another path through SAM's attention than the run's own (``reference`` shows its matrix).

    Raises:
        RunError: the folder is not a segmentation or joint run.
        WeightsError: tensors are missing, renamed or of another shape.
    """
    from lesion_core.models.registry import build_segmenter

    run_dir = Path(run_dir)
    run = Run.load(run_dir)
    tensors = read_tensors(run_dir / "weights.safetensors")
    if run.task == "joint":
        start = Run.load(run_dir.parents[1] / "segmentation" / str(run.segmenter_run))
        tensors = {key.removeprefix("segmenter."): value for key, value in tensors.items() if key[:10] == "segmenter."}
    elif run.task == "segmentation":
        start = run
    else:
        raise RunError(
            f"{run.run_id} is a {run.task} run; a segmenter is needed", file=run_dir, remedy="give a segmentation run"
        )
    reference = tensors.pop(REFERENCE_KEY, None)
    weights = foundation_weights(start.spec.model.backbone, weights_dir or run_dir.parents[2] / "weights")
    spec = start.spec.model
    if attention is not None and spec.kind == "sam":
        spec = spec.model_copy(update={"attention": attention})
    model = build_segmenter(spec, weights, start.seed, pretrained=False)
    with about(run_dir / "weights.safetensors"):
        model.load_trainable_state(tensors)
    model.eval().to(device)
    return LoadedSegmenter(model=model, run=start, reference=None if reference is None else reference.cpu().numpy())
