"""One optimizer step: the batch in pieces, gradients summed over pieces and processes, clipped, applied."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.progress import say
from lesion_core.seeding import seed_torch
from lesion_core.settings import Training
from lesion_core.training.device import autocast
from lesion_core.training.distributed import any_process, shard, sum_gradients, sum_numbers, world
from lesion_core.training.oom import is_out_of_memory, release_memory
from lesion_core.training.optim import Optimizer
from lesion_core.training.task import TrainingTask

# Of the loss in fp16: a gradient that overflows without any enlargement is none of half precision's making.
SMALLEST_SCALE = 1.0


class Stepper:
    """Does the steps of one training.

    A batch of ``batch_size * accumulation`` samples goes through the model in ``pieces`` equal parts; the loss is the
    mean over all samples. Of a model without noise and batch norm the parts' number changes rounding alone. Batch norm
    has its statistics of one part only, and dropout and stochastic depth draw anew for each part, so with them it
    changes the numbers. Where memory runs out, the step is taken again in twice as many parts, and so are those after
    it: the bits of a run with that accumulation, not of one with memory enough.

    Args:
        task, training, seed, device, precision: of the fit.
        parameters: what is learnt, by name.
        optimizer: of them.
        check: called with a number and what it is; raises if it is not finite.
    """

    def __init__(
        self,
        task: TrainingTask,
        training: Training,
        parameters: dict[str, Tensor],
        optimizer: Optimizer,
        *,
        seed: int,
        device: str,
        precision: str,
        check: Callable[[float, str], None],
    ) -> None:
        self.task, self.training, self.optimizer = task, training, optimizer
        self.parameters = [parameters[name] for name in sorted(parameters)]
        self.seed, self.device, self.precision, self.check = seed, device, precision, check
        self.pieces = training.accumulation
        self.smallest = getattr(task.module, "smallest_batch", 1)
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
        self.statistics = normalisation_statistics(task.module)

    def step(self, batch: dict[str, Tensor], number: int, samples: int) -> dict[str, float]:
        """Take global step ``number`` with this process's share of a batch of ``samples`` samples.

        Returns:
            The history's means over the batch, ``loss`` first.

        Raises:
            RunError: a loss or gradient is not finite, or the smallest part does not fit into memory.
        """
        sums = self._gradients_in_memory(batch, number, samples)
        sum_gradients(self.parameters, [item for item in self.statistics.values() if item.is_floating_point()])
        sums = sum_numbers(sums, self.device)
        self.check(sums["loss"], "loss")
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip or math.inf))
        if not self.scaler.is_enabled():
            self.check(norm, "gradient")
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not math.isfinite(norm):
            self._skipped(norm, scale, number)
        return sums

    def _skipped(self, norm: float, before: float, number: int) -> None:
        """The scaler skips steps without limit: no scale mends a gradient that is not finite by itself."""
        scale = self.scaler.get_scale()
        if scale < SMALLEST_SCALE or scale >= before:  # not lowered: the norm alone overflowed, nothing was skipped
            self.check(norm, "gradient")
        if world()[0] == 0:
            say(f"step {number} skipped, its gradient overflowed: the loss is scaled by {scale:g} from now on")

    def _gradients_in_memory(self, batch: dict[str, Tensor], number: int, samples: int) -> dict[str, float]:
        """Gradients of the step, in as many pieces as it takes; all processes cut alike."""
        before = {name: value.clone() for name, value in self.statistics.items()}
        while True:
            failed = False
            sums: dict[str, float] = {}
            try:
                sums = self._gradients(batch, number, samples)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = True
            # Outside the except block: the error's traceback would keep the step's tensors alive.
            if not any_process(failed, self.device):
                return sums
            self.optimizer.zero_grad()
            for name, value in self.statistics.items():
                value.copy_(before[name])
            release_memory()
            self._halve(number, samples)

    def _gradients(self, batch: dict[str, Tensor], number: int, samples: int) -> dict[str, float]:
        """Backward through this process's samples; adds to ``.grad`` the gradient of the mean over the batch."""
        self.optimizer.zero_grad()
        first = shard(samples, *world()).start
        count = len(next(iter(batch.values())))
        sums: dict[str, float] = {}
        passes = self._passes(count)
        for index in range(passes):
            piece = shard(count, index, passes)
            place = first + piece.start
            # Each piece has its own noise, whichever process or pass it falls to; the first keeps the plain key.
            seed_torch(self.seed, "step", number, *([place] if place else []))
            part = {name: value[piece].to(self.device, non_blocking=True) for name, value in batch.items()}
            with autocast(self.precision):
                loss, parts = self.task.loss(part)
            value = float(loss.detach())
            self.check(value, "loss")
            share = (piece.stop - piece.start) / samples
            self.scaler.scale(loss if share == 1.0 else loss * share).backward()
            for name, number_of_part in {"loss": value, **parts}.items():
                sums[name] = sums.get(name, 0.0) + share * float(number_of_part)
        return sums

    def _passes(self, count: int) -> int:
        """In how many parts ``count`` samples go: ``pieces``, but none is smaller than the network takes."""
        return min(self.pieces, max(1, count // self.smallest))

    def _halve(self, number: int, samples: int) -> None:
        count = math.ceil(samples / world()[1])
        before = self._passes(count)
        self.pieces *= 2
        passes = self._passes(count)
        if passes == before:
            held = "one sample" if count == before else f"{math.ceil(count / before)} samples"
            needs = f" (a batch norm of this network needs {self.smallest})" if self.smallest > 1 else ""
            raise RunError(
                f"Out of memory at step {number}, and a batch of {held} cannot be halved{needs}",
                remedy="set training.activation_checkpointing: true, or a smaller model.image_size, or a GPU with more "
                "memory",
            )
        if world()[0] == 0:
            largest = math.ceil(count / passes)
            say(
                f"out of memory at step {number}: from now on {passes} passes of at most {largest} samples, as with "
                f"{self.pieces} parts by training.accumulation (dropout, stochastic depth and batch norm depend on the "
                "parts)"
            )


def normalisation_statistics(module: torch.nn.Module) -> dict[str, Tensor]:
    """Buffers that a forward pass in training mode changes, by name: those of normalisation layers."""
    from torch.nn.modules.batchnorm import _NormBase

    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules()
        if isinstance(part, _NormBase)
        for name, value in part.named_buffers(recurse=False)
    }
