"""Tensors from files, and into modules: strictly, or with an error that names what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lesion_core.errors import WeightsError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file, or a ``.pth``/``.pt`` that holds a plain state dict.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: the file is missing, truncated, not a state dict, or holds other objects than tensors.
    """
    path = Path(path)
    remedy = "fetch the weights again, or train the run that they belong to again"
    if not path.is_file():
        raise WeightsError("The weights file does not exist", file=path, remedy=remedy)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"The weights cannot be read: {first_line}", file=path, remedy=remedy) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsError("The file is not a plain state dict of tensors", file=path, remedy=remedy)
    return dict(state)


def not_the_weights_of(name: str, file: Path, error: Exception) -> WeightsError:
    """A library's refusal of a published file, in one line, cut where it lists hundreds of tensors."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return WeightsError(f"These are not the weights of {name}: {said}", file=file, remedy="fetch the weights again")


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, file: Path | None = None) -> None:
    """``module.load_state_dict`` behind ``check_state``; the checked copies are assigned.

    Raises:
        WeightsError: see ``check_state``.
    """
    training = module.training
    module.load_state_dict(check_state(module.state_dict(), state, file=file), strict=True, assign=True)
    module.train(training)


def check_state(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], *, file: Path | None = None
) -> dict[str, Tensor]:
    """Own copies of ``state`` in the expected dtypes.

    Raises:
        WeightsError: tensors are missing, unknown, of another shape or type, or not finite; names in ``ids``.
    """
    both = sorted(expected.keys() & state.keys())
    faults = {
        "are missing": sorted(expected.keys() - state.keys()),
        "are unknown": sorted(state.keys() - expected.keys()),
        "have another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in both
            if state[key].shape != expected[key].shape
        ],
        "have another type": [
            key for key in both if state[key].is_floating_point() != expected[key].is_floating_point()
        ],
        "are not finite": [key for key in both if not torch.isfinite(state[key]).all()],
    }
    for fault, names in faults.items():
        if names:
            remedy = "use weights of this very model; nothing is loaded in part"
            raise WeightsError(f"{len(names)} tensors {fault}", file=file, ids=names, remedy=remedy)
    # Copied, since memory mapped from a file may lie on another alignment and then sum in another order.
    return {key: state[key].detach().to(expected[key].dtype, copy=True).contiguous() for key in expected}
