"""Costs: hand-worked steps and hours; what is not measured is named and not guessed."""

from __future__ import annotations

import pytest

from lesion_core import config
from lesion_core.errors import RunError, SettingsError
from lesion_core.files import write_csv, write_json
from lesion_core.report import costs


@pytest.fixture(scope="module")
def runs():
    return config.expand(config.load("paper"))


def finished(root, run, steps, seconds):
    folder = root / "runs" / run.task / run.run_id
    write_csv(folder / "history.csv", ("epoch", "step"), [{"epoch": 1, "step": steps}])
    record = {"settings": run.model_dump(mode="json"), "device": "cuda", "seconds": seconds}
    write_json(folder / "provenance.json", record)


def test_hours_are_runs_times_steps_times_seconds(runs, tmp_path):
    run = next(run for run in runs.values() if run.method == "sam_adapter")
    finished(tmp_path, run, steps=100, seconds=50.0)
    rates = costs.measured_rates(tmp_path)
    assert rates[costs.kind_of(run)].seconds == 0.5
    images = dict.fromkeys(costs.RELEASED, 0) | {"isic2018_task1": 1816, "ph2": 140}
    text = costs.cost_table({run.run_id: run}, images, rates)
    # 1956 images in batches of 8 give 244 full batches; 50 epochs; half a second each
    assert f"| {run.run_id} | 12200 | 0.500 | {run.run_id} on cuda | 1.69 |" in text
    assert text.endswith("| 1.69 |")


def test_the_slowest_run_of_a_kind_decides_and_snakemakes_clock_comes_first(runs, tmp_path):
    first, second = [run for run in runs.values() if run.method == "sam_adapter"][:2]
    finished(tmp_path, first, 100, 50.0)
    finished(tmp_path, second, 100, 10.0)
    clock = tmp_path / "benchmarks" / "train_segmenter" / f"{second.run_id}.tsv"
    clock.parent.mkdir(parents=True)
    clock.write_text("s\th:m:s\n80.0\t0:01:20\n")
    assert costs.measured_rates(tmp_path)[costs.kind_of(first)].run_id == second.run_id


def test_what_is_not_measured_is_named(runs):
    text = costs.cost_table(runs, costs.training_images(config.load("paper")), {})
    trained = [run for run in runs.values() if getattr(getattr(run.spec, "training", None), "epochs", 0)]
    assert f"{len(trained)} runs have no measured rate" in text
    assert "| all with a rate | | | | 0.00 |" in text


def test_stated_rates(runs):
    run = next(run for run in runs.values() if run.method == "sam_adapter")
    rates = costs.stated_rates([f"{costs.kind_of(run)}=0.25"], runs)
    assert rates[costs.kind_of(run)].seconds == 0.25
    for wrong in ("sam", "sam=1", f"{costs.kind_of(run)}=fast", f"{costs.kind_of(run)}=-1"):
        with pytest.raises(SettingsError, match="is no rate"):
            costs.stated_rates([wrong], runs)


def test_a_folder_without_runs_has_no_rates(tmp_path):
    with pytest.raises(RunError, match="No run was trained"):
        costs.measured_rates(tmp_path)
