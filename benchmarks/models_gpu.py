"""The GPU part of `make bench-models`: bf16, fused attention, compilation, batch, share of the matrix rate."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch

from benchmarks.turns import show
from lesion_core.models.sam import build_sam
from lesion_core.models.sam_segmenter import SamSegmenter
from lesion_core.seeding import seed_torch

SIZE = 1024
# ViT-B at 1024 pixels without padded window tokens, 2 per multiply-add.
ENCODER_FLOP = 942e9
MATRIX = 8192


def seconds(call: Callable[[], object], rounds: int) -> float:
    """The fastest of ``rounds`` calls after two to warm up, the device waited for."""
    for _ in range(2):
        call()
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def matrix_rate(rounds: int) -> float:
    """Floating-point operations a second of a large bf16 matrix product."""
    one, two = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2.0 * MATRIX**3 / seconds(lambda: one @ two, rounds)


@torch.no_grad()
def bench_gpu(rounds: int) -> None:
    """Print the table, or that there is no GPU."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: its section was left out.")
        return
    seed_torch("bench", "gpu")
    sam = build_sam("sam_vit_b")
    published = copy.deepcopy(sam).cuda()
    ours = SamSegmenter(sam, adapter="none", attention="fast").cuda()
    compiled = torch.compile(ours.encode)
    rate, rows = matrix_rate(rounds), []

    def half(call: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def called(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return call(images)

        return called

    def reference(images: torch.Tensor) -> torch.Tensor:
        return published.image_encoder((images - published.pixel_mean) / published.pixel_std)

    sides = {
        "published, fp32": reference,
        "published, bf16": half(reference),
        "ours, fp32": ours.encode,
        "ours, bf16, fused": half(ours.encode),
        "ours, bf16, fused, compiled": half(compiled),
    }
    for batch in (1, 8):
        images = torch.rand(batch, 3, SIZE, SIZE, device="cuda") * 255
        expected = reference(images)
        for name, call in sides.items():
            torch.cuda.reset_peak_memory_stats()
            taken = seconds(lambda call=call, images=images: call(images), rounds) / batch
            error = float((call(images).float() - expected).abs().max() / expected.abs().max())
            share = ENCODER_FLOP / taken / rate
            peak = torch.cuda.max_memory_allocated() / 2**20
            rows.append((name, batch, f"{1e3 * taken:.2f}", f"{share:.0%}", f"{peak:.0f}", f"{error:.0e}"))
    headings = ("Encoder, 1024 px", "Batch", "ms an image", "Share of the bf16 matrix rate", "Peak, MB", "Error")
    show(f"{torch.cuda.get_device_name()}, {rate / 1e12:.0f} TFLOP/s in a bf16 matrix product", headings, rows)
