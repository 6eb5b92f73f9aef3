"""What a rehearsal tells, by hand; and hours from it."""

from __future__ import annotations

import pytest

from lesion_core.errors import SettingsError
from lesion_core.files import read_csv, write_json
from lesion_core.paths import Layout
from lesion_core.plan.rehearsal import rates_of_rehearsal, write_rehearsal
from lesion_core.plan.requests import read_rehearsal, requests_of
from lesion_core.settings import load as config
from lesion_core.settings.kinds import kind_of


@pytest.fixture(scope="module")
def matrices():
    return config.expand(config.load("rehearsal")), config.expand(config.load("paper"))


def of(runs, method):
    return next(run for run in runs.values() if run.method == method)


def finished(root, run):
    folder = Layout(root).run(run.place, run.run_id)
    extra = {"parameters": 90, "trainable_parameters": 9, "step_seconds": 4.0, "step_forward_tflop": 2.0}
    extra["predict_seconds"] = 1.5
    told = {"extra": extra, "peak_memory_mb": {"host": 3000.0, "gpu": None}, "gpu_energy_joules": None}
    told |= {"seconds": 60.0, "device": "cpu", "hardware": {"gpu": None}, "settings": {}}
    write_json(folder / "provenance.json", told)


def test_rows_and_rates_by_hand(tmp_path, matrices):
    runs, wanted = matrices
    run = of(runs, "sam_adapter")
    finished(tmp_path, run)
    (Layout(tmp_path).run("segmentation", of(runs, "unet").run_id)).mkdir(parents=True)
    log = Layout(tmp_path).run("segmentation", of(runs, "unet").run_id) / "log.txt"
    log.write_text("begun\nerror: RunError: Out of memory\n")
    rows = {row["run_id"]: row for row in write_rehearsal(tmp_path, runs, wanted, 2000)}
    assert sum(row["runs"] for row in rows.values()) == len(wanted)
    row = rows[run.run_id]
    # three seeds; samples of a step are 8, so 2 images a second; the card has less than was needed
    assert (row["runs"], row["samples"], row["images_per_second"]) == (3, 8, 2.0)
    assert row["predict_seconds"] == 1.5
    assert row["problem"].startswith("needed 3000 MiB, and the card has 2000")
    assert {wanted[name].method for name in row["stands_for"].split()} == {"sam_adapter"}
    assert rows[of(runs, "unet").run_id]["problem"].endswith("error: RunError: Out of memory")
    stored = Layout(tmp_path).rehearsal("csv")
    assert len(read_csv(stored)) == len(runs)
    kind = kind_of(run, runs)
    assert rates_of_rehearsal(stored)[kind].seconds == 4.0
    # three forward passes of 2 TFLOP at 60 TFLOP/s
    assert rates_of_rehearsal(stored, 60.0)[kind].seconds == pytest.approx(0.1)
    assert rates_of_rehearsal(stored, 60.0, 0.25)[kind].seconds == 0.25
    assert "REHEARSED, NO RESULT" in Layout(tmp_path).rehearsal("md").read_text()


def test_a_training_asks_for_what_was_measured(tmp_path, matrices):
    runs, wanted = matrices
    run, compute = of(wanted, "sam_adapter"), config.load("paper").compute
    finished(tmp_path, of(runs, "sam_adapter"))
    write_rehearsal(tmp_path, runs, wanted, 2000)
    measured = read_rehearsal(str(Layout(tmp_path).rehearsal("csv")))
    images = {run.split_tables: {"isic2018_task1": (80, 8), "ph2": (0, 0)}}
    # 3000 MiB and a quarter; 50 epochs of 10 steps of 4 s are 34 minutes, half as long again, and half an hour
    asked = requests_of(run, wanted, measured, images, compute)
    assert asked == {"mem_mb": 3750, "gpu_memory_mb": compute.gpu_memory_mb, "runtime": 80}
    assert requests_of(of(wanted, "unet"), wanted, measured, images, compute)["mem_mb"] == compute.memory_mb
    assert read_rehearsal(None) == {}
    with pytest.raises(SettingsError, match="no rehearsal"):
        read_rehearsal(str(tmp_path / "none.csv"))
