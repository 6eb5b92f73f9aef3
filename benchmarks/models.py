"""`make bench-models`: SAM's encoder, an adapter step, decoder-only and batched training beside the published code.

Sections run in the order of ``SECTIONS``, and a row is printed when it is there; ten epochs end to end come last.

Both sides of a ratio have the same weights, inputs, threads and allocator settings, and are called in turns in one
process; each stands beside the largest relative difference of their results. Two ratios: wall-clock, and processor
time of this process, which says more where others share the machine.
"""

from __future__ import annotations

import os

# As for our jobs (workflow/rules/common.smk), on both sides: without it page faults take a third of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.memory import extra_peak
from benchmarks.models_end_to_end import end_to_end
from benchmarks.models_gpu import bench_gpu
from benchmarks.models_parts import HEADINGS, VARIANT, Row, adapted, gradients, pixels, random_sam, relative
from benchmarks.stopwatch import take_turns
from benchmarks.turns import add_rows, machine, show
from lesion_core.training.step import checkpoint_activations

RANK, DEPTH = 64, 2


def encoder(size: int, rounds: int) -> list[Row]:
    """Encoder inference beside ``segment_anything``'s ImageEncoderViT."""
    sam, images = random_sam(VARIANT, size), pixels(1, size)
    ours = adapted(sam, adapter="none")

    def published() -> Tensor:
        return sam.image_encoder((images - sam.pixel_mean) / sam.pixel_std)

    with torch.no_grad():
        results, taken = take_turns({"published": published, "ours": lambda: ours.encode(images)}, rounds, extra_peak)
    error = relative(results["ours"], results["published"])
    return [Row(f"encoder, {size} px", taken["published"], taken["ours"], error, 1.3 if size > 512 else 1.0)]


def adapter_step(size: int, rounds: int, batch: int) -> list[Row]:
    """One training step of bottleneck adapters, in the published attention, in ours, and with recomputed blocks."""
    sam, images = random_sam(VARIANT, size), pixels(batch, size)
    options = {"adapter": "bottleneck", "rank": RANK, "depth": DEPTH, "adapter_init": "random"}
    sides = {
        "published": adapted(sam, published=True, **options),
        "ours": adapted(sam, **options),
        "low memory": adapted(sam, **options),
    }
    del sam
    checkpoint_activations(sides["low memory"])
    calls = {name: lambda side=side: gradients(side, lambda: side(images)) for name, side in sides.items()}
    results, taken = take_turns(calls, rounds, extra_peak)
    wanted = {"ours": (1.2, 2.5) if size > 512 else (1.5, None), "low memory": (0.7, 6.0 if size > 512 else None)}
    return [
        Row(
            f"adapter step, {size} px, batch {batch}" + (", recomputed blocks" if name == "low memory" else ""),
            taken["published"],
            taken[name],
            relative(results[name], results["published"]),
            *wanted[name],
        )
        for name in ("ours", "low memory")
    ]


def decoder_only(size: int, rounds: int) -> list[Row]:
    """A step of the mask decoder alone: the encoder at every step, or its embedding from disk in fp16."""
    sam, images = random_sam(VARIANT, size), pixels(1, size)
    segmenter = adapted(sam, adapter="decoder", published=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embedding.npy"
        with torch.no_grad():
            np.save(path, segmenter.encode(images)[0].numpy().astype(np.float16))

        def recomputed() -> Tensor:
            return gradients(segmenter, lambda: segmenter(images))

        def cached() -> Tensor:
            stored = torch.from_numpy(np.load(path, mmap_mode="r")[None].astype(np.float32))
            return gradients(segmenter, lambda: segmenter.decode(stored))

        results, taken = take_turns({"published": recomputed, "ours": cached}, rounds, extra_peak)
    error = relative(results["ours"], results["published"])
    return [Row(f"decoder-only step, {size} px, embedding from disk (fp16)", *taken.values(), error, 50.0)]


def batched(size: int, batch: int, rounds: int) -> list[Row]:
    """A training step of the small SAM: the decoder image by image, as published, or in a batch."""
    sam, images = random_sam("sam_vit_t", size), pixels(batch, size)
    segmenter = adapted(sam, adapter="bottleneck", rank=RANK, depth=DEPTH, adapter_init="random")

    def one_by_one() -> Tensor:
        parts = []
        for embedding in segmenter.encode(images):
            prompts = segmenter.sam.prompt_encoder
            sparse, dense = prompts(points=None, boxes=None, masks=None)
            masks, _ = segmenter.sam.mask_decoder(
                image_embeddings=embedding[None],
                image_pe=prompts.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            parts.append(masks)
        return torch.cat(parts)

    calls = {
        "published": lambda: gradients(segmenter, one_by_one),
        "ours": lambda: gradients(segmenter, lambda: segmenter(images)),
    }
    results, taken = take_turns(calls, rounds, extra_peak)
    error = relative(results["ours"], results["published"])
    rate = batch / taken["ours"].wall
    name = f"step of sam_vit_t, {size} px, batch {batch}: decoder in a batch ({rate:.0f} images/s)"
    return [Row(name, taken["published"], taken["ours"], error, 1.0)]


SECTIONS: dict[str, Callable[[int], list[Row]]] = {
    "encoder-256": lambda rounds: encoder(256, rounds),
    "step-256": lambda rounds: adapter_step(256, rounds, 2),
    "batched": lambda rounds: batched(128, 8, 5 * rounds),
    "encoder-1024": lambda rounds: encoder(1024, rounds),
    "decoder-only": lambda rounds: decoder_only(1024, rounds),
    "step-1024": lambda rounds: adapter_step(1024, min(rounds, 2), 1),
    "end-to-end": lambda rounds: end_to_end(1024),
}


def main() -> None:
    """Command line: sections, rounds, threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}, gpu; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side; the fastest counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - {*SECTIONS, "gpu"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(arguments.threads)
    print(f"{machine()}; torch {torch.__version__}, {arguments.threads} threads, fp32, random weights")
    chosen = arguments.sections or [*SECTIONS, "gpu"]
    sections = [SECTIONS[name] for name in SECTIONS if name in chosen]
    if sections:
        show("SAM beside segment_anything", HEADINGS, [])
    for section in sections:
        add_rows([row.cells() for row in section(arguments.rounds)])
    if "gpu" in chosen:
        bench_gpu(arguments.rounds)


if __name__ == "__main__":
    main()
