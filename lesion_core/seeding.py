"""Every random number comes from here: generators are derived from named keys, never from a global state."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np

from lesion_core.progress import say


def key_to_int(*keys: int | str) -> int:
    """A stable 128-bit integer for a sequence of keys (``hash()`` is salted per process, this is not)."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:16], "big")


def generator(*keys: int | str) -> np.random.Generator:
    """A NumPy generator that depends on ``keys`` alone, e.g. ``generator(seed, "augment", epoch, index)``.

    Counter-like keys make a sample's randomness independent of worker count, order and resume point.
    """
    return np.random.default_rng(key_to_int(*keys))


def seed_torch(*keys: int | str) -> None:
    """Seed torch (CPU and GPUs) and the standard library from ``keys``; for weights at start and dropout."""
    import torch

    seed = key_to_int(*keys) % (1 << 63)
    torch.manual_seed(seed)
    random.seed(seed)


def granted_threads(asked: int | None = None) -> int:
    """Threads that this process may take: as many as asked for (None: all), but no more than Snakemake gave its job.

    Snakemake tells its jobs by OMP_NUM_THREADS: with --cores below compute.threads that is less than a run asks for.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    most = int(given) if given.isdecimal() and int(given) > 0 else None
    if asked is None:
        return most or len(os.sched_getaffinity(0))
    return min(asked, most or asked)


def make_deterministic(threads: int) -> None:
    """Fix torch's thread count (sums depend on it), at most at what is granted, and ask for deterministic kernels."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    granted = granted_threads(threads)
    if granted < threads:
        say(f"{granted} of {threads} threads (OMP_NUM_THREADS): the last digits of sums may differ")
    torch.set_num_threads(granted)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor with NaN before it is written: 3 % of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # fp32 means fp32: on a GPU torch lets convolutions round to TensorFloat-32's 10 bits (relative errors of 1e-3).
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
