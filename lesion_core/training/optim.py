"""AdamW and SGD.

Own optimizers, the same numbers as torch.optim's: those import torch._dynamo on first use, 4.4 s of each training job,
which is more than many of the small profile's jobs compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Optimizer:
    """Base: groups of parameters with their own weight decay, and one learning rate for all.

    Parameters without a gradient are left as they are, weight decay included, as in torch.

    Args:
        parameters: name -> parameter.
        learning_rate: to be changed through ``set_learning_rate``.
        weight_decay: of matrices and kernels only: on biases, norms and gates it would pull towards a wrong prior.
    """

    moments: tuple[str, ...] = ()

    def __init__(self, parameters: Mapping[str, Tensor], *, learning_rate: float, weight_decay: float) -> None:
        self.names = sorted(parameters)
        self.parameters = [parameters[name] for name in self.names]
        groups = {True: ([], weight_decay), False: ([], 0.0)}
        for parameter in self.parameters:
            groups[parameter.ndim >= 2][0].append(parameter)
        # torch's own name and form: its GradScaler reads them.
        self.param_groups: list[dict[str, Any]] = [
            {"params": members, "weight_decay": decay, "lr": learning_rate} for members, decay in groups.values()
        ]
        self._state: dict[Tensor, dict[str, Any]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            members = [parameter for parameter in group["params"] if parameter.grad is not None]
            if members:
                self._update(members, [item.grad for item in members], group["lr"], group["weight_decay"])

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Steps and moments by parameter name, of those that were updated at least once."""
        named = zip(self.names, self.parameters, strict=True)
        return {name: dict(self._state[item]) for name, item in named if item in self._state}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Put a ``state_dict`` back, on the parameters' device."""
        named = dict(zip(self.names, self.parameters, strict=True))
        self._state = {
            named[name]: {
                key: value.to(named[name].device, copy=True) if isinstance(value, Tensor) else value
                for key, value in entry.items()
            }
            for name, entry in state.items()
        }

    def _moments(self, members: list[Tensor]) -> tuple[list[int], list[list[Tensor]]]:
        """Count the step; the number of steps of each parameter, and the moments, zero at the start."""
        for parameter in members:
            if parameter not in self._state:
                zeros = {name: torch.zeros_like(parameter) for name in self.moments}
                self._state[parameter] = {"step": 0, **zeros}
            self._state[parameter]["step"] += 1
        steps = [self._state[parameter]["step"] for parameter in members]
        return steps, [[self._state[parameter][name] for parameter in members] for name in self.moments]

    def _update(self, members: list[Tensor], gradients: list[Tensor], rate: float, decay: float) -> None:
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019), betas 0.9 and 0.999, epsilon 1e-8."""

    moments = ("first", "second")
    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def _update(self, members: list[Tensor], gradients: list[Tensor], rate: float, decay: float) -> None:
        beta1, beta2 = self.BETAS
        steps, (first, second) = self._moments(members)
        torch._foreach_mul_(members, 1.0 - rate * decay)
        torch._foreach_lerp_(first, gradients, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1.0 - beta2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, [math.sqrt(1.0 - beta2**step) for step in steps])
        torch._foreach_add_(scale, self.EPSILON)
        torch._foreach_addcdiv_(members, first, scale, [-rate / (1.0 - beta1**step) for step in steps])


class SGD(Optimizer):
    """Stochastic gradient descent with heavy-ball momentum and weight decay added to the gradient."""

    moments = ("momentum",)

    def __init__(self, parameters: Mapping[str, Tensor], *, momentum: float, **options: float) -> None:
        super().__init__(parameters, **options)
        self.momentum = momentum

    def _update(self, members: list[Tensor], gradients: list[Tensor], rate: float, decay: float) -> None:
        _, (velocity,) = self._moments(members)
        if decay:
            gradients = torch._foreach_add(gradients, members, alpha=decay)
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_add_(velocity, gradients)
        torch._foreach_add_(members, velocity, alpha=-rate)


def build_optimizer(
    parameters: Mapping[str, Tensor],
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
) -> Optimizer:
    """An optimizer by its name in the settings, ``adamw`` or ``sgd``; ``momentum`` is SGD's.

    Raises:
        ValueError: another name.
    """
    options = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    if name == "adamw":
        return AdamW(parameters, **options)
    if name == "sgd":
        return SGD(parameters, momentum=momentum, **options)
    raise ValueError(f"unknown optimizer {name!r}; known: adamw, sgd")
