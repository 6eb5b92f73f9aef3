"""What every segmenter shares: which tensors it learns, and how they are kept and restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from lesion_core.models.sam.network import check_state


class Segmenter(nn.Module):
    """Base of the segmenters: ``forward(images, prompts) -> logits``, and strict access to what is learnt.

    What is learnt is what required a gradient when construction ended (``fix_trainable``); freezing a parameter
    later, e.g. for a phase of joint training, does not change what is saved.
    """

    smallest_batch = 1
    """Samples that a forward pass in training needs, see ``SegmentationModel.smallest_batch``."""
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
