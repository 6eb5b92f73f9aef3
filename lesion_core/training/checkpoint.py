"""Checkpoints: one file with everything that a run needs to go on bit for bit; and the lock of a run's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.errors import RunError
from lesion_core.files import atomic_path, write_bytes
from lesion_core.progress import say
from lesion_core.training.launch import process_rank

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LOCK_SECONDS = 1.0
_held: set[Path] = set()


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are now, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (nested dicts and lists of tensors, numbers, strings and None) atomically."""
    import torch

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
    import torch

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
    kernel drops the lock when the holder ends, however it ends. Within one process it may be taken again. Of several
    processes of one training the first holds it for all.
    """
    import fcntl

    if process_rank() > 0:
        yield
        return

    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    if folder in _held:
        yield
        return
    with open(folder / ".lock", "a") as handle:
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    say(f"waiting: another process is training in {folder.name}")
                    said = True
                time.sleep(LOCK_SECONDS)
        _held.add(folder)
        try:
            yield
        finally:
            _held.discard(folder)
            fcntl.flock(handle, fcntl.LOCK_UN)


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by sorted name, atomically: equal content gives equal bytes."""
    from safetensors.torch import save

    ordered = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    # Not save_file: it makes the file readable to its owner only.
    write_bytes(path, save(ordered, metadata=metadata))
