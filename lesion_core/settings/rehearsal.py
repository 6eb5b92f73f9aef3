"""A rehearsal: every kind of run of the paper profile at its real size, a few steps long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesion_core.settings.base import Count, Dataset, Distinct, Strict


class Rehearsal(Strict):
    """What the profile ``rehearsal`` leaves of the paper's runs.

    Attributes:
        images: of each dataset that take part, drawn by name.
        steps: optimizer steps of a run.
        one_by_one: SAM backbones of which one image at a time is in memory, and whose runs take a single step.
    """

    images: dict[Dataset, Count]
    steps: Count
    one_by_one: Distinct[str]


def shortened(methods: Mapping[str, dict[str, Any]], rehearsal: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Resolved methods, each that learns with a few steps; networks, sizes and samples of a step stay.

    Args:
        methods: as the loader has resolved them, not yet typed.
        rehearsal: the section of that name.
    """
    short = {}
    for name, method in methods.items():
        training = method.get("training", {})
        if training.get("epochs"):
            training = training | {"epochs": rehearsal["steps"], "patience": 0, "checkpoint_steps": 2}
            training["rehearsed_steps"] = rehearsal["steps"]
            if method.get("model", {}).get("backbone") in rehearsal["one_by_one"]:
                samples = training["batch_size"] * training.get("accumulation", 1)
                training |= {"epochs": 1, "rehearsed_steps": 1, "batch_size": 1, "accumulation": samples}
                training["activation_checkpointing"] = True
            method = method | {"training": training}
            if reconstruction := method.get("reconstruction"):
                method["reconstruction"] = reconstruction | {"epochs": rehearsal["steps"]}
        short[name] = method
    return short
