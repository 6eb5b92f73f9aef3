"""One optimizer step: micro-batches, gradients over all processes, clipping, learning rate, moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from lesion_core.errors import SettingsError
from lesion_core.progress import say
from lesion_core.seeding import seed_torch
from lesion_core.settings import Training
from lesion_core.training.device import share
from lesion_core.training.optimizer import MovingAverage, build_optimizer, build_plateau, build_schedule
from lesion_core.training.task import TrainingTask

# Of the loss in fp16: a gradient that overflows without any enlargement is none of half precision's making.
SMALLEST_SCALE = 1.0


class Stepper:
    """All that changes the weights, with its state.

    A batch of ``batch_size * accumulation`` samples goes through the model in ``accumulation`` micro-batches; the loss
    is the mean over all samples. Of a model without noise and batch norm the number of micro-batches changes rounding
    alone. Batch norm has its statistics of one micro-batch only, and dropout and stochastic depth draw anew for each.

    Args:
        task, training, seed, device: of the fit.
        parameters: what is learnt, by name.
        total: number of steps of the whole training.
        fabric: precision and processes.
        check: called with a number and what it is; raises if it is not finite.

    Raises:
        SettingsError: activation checkpointing is asked for, and nothing in the model offers it.
    """

    def __init__(
        self,
        task: TrainingTask,
        training: Training,
        parameters: Mapping[str, Tensor],
        total: int,
        *,
        fabric: Fabric,
        seed: int,
        device: str,
        check: Callable[[float, str], None],
    ) -> None:
        if training.activation_checkpointing:
            checkpoint_activations(task.module)
        self.training, self.fabric, self.seed, self.device, self.check = training, fabric, seed, device, check
        self.smallest = getattr(task.module, "smallest_batch", 1)
        self.optimizer = build_optimizer(parameters, training)
        self.schedule = build_schedule(self.optimizer, training, total)
        self.plateau = build_plateau(self.optimizer, training, task.selection_mode)
        self.average: MovingAverage | None = None
        if training.ema_decay > 0:
            self.average = MovingAverage({**parameters, **normalisation_statistics(task.module)}, training.ema_decay)
        self.loss, self.stepping = fabric.setup(_Loss(task), self.optimizer, move_to_device=False)
        self.scaler: Any = getattr(fabric.strategy.precision, "scaler", None)
        self.forward_flop = 0  # of the last step of a rehearsal

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, batch: dict[str, Tensor], number: int, samples: int) -> dict[str, float]:
        """Take global step ``number`` with this process's share of a batch of ``samples`` samples.

        Returns:
            The history's means over the batch, ``loss`` first.

        Raises:
            RunError: a loss or gradient is not finite.
        """
        self.stepping.zero_grad()
        self.forward_flop = 0
        means = self._gradients(batch, number, samples)
        clip = self.training.gradient_clip or math.inf
        total = self.fabric.clip_gradients(self.loss, self.stepping, max_norm=clip, error_if_nonfinite=False)
        assert total is not None
        norm = float(total)
        scale = None if self.scaler is None else self.scaler.get_scale()
        if scale is None:
            self.check(norm, "gradient")
        self.stepping.step()
        if scale is not None and not math.isfinite(norm):
            self._skipped(norm, scale, number)
        else:
            self.schedule.step()
        if self.average is not None:
            self.average.update(number)
        return means

    def _gradients(self, batch: dict[str, Tensor], number: int, samples: int) -> dict[str, float]:
        """Backward through this process's samples; ``.grad`` is then the gradient of the mean over the batch."""
        processes = self.fabric.world_size
        first = share(samples, self.fabric.global_rank, processes).start
        count = len(next(iter(batch.values())))
        parts = min(self.training.accumulation, max(1, count // self.smallest))
        sums: dict[str, float] = {}
        for index in range(parts):
            part = share(count, index, parts)
            place = first + part.start
            # Each micro-batch has its own noise, whichever process it falls to; the first keeps the plain key.
            seed_torch(self.seed, "step", number, *([place] if place else []))
            micro_batch = {name: value[part].to(self.device, non_blocking=True) for name, value in batch.items()}
            weight = (part.stop - part.start) / samples
            with self.fabric.no_backward_sync(self.loss, enabled=index < parts - 1):
                with self._counted():
                    loss, told = self.loss(micro_batch)
                value = float(loss.detach())
                self.check(value, "loss")
                # DDP averages over processes; the loss is a mean over samples.
                self.fabric.backward(loss * (weight * processes))
            for name, mean in {"loss": value, **told}.items():
                sums[name] = sums.get(name, 0.0) + weight * float(mean)
        if processes > 1:
            summed = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device)
            torch.distributed.all_reduce(summed)
            sums = dict(zip(sums, summed.tolist(), strict=True))
        return sums

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """In a rehearsal the operations of the forward passes are counted; torch's count of a backward pass takes
        grouped convolutions for full ones."""
        if not self.training.rehearsed_steps:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.forward_flop += counter.get_total_flops()

    def _skipped(self, norm: float, before: float, number: int) -> None:
        """The scaler skips steps without limit: no scale fixes a gradient that is not finite by itself."""
        scale = self.scaler.get_scale()
        if scale < SMALLEST_SCALE or scale >= before:  # not lowered: the norm alone overflowed, nothing was skipped
            self.check(norm, "gradient")
        if self.fabric.is_global_zero:
            say(f"step {number} skipped, its gradient overflowed: the loss is scaled by {scale:g} from now on")

    def validated(self, value: float) -> bool:
        """Take an epoch's selection metric; whether it lowered the learning rate."""
        before = self.rate
        if self.plateau is not None:
            self.plateau.step(value)
        return self.rate < before

    def averaged(self) -> AbstractContextManager[None]:
        """The moving average in the weights' place, if there is one."""
        return nullcontext() if self.average is None else self.average.applied()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a ``state_dict`` back."""
        for name, part in self._stateful().items():
            if name in state:  # no scaler in what a GPU with bf16 saved
                part.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        names = ("optimizer", "schedule", "plateau", "average", "scaler")
        return {name: part for name in names if (part := getattr(self, name)) is not None}


class _Loss(torch.nn.Module):
    """A task's loss as a module's forward pass, which is what autocast and DDP wrap."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__()
        self.task, self.module = task, task.module

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return self.task.loss(batch)


def normalisation_statistics(module: torch.nn.Module) -> dict[str, Tensor]:
    """Running means and variances, by name: floating buffers that a forward pass in training mode changes."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules()
        if isinstance(part, _NormBase)
        for name, value in part.named_buffers(recurse=False)
        if value.is_floating_point()
    }


def checkpoint_activations(module: torch.nn.Module) -> None:
    """Switch activation checkpointing on in all parts of ``module`` that offer it (attribute of that name).

    Raises:
        SettingsError: none does.
    """
    parts: list[Any] = [part for part in module.modules() if hasattr(part, "activation_checkpointing")]
    if not parts:
        raise SettingsError(
            "activation_checkpointing: nothing in this model can be computed twice",
            remedy="it is for SAM's image encoder; set it to false",
        )
    for part in parts:
        part.activation_checkpointing = True
