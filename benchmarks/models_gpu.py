"""The GPU part of `make bench-models`: bf16, compilation, batch, share of the matrix rate."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.models_parts import VARIANT, adapted, gradients, random_sam, relative
from benchmarks.turns import show
from lesion_core.seeding import generator
from lesion_core.training.step import checkpoint_activations

SIZE = 1024
BATCHES = (1, 8)
# ViT-B at 1024 pixels without padded window tokens, 2 per multiply-add; of an adapter step: the encoder's forward and
# the gradient of its activations (the frozen weights need none), and the decoder.
ENCODER_FLOP, STEP_FLOP = 942e9, 2.3e12
MATRIX = 8192
HEADINGS = ("Batch", "ms an image", "Share of the bf16 matrix rate", "Peak, MB", "Error")


@dataclass(frozen=True)
class Bench:
    """What is timed on: tests take a CPU and small sizes, to see that all of it runs."""

    device: str = "cuda"
    variant: str = VARIANT
    size: int = SIZE
    batches: tuple[int, ...] = BATCHES
    matrix: int = MATRIX
    rounds: int = 3

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object]) -> float:
        """The fastest of ``rounds`` calls after two to warm up."""
        for _ in range(2):
            call()
        best = float("inf")
        for _ in range(self.rounds):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            best = min(best, time.perf_counter() - started)
        return best

    def peak(self, call: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """What a call returns, and the megabytes of the device's memory at its highest."""
        if self.device != "cuda":
            return call(), float("nan")
        torch.cuda.reset_peak_memory_stats()
        result = call()
        return result, torch.cuda.max_memory_allocated() / 2**20

    def matrix_rate(self) -> float:
        """Floating-point operations a second of a large bf16 matrix product."""
        shape = (self.matrix, self.matrix)
        one, two = (torch.randn(shape, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        return 2.0 * self.matrix**3 / self.seconds(lambda: one @ two)

    def images(self, batch: int) -> Tensor:
        """(batch, 3, size, size) in 0..255."""
        drawn = generator("bench", "gpu").integers(0, 256, (batch, 3, self.size, self.size))
        return torch.from_numpy(drawn).float().to(self.device)

    def half(self, on: bool):
        """bf16, or fp32 to the last bit."""
        return torch.autocast(self.device, torch.bfloat16) if on else nullcontext()


def bench_gpu(rounds: int) -> None:
    """Print both tables, or that there is no GPU."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: its section was left out.")
        return
    torch.backends.cudnn.allow_tf32 = False
    bench = Bench(rounds=rounds)
    rate = bench.matrix_rate()
    name = f"{torch.cuda.get_device_name()}, {rate / 1e12:.0f} TFLOP/s in a bf16 matrix product"
    show(name, (f"Encoder, {SIZE} px", *HEADINGS), encoder_rows(bench, rate))
    show(name, (f"Adapter step, {SIZE} px", *HEADINGS), step_rows(bench, rate))


@torch.no_grad()
def encoder_rows(bench: Bench, rate: float) -> list[tuple[str, ...]]:
    """Inference: the published encoder and ours, in fp32 and bf16, and ours compiled."""
    sam = random_sam(bench.variant, bench.size)
    published = copy.deepcopy(sam).to(bench.device)
    ours = adapted(sam, adapter="none").to(bench.device)

    def reference(images: Tensor) -> Tensor:
        return published.image_encoder((images - published.pixel_mean) / published.pixel_std)

    sides = {
        "published, fp32": (reference, False),
        "published, bf16": (reference, True),
        "ours, fp32": (ours.encode, False),
        "ours, bf16": (ours.encode, True),
        "ours, bf16, compiled": (torch.compile(ours.encode), True),
    }
    rows = []
    for batch in bench.batches:
        images, expected = bench.images(batch), None
        for name, (call, on) in sides.items():

            def one(call: Callable[[Tensor], Tensor] = call, on: bool = on, images: Tensor = images) -> Tensor:
                with bench.half(on):
                    return call(images)

            row, expected = _row(bench, name, batch, one, expected, ENCODER_FLOP, rate)
            rows.append(row)
    return rows


def step_rows(bench: Bench, rate: float) -> list[tuple[str, ...]]:
    """Training: forward and backward of bottleneck adapters, in the published attention and in ours."""
    sam = random_sam(bench.variant, bench.size)
    options = {"adapter": "bottleneck", "rank": 64, "depth": 2, "adapter_init": "random"}
    sides = {
        "published, fp32": (adapted(sam, published=True, **options), False),
        "published, bf16": (adapted(sam, published=True, **options), True),
        "ours, bf16": (adapted(sam, **options), True),
        "ours, bf16, recomputed blocks": (adapted(sam, **options), True),
    }
    checkpoint_activations(sides["ours, bf16, recomputed blocks"][0])
    rows = []
    for batch in bench.batches:
        images, expected = bench.images(batch), None
        for name, (side, on) in sides.items():
            side.to(bench.device)

            def one(side: torch.nn.Module = side, on: bool = on, images: Tensor = images) -> Tensor:
                def forward() -> Tensor:
                    with bench.half(on):
                        return side(images)

                return gradients(side, forward)

            row, expected = _row(bench, name, batch, one, expected, STEP_FLOP, rate)
            rows.append(row)
            # One at a time, so that each has the whole memory.
            side.to("cpu")
    return rows


def _row(
    bench: Bench, name: str, batch: int, call: Callable[[], Tensor], expected: Tensor | None, flop: float, rate: float
) -> tuple[tuple[str, ...], Tensor | None]:
    """A line of the table, and what later lines are compared with: the first result that found room."""
    try:
        taken = bench.seconds(call) / batch
        result, peak = bench.peak(call)
    except torch.OutOfMemoryError:
        return (name, str(batch), "out of memory", "", "", ""), expected
    expected = result.float() if expected is None else expected
    cells = (
        f"{1e3 * taken:.2f}",
        f"{flop / taken / rate:.0%}",
        f"{peak:.0f}",
        f"{relative(result.float(), expected):.0e}",
    )
    return (name, str(batch), *cells), expected
