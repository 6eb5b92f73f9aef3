"""Subgroups: weighted metrics equal the plain ones, gaps that are there are found, and few lesions raise no flag."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_store import classification_row, make_plan

from lesion_core.files import read_csv, write_parquet
from lesion_core.metrics.calibration import brier, ece
from lesion_core.metrics.classification import scores
from lesion_core.metrics.weighted import METRICS, weighted_scores
from lesion_core.paths import Layout
from lesion_core.report.subgroups import UNKNOWN, age_band, attributes, read_metadata, write_subgroups
from lesion_core.scores import write_scores
from lesion_core.settings import load as config
from lesion_core.stats.subgroups import subgroup_metrics


def random_scores(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = np.round(rng.dirichlet(np.ones(classes), count), 1) + 1e-9  # rounded: ties
    return rng.integers(0, classes, count), p / p.sum(axis=1, keepdims=True)


def plain(truth: np.ndarray, p: np.ndarray) -> dict[str, float]:
    return {**scores(truth, p, melanoma=1), "brier": brier(truth, p), "ece": ece(truth, p)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 4))
def test_whole_weights_are_copies(seed, count, classes):
    truth, p = random_scores(seed, count, classes)
    copies = np.random.default_rng(seed).integers(0, 3, count)
    weights = np.vstack([np.ones(count), np.where(copies.sum(), copies, 1)])
    found = weighted_scores(truth, p, weights, melanoma=1)
    for row, times in enumerate(weights.astype(int)):
        expected = plain(np.repeat(truth, times), np.repeat(p, times, axis=0))
        for name in METRICS:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_no_image_is_not_a_number():
    truth, p = random_scores(1, 5, 3)
    assert all(math.isnan(value[0]) for value in weighted_scores(truth, p, np.zeros((1, 5)), 1).values())


def accuracy_of(correct: np.ndarray):
    return lambda members, weights: {"accuracy": weights @ correct[members] / weights.sum(axis=1)}


def run_subgroups(correct: np.ndarray, group: list[str], lesions: list[str], **changes):
    given_ = {"seed": 1, "resamples": 600, "alpha": 0.05, **changes}
    return {item.group: item for item in subgroup_metrics({"sex": group}, lesions, accuracy_of(correct), **given_)}


def test_a_planted_gap_is_flagged_and_an_absent_one_is_not():
    rng = np.random.default_rng(5)
    group = ["female", "male"] * 200
    lesions = [str(number // 2) for number in range(400)]
    alike = (rng.random(400) < 0.8).astype(float)
    assert not any(item.flagged for item in run_subgroups(alike, group, lesions).values())
    worse = np.where(np.array(group) == "male", rng.random(400) < 0.55, rng.random(400) < 0.9).astype(float)
    found = run_subgroups(worse, group, lesions)
    assert found["male"].flagged
    assert found["male"].gap_high < 0 < found["female"].gap_low
    assert found["male"].value == pytest.approx(worse[1::2].mean())
    assert found["male"].gap == pytest.approx(worse[1::2].mean() - worse.mean())
    assert (found["male"].n, found["male"].lesions) == (200, 200)


def test_few_lesions_raise_no_flag_however_great_the_gap():
    correct = np.r_[np.ones(60), np.zeros(19)]
    found = run_subgroups(correct, ["female"] * 60 + ["male"] * 19, [str(n) for n in range(79)])
    assert found["male"].gap_high < 0
    assert not found["male"].flagged
    assert not found["female"].flagged
    assert found["male"].note == "19 lesions are few"


def test_images_of_one_lesion_are_drawn_together():
    rng = np.random.default_rng(2)
    per_lesion = (rng.random(60) < 0.5).astype(float)
    correct, lesions = np.repeat(per_lesion, 4), [str(n // 4) for n in range(240)]
    clustered = run_subgroups(correct, ["a"] * 240, lesions)["a"]
    alone = run_subgroups(correct, ["a"] * 240, [str(n) for n in range(240)])["a"]
    assert clustered.high - clustered.low == pytest.approx(2 * (alone.high - alone.low), rel=0.25)


def test_the_false_alarm_rate_is_that_of_the_level():
    alarms = 0
    for trial in range(120):
        rng = np.random.default_rng(trial)
        correct = (rng.random(120) < 0.7).astype(float)
        group = [f"site {n % 3}" for n in range(120)]
        found = run_subgroups(correct, group, [str(n) for n in range(120)], resamples=200, seed=trial)
        alarms += any(item.flagged for item in found.values())
    assert alarms / 120 < 0.12


def test_age_bands():
    bands = [30.0, 45.0, 60.0]
    assert [age_band(age, bands) for age in (None, 0.0, 29.0, 30.0, 59.0, 60.0, 85.0)] == [
        UNKNOWN, "0-29", "0-29", "30-44", "45-59", "60+", "60+",
    ]  # fmt: skip
    known = pd.DataFrame({"age": [20.0, None], "sex": None, "site": None, "dx_type": None, "field": "square"})
    assert attributes(known, bands) == {"age": ["0-29", UNKNOWN]}
    fields = attributes(known.assign(field=["square", "not square"]), bands)["field"]
    assert fields == ["square", "not square"]


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    rows, catalog = [], []
    labels = ("nv", "mel", "bkl")
    for number in range(60):
        name = f"im{number:02d}"
        label, guess = labels[number % 3], labels[(number % 3 + (number % 5 == 0)) % 3]
        for seed in (0, 1):
            rows.append(classification_row(f"vit_none-s{seed}", name, label, guess if seed else label))
        known = {"age": float(number), "sex": ("male", "female", None)[number % 3], "site": None}
        catalog.append({"dataset": "ham10000", "image_id": name, **known})
        catalog.append({"dataset": "isic2018_task3", "image_id": name, "age": None, "sex": None, "site": "back"})
    write_scores(layout.scores("classification"), "classification", rows)
    columns = {"dataset": "string", "image_id": "string", "age": "float64", "sex": "string", "site": "string"}
    layout.catalog.parent.mkdir()
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(catalog, schema=pyarrow.schema(columns)))
    return layout


def test_the_table_from_scores_and_catalog(layout):
    plan = make_plan(runs={"vit_none": ["vit_none-s0", "vit_none-s1"]})
    chosen = config.load("smoke").subgroups.model_copy(update={"methods": ["vit_none", "absent"], "resamples": 200})
    contents = []
    for _ in range(2):
        write_subgroups(layout.root, plan, chosen)
        contents.append((layout.root / "statistics" / "subgroups.csv").read_bytes())
    assert contents[0] == contents[1]
    rows = read_csv(layout.root / "statistics" / "subgroups.csv")
    assert {row["metric"] for row in rows} == set(METRICS)
    assert {row["attribute"] for row in rows} == {"age", "sex", "site"}
    male = next(row for row in rows if (row["group"], row["metric"]) == ("male", "accuracy"))
    # every fifth image is missed by one of two seeds: images 0, 15, 30, 45 of the 20 men
    assert float(male["value"]) == pytest.approx(1 - 4 / 20 / 2)
    assert (male["n"], male["lesions"], male["seeds"]) == ("20", "20", "2")
    assert float(male["low"]) <= float(male["value"]) <= float(male["high"])
    one_class = next(row for row in rows if (row["group"], row["metric"]) == ("male", "auc"))
    assert one_class["value"] == ""
    assert "one class alone" in one_class["note"]


def test_metadata_of_the_same_image_in_another_release(layout):
    known = read_metadata(layout)
    task3 = dict(known.loc["isic2018_task3", "im07"].dropna())
    assert task3 == {"age": 7.0, "sex": "female", "site": "back", "field": "not square"}
    assert known.loc["ham10000", "im07"]["site"] == "back"
