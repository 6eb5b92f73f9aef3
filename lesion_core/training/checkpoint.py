"""Checkpoints: one file with everything that a run needs to go on bit for bit; and the lock of a run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor

from lesion_core.errors import RunError
from lesion_core.files import atomic_path, canonical_json, sha256_file, sha256_text, write_bytes
from lesion_core.progress import say
from lesion_core.record.outputs import INDEXES, array_digests
from lesion_core.record.provenance import STAGES, code_hash, computing_versions
from lesion_core.settings.run import Run
from lesion_core.training.device import first_process


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are now, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (nested dicts and lists of tensors, numbers, strings and None) atomically."""
    with atomic_path(path) as partial, open(partial, "wb") as handle:
        try:
            torch.save(state, handle)
        except RuntimeError as error:
            # torch's writer hides what the disk said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, *, identity: str) -> dict[str, Any] | None:
    """Read a checkpoint onto the CPU; None if there is none, or if it belongs to another job.

    Args:
        path: the file.
        identity: what the job is (a hash of its settings, data and code); must equal the ``identity`` that was saved.

    Raises:
        RunError: the file is not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        # weights_only: a checkpoint must never be able to run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["identity"]
    except Exception as error:
        raise RunError(
            f"The checkpoint cannot be read: {error}", file=path, remedy="delete it; the run starts anew"
        ) from error
    if saved != identity:
        say(f"{path.name} belongs to other settings, data, code or package versions; starting anew")
        return None
    return state


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``folder/.lock``; wait, with a line in the log, while another process holds it.

    A killed pipeline may leave its training process alive; its successor must not write the same run beside it. The
    kernel drops the lock when the holder ends, however it ends. Of torchrun's processes the first holds it for all.
    """
    if not first_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting: another process is at work in {folder.name}")
        lock.acquire()
    with lock:
        lock.release()  # ``with`` counts once more
        yield


def input_identity(run: Run, inputs: Iterable[Path]) -> str:
    """What a checkpoint depends on beside the settings that the engine sees, as a SHA-256.

    The run's id, the inputs' bytes, the pixels and masks beside each index among them, the code that trains (comments
    and docstrings are not part of it) and the packages that compute: epochs of older code must not end in a run whose
    provenance names the newer.
    """
    content = [
        [path.name, sha256_file(path), array_digests(path.parent) if path.name in INDEXES else {}]
        for path in map(Path, inputs)
    ]
    code = code_hash(STAGES.get(run.task, f"lesion_core.training.{run.task}"))
    return sha256_text(canonical_json([run.run_id, content, code, computing_versions()]))


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by sorted name, atomically: equal content gives equal bytes."""
    ordered = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    # Not save_file: it makes the file readable to its owner only.
    write_bytes(path, save(ordered, metadata=metadata))
