"""Steps and hours by hand; what is not measured is named."""

from __future__ import annotations

import pytest

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import write_csv, write_json
from lesion_core.paths import Layout
from lesion_core.plan import table
from lesion_core.plan.rates import measured_rates, stated_rates
from lesion_core.plan.work import image_counts, training_steps
from lesion_core.settings import load as config
from lesion_core.settings.kinds import kind_of

COUNTS = {"isic2018_task1": (1816, 259), "ph2": (140, 20), "ham10000": (7010, 1002)}
IMAGES = {"shared/leak_free": COUNTS, "segmae_protocol/as_published": {"isic2018_task1": (1200, 0)}}


@pytest.fixture(scope="module")
def settings():
    return config.load("paper")


@pytest.fixture(scope="module")
def runs(settings):
    return config.expand(settings)


def of(runs, method):
    return next(run for run in runs.values() if run.method == method)


def finished(root, run, steps, seconds):
    folder = root / "runs" / run.task / run.run_id
    write_csv(folder / "history.csv", ("epoch", "step"), [{"epoch": 1, "step": steps}])
    told = {"run_id": run.run_id, "settings": run.model_dump(mode="json"), "device": "cuda"}
    write_json(folder / "provenance.json", told | {"extra": {"training_seconds": seconds}})


def test_steps_by_hand(runs):
    # 1956 images make 244 full batches of 8, in each of 50 epochs
    assert training_steps(of(runs, "sam_adapter"), IMAGES) == 50 * 244
    # 1816 images make 75 batches of 24; stage 2 has 100 epochs of two steps a batch, stage 1 50 of one
    assert training_steps(of(runs, "segmae"), IMAGES) == 2 * 100 * 75 + 50 * 75
    # under its paper's own split the run has other images: 50 batches of 24
    assert training_steps(of(runs, "segmae_as_published"), IMAGES) == 2 * 100 * 50 + 50 * 50
    for name in ("otsu", "majority", "vit_cross_attention_tta"):
        assert training_steps(of(runs, name), IMAGES) == 0


def test_accumulated_batches_make_fewer_steps(runs):
    run = of(runs, "sam_adapter")
    spec = run.spec.model_copy(update={"training": run.spec.training.model_copy(update={"accumulation": 4})})
    assert training_steps(run.model_copy(update={"spec": spec}), IMAGES) == 50 * (1956 // 32)


def test_hours_are_runs_times_steps_times_seconds(runs, tmp_path):
    run = of(runs, "sam_adapter")
    finished(tmp_path, run, steps=100, seconds=50.0)
    rates = measured_rates(tmp_path)
    assert rates[kind_of(run, runs)].seconds == 0.5
    only = {run.run_id: run}
    text = table.cost_table(IMAGES, only, rates, {"sam_adapter": "sam_vit"}, 500.0)
    # 12200 steps of half a second
    assert f"| sam_vit | sam_adapter | 1 | 12200 | 0.5000 | {run.run_id} on cuda | 1.69 |" in text
    assert "| sam_vit | all known | | | | | 1.69 |\n| all | measured or stated | 1 | | | | 1.69 |" in text
    assert "0.8 kWh at 500 W" in text


def test_the_slowest_run_of_a_kind_decides(runs, tmp_path):
    first, second = [run for run in runs.values() if run.method == "sam_adapter"][:2]
    finished(tmp_path, first, 100, 50.0)
    finished(tmp_path, second, 100, 80.0)
    assert measured_rates(tmp_path)[kind_of(first, runs)].run_id == second.run_id


def test_both_stages_of_segmae_are_measured(runs, tmp_path):
    run = of(runs, "segmae")
    finished(tmp_path, run, 60, 8.0)
    stage = tmp_path / "runs" / run.task / run.run_id / "stage_1" / "history.csv"
    write_csv(stage, ("epoch", "step"), [{"epoch": 1, "step": 20}])
    assert measured_rates(tmp_path)[kind_of(run, runs)].seconds == 0.1


def test_what_learns_something_else_is_of_another_kind(runs):
    names = ("sam_adapter", "sam_adapter_lora", "sam_adapter_depth_4", "peft_medsam", "med_sa_1", "med_sa_3", "unet")
    names += ("vit_none", "vit_cross_attention", "vit_patch_8", "dual_network", "joint_proposed", "joint_tschandl")
    names += ("segmae_step_1",)
    assert len({kind_of(of(runs, name), runs) for name in names}) == len(names)
    assert kind_of(of(runs, "joint_equal"), runs) == kind_of(of(runs, "joint_proposed"), runs)


def test_images_are_counted_by_the_rule_of_their_split_tables_or_in_made_ones(settings, tmp_path):
    counted = image_counts(settings)
    free, published = counted["shared/leak_free"], counted["segmae_protocol/as_published"]
    assert (free["isic2018_task1"], published["isic2018_task1"]) == ((1816, 259), (1815, 259))  # 70 % of 2594; printed
    assert (free["isic2017"], published["isic2017"]) == ((1925, 275), (2000, 150))  # 70 % of 2750; the release's parts
    assert counted["peft_medsam_protocol/as_published"]["ph2"] == (0, 0)
    rows = [{"image_id": str(number), "split": "train" if number < 5 else "val"} for number in range(7)]
    write_csv(
        Layout(tmp_path).split("shared/leak_free", "ph2"),
        ("image_id", "split"),
        [*rows, {"image_id": "7", "split": "test"}],
    )
    made = image_counts(settings, tmp_path)
    assert made == counted | {"shared/leak_free": free | {"ph2": (5, 2)}}
    synthetic = image_counts(config.load("smoke"))["shared/leak_free"]
    assert synthetic["ham10000"] == (69, 10)  # 70 lesions of 1.4 images


def test_every_run_has_the_counts_of_its_own_tables(settings, runs):
    assert {run.split_tables for run in runs.values()} <= image_counts(settings).keys()


def test_what_is_not_measured_is_named(settings, runs):
    images = image_counts(settings)
    text = table.cost_table(images, runs, {}, {}, 700.0)
    trained = [run for run in runs.values() if training_steps(run, images)]
    assert f"{len(trained)} runs have no measured rate" in text
    assert "| all" not in text


def test_stated_rates(runs):
    kind = kind_of(of(runs, "sam_adapter"), runs)
    assert stated_rates([f"{kind}=0.25"], runs)[kind].seconds == 0.25
    for wrong in ("sam", "sam=1", f"{kind}=fast", f"{kind}=-1", f"{kind}=inf"):
        with pytest.raises(SettingsError, match="is no rate"):
            stated_rates([wrong], runs)


def test_a_folder_without_runs_has_no_rates(tmp_path):
    with pytest.raises(RunError, match="No run was trained"):
        measured_rates(tmp_path)
