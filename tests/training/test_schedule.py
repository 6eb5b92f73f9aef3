"""Learning rates: ReduceLROnPlateau beside torch's own, and impossible settings."""

from __future__ import annotations

import pytest
import torch
from engine_tasks import SETTINGS, Curve, training
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lesion_core.files import read_csv
from lesion_core.seeding import generator
from lesion_core.settings import Training
from lesion_core.training.engine import fit
from lesion_core.training.schedule import Plateau, learning_rate_at


def torch_rates(values: list[float], *, mode: str, factor: float, patience: int, minimum: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=patience, min_lr=minimum
    )
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def our_rates(values: list[float], **options) -> list[float]:
    plateau = Plateau(0.5, **options)
    rates = []
    for value in values:
        plateau.update(value)
        rates.append(plateau.rate)
        # What a checkpoint would keep is all there is.
        again = Plateau(0.5, **options)
        again.load_state_dict(plateau.state_dict())
        plateau = again
    return rates


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(("factor", "patience", "minimum"), [(0.1, 2, 0.0), (0.5, 0, 0.03), (0.3, 5, 0.0)])
def test_plateau_equals_torch_on_a_noisy_dice(mode, factor, patience, minimum):
    rng = generator("plateau", mode, patience)
    values = [float(0.9 - 0.5 * 0.9**epoch + 0.01 * rng.standard_normal()) for epoch in range(60)]
    values[20:24] = [values[20]] * 4
    options = {"mode": mode, "factor": factor, "patience": patience, "minimum": minimum}
    rates = our_rates(values, **options)
    assert rates == torch_rates(values, **options)
    assert len(set(rates)) > 2, "the rate was lowered more than once"


@given(st.lists(st.sampled_from([0.5, 0.50004, 0.50006, 0.6, 0.4, 0.0, -1.0]), max_size=30), st.integers(0, 3))
def test_plateau_equals_torch_near_its_threshold(values, patience):
    for mode in ("max", "min"):
        options = {"mode": mode, "factor": 0.5, "patience": patience, "minimum": 1e-3}
        assert our_rates(values, **options) == torch_rates(values, **options)


def test_warm_up_rises_to_what_the_plateau_left():
    rates = [
        learning_rate_at(step, 10, base=base, warmup_fraction=0.2, schedule="plateau")
        for step, base in enumerate([2.0] * 5 + [0.2] * 5)
    ]
    assert rates == [1.0, 2.0, 2.0, 2.0, 2.0, 0.2, 0.2, 0.2, 0.2, 0.2]


class Stuck(Curve):
    """Better once, then never again."""

    def validate(self):
        self.validations = getattr(self, "validations", 0) + 1
        return {"error": 0.5 if self.validations == 1 else 1.0}


def test_the_engine_lowers_the_rate(tmp_path):
    settings = training(epochs=6, schedule="plateau", plateau_patience=1, plateau_factor=0.1, warmup_fraction=0.0)
    fit(Stuck(samples=4), settings, tmp_path, seed=0, device="cpu")
    rates = [float(row["lr"]) for row in read_csv(tmp_path / "history.csv")]
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.005, 0.005, 0.0005])


def test_impossible_plateaus_are_refused():
    with pytest.raises(ValidationError, match="before plateau_patience"):
        Training(**{**SETTINGS, "schedule": "plateau", "patience": 10})
    with pytest.raises(ValidationError, match="min_learning_rate"):
        Training(**{**SETTINGS, "schedule": "plateau", "min_learning_rate": 1.0})
    assert Training(**{**SETTINGS, "patience": 10}).schedule == "cosine"
