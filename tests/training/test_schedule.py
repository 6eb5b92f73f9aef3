"""Learning rates by hand, what torch's optimizers are given, and impossible settings."""

from __future__ import annotations

import pytest
import torch
from engine_tasks import SETTINGS, Curve, run, training
from pydantic import ValidationError

from lesion_core.files import read_csv
from lesion_core.settings import Training
from lesion_core.training.optimizer import build_optimizer, build_schedule


def rates(total: int, **changes) -> list[float]:
    settings = training(learning_rate=2.0, **changes)
    optimizer = build_optimizer(Curve().trainable(), settings)
    schedule = build_schedule(optimizer, settings, total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {optimizer.param_groups[0]["lr"]}
    return [*found, optimizer.param_groups[0]["lr"]]


def test_warm_up_and_half_a_cosine():
    found = rates(10, warmup_fraction=0.2, schedule="cosine")
    assert found[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert found[6] == pytest.approx(1.0)
    assert found[10] == pytest.approx(0.0)
    assert found[2:] == sorted(found[2:], reverse=True)
    assert rates(4, warmup_fraction=0.0, schedule="cosine") == pytest.approx([2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0])
    assert rates(10, warmup_fraction=0.1, schedule="cosine")[:2] == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_warm_up_and_no_change(schedule):
    assert rates(6, warmup_fraction=0.5, schedule=schedule) == pytest.approx([2 / 3, 4 / 3, 2, 2, 2, 2, 2])
    assert rates(3, warmup_fraction=0.0, schedule=schedule) == [2.0] * 4
    assert rates(2, warmup_fraction=1.0, schedule=schedule) == pytest.approx([1.0, 2.0, 2.0])


def test_the_rate_is_halved_every_second_epoch():
    found = rates(10, schedule="step", epochs=5, step_epochs=2, step_factor=0.5, warmup_fraction=0.5)
    assert found == [2.0] * 4 + [1.0] * 4 + [0.5] * 3


def test_the_engine_lowers_the_rate_on_a_plateau(tmp_path):
    settings = {"schedule": "plateau", "plateau_patience": 1, "plateau_factor": 0.1, "warmup_fraction": 0.0}
    run(Curve(samples=4, values=[0.5] + [1.0] * 5), tmp_path, epochs=6, **settings)
    found = [float(row["lr"]) for row in read_csv(tmp_path / "history.csv")]
    assert found == pytest.approx([0.05, 0.05, 0.05, 0.005, 0.005, 0.0005])


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_weight_decay_is_of_matrices_alone(name, kind):
    parameters = Curve(norm=True).trainable()
    optimizer = build_optimizer(parameters, training(optimizer=name, weight_decay=0.5, momentum=0.8))
    assert type(optimizer) is kind
    decay = {id(item): group["weight_decay"] for group in optimizer.param_groups for item in group["params"]}
    assert {key: decay[id(item)] for key, item in parameters.items()} == {
        key: 0.5 if item.ndim >= 2 else 0.0 for key, item in parameters.items()
    }
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8


def test_impossible_plateaus_are_refused():
    with pytest.raises(ValidationError, match="before plateau_patience"):
        Training(**{**SETTINGS, "schedule": "plateau", "patience": 10})
    with pytest.raises(ValidationError, match="min_learning_rate"):
        Training(**{**SETTINGS, "schedule": "plateau", "min_learning_rate": 1.0})
    assert Training(**{**SETTINGS, "patience": 10}).schedule == "cosine"
