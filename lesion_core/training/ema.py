"""The exponential moving average of what is learnt (Polyak averaging); validated and kept in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """average <- d_t average + (1 - d_t) value after each step, d_t = min(decay, (1 + t) / (10 + t)), t from 0.

    The young average forgets the start quickly (the warm-up of TensorFlow's ExponentialMovingAverage).

    Args:
        tensors: name -> parameter or floating buffer; the average starts as their copy.
        decay: 0..1, both excluded.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.names = sorted(tensors)
        self.values = [tensors[name] for name in self.names]
        self.average = [value.detach().clone() for value in self.values]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the values after 0-based ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [value.detach() for value in self.values], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average in the values' place; they come back at the end to the bit."""
        kept = [value.detach().clone() for value in self.values]
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU, by name."""
        return {name: value.to("cpu", copy=True) for name, value in zip(self.names, self.average, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put a ``state_dict`` back."""
        for name, value in zip(self.names, self.average, strict=True):
            value.copy_(state[name])

    @torch.no_grad()
    def _put(self, tensors: list[Tensor]) -> None:
        for value, new in zip(self.values, tensors, strict=True):
            value.copy_(new)
