"""Torch's fake tensors as a GPU that is not there: shapes and devices are real, mixing two devices is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lesion_core.training.device import start_fabric
from lesion_core.training.step import Stepper

GPU = "cuda"


def to_device(module: torch.nn.Module, device: str) -> torch.nn.Module:
    """``module.to``, which cannot exchange fake parameters in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = torch.nn.Parameter(parameter.detach().to(device), requires_grad=parameter.requires_grad)
                part._parameters[name] = moved
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    return module


@pytest.fixture
def pretended():
    """Tensors on a GPU that is not there; their values, where asked for, are zeros and halves."""

    def numpy(tensor, **_):
        assert not tensor.is_cuda, "numpy cannot read a GPU's memory"
        return np.zeros(tuple(tensor.shape), np.bool_ if tensor.dtype == torch.bool else np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "numpy", numpy)
        patch.setattr(torch.Tensor, "__float__", lambda tensor: 0.5)
        patch.setattr(torch.Tensor, "backward", lambda tensor: None)
        patch.setattr(torch.nn.Module, "to", to_device)
        # it looks at the values that it drew
        patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
        # Positions that are chosen by value have an unknown length.
        with FakeTensorMode(shape_env=ShapeEnv()):
            yield


def step_and_validate(task, training) -> None:
    """Two steps and a validation of a task on the pretended GPU."""
    parameters = task.trainable()
    assert {item.device.type for item in parameters.values()} == {GPU}
    options = {"seed": 0, "device": GPU, "check": lambda value, what: None}
    stepper = Stepper(task, training, parameters, 2, fabric=start_fabric("cpu", "fp32"), **options)
    rows = task.epoch_rows(0)[:4]
    for number in range(2):
        stepper.step(task.batch(rows, 0, number), number, len(rows))
    task.validate()
