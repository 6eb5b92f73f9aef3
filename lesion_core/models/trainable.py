"""What models share: which tensors they learn and how these are kept; how images go in and masks come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion_core.models.weights import check_state


def to_input(images: np.ndarray, device: str | torch.device) -> Tensor:
    """(N, S, S, 3) uint8 RGB to the models' float32 (N, 3, S, S) in 0..255."""
    # a copy: torch warns of arrays that it could not write to, such as read-only memory maps
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()


def to_mask_input(masks: np.ndarray, device: str | torch.device) -> Tensor:
    """(N, S, S) uint8 soft masks to the models' float32 (N, 1, S, S) in 0..1."""
    return torch.from_numpy(np.array(masks)).to(device)[:, None].float() / 255.0


def finish(logits: Tensor, size: int) -> np.ndarray:
    """Logits (B, 1, s, s) to probabilities float32 (B, size, size)."""
    if logits.shape[-1] != size:
        logits = functional.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)
    return torch.sigmoid(logits.float())[:, 0].cpu().numpy()


class Trainable(nn.Module):
    """Strict access to what a model learns.

    What is learnt is what required a gradient when construction ended (``fix_trainable``); freezing a parameter
    later, e.g. for a phase of joint training, does not change what is saved.
    """

    _learnt: tuple[str, ...] = ()
    _kept: tuple[str, ...] = ()

    def fix_trainable(self) -> None:
        """To be called once, at the end of construction."""
        learnt = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        owners = {name.rpartition(".")[0] for name in learnt}
        persistent = self.state_dict().keys()
        # Running statistics belong to the layers that learn: without them a normalisation layer is not restored.
        buffers = [name for name, _ in self.named_buffers() if name in persistent and name.rpartition(".")[0] in owners]
        self._learnt = tuple(sorted(learnt))
        self._kept = tuple(sorted(learnt + buffers))

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of all that is learnt, sorted by name."""
        parameters = dict(self.named_parameters())
        for name in self._learnt:
            yield name, parameters[name]

    def trainable_state(self) -> dict[str, Tensor]:
        """Copies of all learnt tensors and their layers' running statistics, on the CPU, sorted by name."""
        state = self.state_dict()
        return {name: state[name].detach().to("cpu", copy=True).contiguous() for name in self._kept}

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore ``trainable_state`` in place.

        Raises:
            WeightsError: a tensor is missing, unknown, of another shape or type, or not finite; nothing is loaded.
        """
        own = self.state_dict()
        checked = check_state({name: own[name] for name in self._kept}, state)
        for name, tensor in checked.items():
            own[name].copy_(tensor)


class Segmenter(Trainable):
    """Base of the segmenters: ``forward(images, prompts) -> logits``."""

    smallest_batch = 1
    """Samples that a forward pass in training needs, see ``SegmentationModel.smallest_batch``."""
