"""Costs: steps, hours and operations by hand; what is not measured is named, or estimated where that is asked for."""

from __future__ import annotations

import pytest

from lesion_core.errors import RunError, SettingsError
from lesion_core.files import write_csv, write_json
from lesion_core.plan import table
from lesion_core.plan.rates import measured_rates, stated_rates
from lesion_core.plan.work import image_counts, kind_of, training_work
from lesion_core.settings import load as config

IMAGES = {"isic2018_task1": (1816, 259), "ph2": (140, 20), "ham10000": (7010, 1002)}


@pytest.fixture(scope="module")
def settings():
    return config.load("paper")


@pytest.fixture(scope="module")
def runs(settings):
    return config.expand(settings)


def of(runs, method):
    return next(run for run in runs.values() if run.method == method)


def finished(root, run, steps, seconds, **extra):
    folder = root / "runs" / run.task / run.run_id
    write_csv(folder / "history.csv", ("epoch", "step"), [{"epoch": 1, "step": steps}])
    record = {"settings": run.model_dump(mode="json"), "device": "cuda", "seconds": seconds, "run_id": run.run_id}
    write_json(folder / "provenance.json", record | {"extra": extra})


def test_steps_and_passes_by_hand(runs):
    # 1956 images make 244 full batches of 8; 50 epochs, each with 279 images to validate
    work = training_work(of(runs, "sam_adapter"), IMAGES)
    assert (work.steps, work.passes) == (12200, {"train": 97600, "forward": 13950})
    # 1816 images make 75 batches of 24; stage 2 has 100 epochs of two steps a batch, stage 1 50 of one
    work = training_work(of(runs, "segmae"), IMAGES)
    assert work.steps == 2 * 100 * 75 + 50 * 75
    assert work.passes == {"train": 7500 * 24, "reconstruct": 11250 * 24, "forward": 150 * 259}
    # stored embeddings: each image once through the encoder
    work = training_work(of(runs, "peft_medsam"), IMAGES)
    assert work.passes == {"encode": 1816 + 259, "train": 50 * 227 * 8, "decode": 50 * 259}
    # three clicks: two more predictions, of the decoder alone
    work = training_work(of(runs, "med_sa_3"), IMAGES)
    assert work.passes["decode"] == 2 * (work.passes["train"] + work.passes["forward"])
    assert training_work(of(runs, "otsu"), IMAGES).steps == 0
    assert training_work(of(runs, "majority"), IMAGES).steps == 0
    assert training_work(of(runs, "vit_cross_attention_tta"), IMAGES).steps == 0


def test_accumulated_batches_make_fewer_steps(runs):
    run = of(runs, "sam_adapter")
    spec = run.spec.model_copy(update={"training": run.spec.training.model_copy(update={"accumulation": 4})})
    assert training_work(run.model_copy(update={"spec": spec}), IMAGES).steps == 50 * (1956 // 32)


def test_hours_are_runs_times_steps_times_seconds(runs, tmp_path):
    run = of(runs, "sam_adapter")
    finished(tmp_path, run, steps=100, seconds=50.0)
    rates = measured_rates(tmp_path)
    assert rates[kind_of(run, runs)].seconds == 0.5
    only = {run.run_id: run}
    text = table.cost_table(IMAGES, only, rates)
    # 12200 steps of half a second
    assert f"| sam_adapter | 1 | 12200 |  | 0.5000 | {run.run_id} on cuda | 1.69 |" in text
    assert text.endswith("| all measured or stated | 1 | | | | | 1.69 |")


def test_the_slowest_run_of_a_kind_decides_and_snakemakes_clock_comes_first(runs, tmp_path):
    first, second = [run for run in runs.values() if run.method == "sam_adapter"][:2]
    finished(tmp_path, first, 100, 50.0)
    finished(tmp_path, second, 100, 10.0)
    clock = tmp_path / "benchmarks" / "train_segmenter" / second.place / f"{second.run_id}.tsv"
    clock.parent.mkdir(parents=True)
    clock.write_text("s\th:m:s\n80.0\t0:01:20\n")
    assert measured_rates(tmp_path)[kind_of(first, runs)].run_id == second.run_id


def test_a_run_that_recorded_its_training_is_believed_over_the_last_jobs_clock(runs, tmp_path):
    run = of(runs, "sam_adapter")
    finished(tmp_path, run, 100, 5.0, resumed=1, training_seconds=50.0)
    assert measured_rates(tmp_path)[kind_of(run, runs)].seconds == 0.5


def test_both_stages_of_segmae_are_measured(runs, tmp_path):
    run = of(runs, "segmae")
    finished(tmp_path, run, 60, 8.0)
    stage = tmp_path / "runs" / run.task / run.run_id / "stage_1" / "history.csv"
    write_csv(stage, ("epoch", "step"), [{"epoch": 1, "step": 20}])
    assert measured_rates(tmp_path)[kind_of(run, runs)].seconds == 0.1


def test_what_learns_something_else_is_of_another_kind(runs):
    names = ("sam_adapter", "sam_adapter_lora", "sam_adapter_depth_4", "peft_medsam", "med_sa_1", "med_sa_3", "unet")
    names += ("vit_none", "vit_cross_attention", "vit_patch_8", "dual_network", "joint_proposed", "segmae_step_1")
    assert len({kind_of(of(runs, name), runs) for name in names}) == len(names)
    assert kind_of(of(runs, "joint_equal"), runs) == kind_of(of(runs, "joint_proposed"), runs)


def test_images_are_counted_by_release_and_share_or_in_made_splits(settings, tmp_path):
    counted = image_counts(settings)
    assert counted["isic2018_task1"] == (1816, 259)  # 70 % and 10 % of 2594
    rows = [{"image_id": str(number), "split": "train" if number < 5 else "val"} for number in range(7)]
    write_csv(tmp_path / "splits" / "ph2.csv", ("image_id", "split"), [*rows, {"image_id": "7", "split": "test"}])
    assert image_counts(settings, tmp_path) == counted | {"ph2": (5, 2)}
    made = image_counts(config.load("smoke"))
    assert made["ham10000"] == (69, 10)  # 70 lesions of 1.4 photographs


def test_what_is_not_measured_is_named(settings, runs):
    images = image_counts(settings)
    text = table.cost_table(images, runs, {})
    trained = [run for run in runs.values() if training_work(run, images).steps]
    assert f"{len(trained)} runs have no measured rate" in text
    assert "| all" not in text


def test_estimates_are_operations_by_rate_and_say_so(runs):
    run = of(runs, "sam_adapter")
    counted = {"train": 4 * 10**11, "forward": 2 * 10**11}
    text = table.cost_table(IMAGES, {run.run_id: run}, {}, table.Card(100.0, 0.25), lambda run, runs: counted)
    # 97600 images x 0.4 TFLOP and 13950 x 0.2 TFLOP are 41830 TFLOP; 25 of them a second
    assert "| sam_adapter | 1 | 12200 | 3.429 | 0.1371 | estimate | 0.46 |" in text
    assert "| all estimated | 1 | | | | | 0.46 |" in text
    assert "Estimates, not measurements" in text
    assert "100 TFLOP/s x 0.25" in text


def test_a_measured_rate_comes_before_an_estimate(runs, tmp_path):
    run = of(runs, "sam_adapter")
    finished(tmp_path, run, 100, 50.0)
    counted = {"train": 4 * 10**11, "forward": 2 * 10**11}
    rates = measured_rates(tmp_path)
    text = table.cost_table(IMAGES, {run.run_id: run}, rates, table.Card(100.0, 0.25), lambda run, runs: counted)
    assert f"{run.run_id} on cuda, 6857 GFLOP/s | 1.69 |" in text  # 3.429 TFLOP in half a second
    assert "estimate" not in text.lower()


def test_a_step_takes_its_least_however_little_it_computes():
    card = table.Card(100.0, 0.25, 0.05)
    assert card.seconds(10**9) == 0.05
    assert card.seconds(5 * 10**12) == 0.2


@pytest.mark.parametrize(
    ("tflops", "share", "least"), [(0.0, 0.3, 0.0), (312.0, 0.0, 0.0), (312.0, 1.1, 0.0), (312.0, 0.3, -0.1)]
)
def test_a_card_that_cannot_be_is_refused(tflops, share, least):
    with pytest.raises(SettingsError, match="cannot be"):
        table.Card(tflops, share, least)


def test_stated_rates(runs):
    kind = kind_of(of(runs, "sam_adapter"), runs)
    assert stated_rates([f"{kind}=0.25"], runs)[kind].seconds == 0.25
    for wrong in ("sam", "sam=1", f"{kind}=fast", f"{kind}=-1", f"{kind}=inf"):
        with pytest.raises(SettingsError, match="is no rate"):
            stated_rates([wrong], runs)


def test_a_folder_without_runs_has_no_rates(tmp_path):
    with pytest.raises(RunError, match="No run was trained"):
        measured_rates(tmp_path)
