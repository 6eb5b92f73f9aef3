"""Statistics: seeds and images apart, clusters by lesion, Holm by family, and what n cannot show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from report_store import (
    IMAGES,
    classification_row,
    classification_rows,
    make_plan,
    make_store,
    segmentation_row,
    segmentation_rows,
)

from lesion_core.errors import ScoreError
from lesion_core.files import read_csv
from lesion_core.report.statistics import write_statistics
from lesion_core.report.statistics_tables import judgement
from lesion_core.stats.multiple import holm


def run(root, plan=None, **rows):
    make_store(root, **rows)
    write_statistics(root, plan or make_plan())
    return read_csv(root / "statistics" / "tests.csv")


def one(tests, table, level, other):
    return next(t for t in tests if (t["table"], t["level"], t["other"]) == (table, level, other))


@pytest.fixture(scope="module")
def tests_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("statistics")
    return root, run(root)


def test_each_comparison_has_one_row_per_level(tests_of):
    _, tests = tests_of
    keys = [(t["table"], t["level"], t["other"]) for t in tests]
    assert keys == [
        ("sam_vit_table_15", "seed", "sam_frozen"),
        ("sam_vit_table_15", "image", "sam_frozen"),
        ("sam_vit_table_16", "seed", "vit_none"),
        ("sam_vit_table_16", "image", "vit_none"),
    ]


def test_seed_level_pairs_seeds_by_hand(tests_of):
    # 0.8 and 0.9 against the frozen model's 0.65, which has one run: differences 0.15 and 0.25
    seed = one(tests_of[1], "sam_vit_table_15", "seed", "sam_frozen")
    assert (seed["n"], seed["clusters"], seed["interval"]) == ("2", "", "t")
    assert float(seed["difference"]) == pytest.approx(0.20)
    # d_z = 0.2 / (0.1 / sqrt 2), t = 4, t(0.975, 1) = 12.706
    assert float(seed["d_z"]) == pytest.approx(0.2 / (0.1 / 2**0.5))
    assert float(seed["ci_low"]) == pytest.approx(0.2 - 12.7062047 * 0.05, abs=1e-6)
    assert float(seed["p_wilcoxon"]) == float(seed["p_wilcoxon_smallest"]) == 0.5
    assert seed["too_small"] == "yes"
    assert "n too small" in seed["notes"]
    assert "one run: it stands against every seed" in seed["notes"]


def test_image_level_pairs_images_by_hand(tests_of):
    # per image, mean over seeds: 0.8 0.8 0.9 0.9 against 0.5 0.6 0.7 0.8
    image = one(tests_of[1], "sam_vit_table_15", "image", "sam_frozen")
    difference = np.array([0.3, 0.2, 0.2, 0.1])
    assert (image["n"], image["clusters"], image["interval"]) == ("4", "4", "BCa, clustered by lesion")
    assert float(image["difference"]) == pytest.approx(0.20)
    assert float(image["d_z"]) == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert float(image["p_wilcoxon"]) == pytest.approx(2 / 2**4)
    assert 0.1 <= float(image["ci_low"]) < 0.2 < float(image["ci_high"]) <= 0.3


def test_classification_counts_hits(tests_of):
    # vit_none is right on a alone, vit_cross_attention on a, b and d
    image = one(tests_of[1], "sam_vit_table_16", "image", "vit_none")
    assert float(image["difference"]) == pytest.approx(0.5)
    assert float(image["p_mcnemar"]) == pytest.approx(0.5)
    seed = one(tests_of[1], "sam_vit_table_16", "seed", "vit_none")
    assert (seed["n"], seed["ci_low"], seed["p_wilcoxon"], seed["p_mcnemar"]) == ("1", "", "", "")
    assert "n too small" in seed["notes"]


def test_tables_say_n_too_small(tests_of):
    root, _ = tests_of
    lines = (root / "tables" / "sam_vit_table_15.md").read_text().splitlines()
    assert lines[0] == "**Tests of segmentation**"
    assert next(line for line in lines if "| seed |" in line).endswith(
        "| n too small: with 2 differing pairs a two-sided Wilcoxon cannot go below p = 0.5 |"
    )
    assert {path.suffix for path in (root / "tables").glob("sam_vit_table_16.*")} == {".csv", ".md", ".tex"}
    assert len(read_csv(root / "tables" / "sam_vit_table_15.csv")) == 2


def test_same_bytes_twice(tests_of, tmp_path):
    root, _ = tests_of
    run(tmp_path)
    for name in ("statistics/tests.csv", "tables/sam_vit_table_15.md", "tables/sam_vit_table_16.tex"):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_images_of_one_lesion_are_one_pair(tmp_path):
    lesions = dict(zip(IMAGES, ("x", "x", "x", "y"), strict=True))
    rows = [row | {"lesion_id": lesions[row["image_id"]]} for row in segmentation_rows()]
    image = one(run(tmp_path, segmentation=rows), "sam_vit_table_15", "image", "sam_frozen")
    # lesion means of the differences 0.3 0.2 0.2 | 0.1
    assert (image["n"], image["clusters"]) == ("4", "2")
    pair = np.array([0.7 / 3, 0.1])
    assert float(image["d_z"]) == pytest.approx(pair.mean() / pair.std(ddof=1))
    assert float(image["difference"]) == pytest.approx(0.20)
    assert "2 lesions" in image["notes"]


def test_seeds_are_matched_by_number_not_by_place(tmp_path):
    plan = make_plan(
        runs={"sam_adapter": ["sam_adapter-s0", "sam_adapter-s1", "sam_adapter-s2"], "unet": ["unet-s1", "unet-s2"]}
    )
    means = {"sam_adapter-s0": 0.1, "sam_adapter-s1": 0.5, "sam_adapter-s2": 0.7, "unet-s1": 0.4, "unet-s2": 0.65}
    rows = [segmentation_row(name, image, mean) for name, mean in means.items() for image in IMAGES]
    seed = one(run(tmp_path, plan, segmentation=rows), "sam_vit_table_15", "seed", "unet")
    assert seed["n"] == "2"
    assert float(seed["difference"]) == pytest.approx((0.1 + 0.05) / 2)
    assert "only seeds 1, 2" in seed["notes"]


def test_no_common_seed(tmp_path):
    plan = make_plan(runs={"unet": ["unet-s7", "unet-s8"]})
    rows = segmentation_rows() + [segmentation_row(f"unet-s{n}", image, 0.4) for n in (7, 8) for image in IMAGES]
    tests = run(tmp_path, plan, segmentation=rows)
    seed = one(tests, "sam_vit_table_15", "seed", "unet")
    assert (seed["n"], seed["difference"], seed["too_small"]) == ("0", "", "yes")
    assert one(tests, "sam_vit_table_15", "image", "unet")["n"] == "4"


def test_holm_is_over_one_table_and_level(tmp_path):
    images = [f"i{number:02d}" for number in range(12)]
    rng = np.random.default_rng(0)
    names = ("sam_adapter-s0", "unet-s0", "sam_frozen-s0")
    rows = [
        segmentation_row(name, image, float(rng.uniform(0.4, 0.6)) + 0.1 * (place == 0))
        for place, name in enumerate(names)
        for image in images
    ]
    tests = run(tmp_path, make_plan(runs={name.split("-")[0]: [name] for name in names}), segmentation=rows)
    for level in ("seed", "image"):
        family = [t for t in tests if (t["table"], t["level"]) == ("sam_vit_table_15", level)]
        assert len(family) == 2
        if level == "seed":
            assert {t["p_holm"] for t in family} == {""}
            continue
        expected = holm(np.array([float(t["p_wilcoxon"]) for t in family]))
        assert [float(t["p_holm"]) for t in family] == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("learnt", "prompt", "compared"),
    [
        (["isic2018_task1"], "none", True),
        ([], "none", True),
        (["isic2017"], "none", False),
        (["isic2018_task1"], "oracle_box", False),
    ],
)
def test_only_rows_of_one_training_set_and_prompt_source_are_compared(tmp_path, learnt, prompt, compared):
    plan = make_plan(runs={"unet": ["unet-s0"]})
    table = plan.tables["sam_vit_table_05"]
    rows = [row.model_copy(update={"prompt": prompt}) if row.method == "unet" else row for row in table.rows]
    plan = plan.model_copy(
        update={
            "tables": plan.tables | {"sam_vit_table_05": table.model_copy(update={"rows": rows})},
            "trained_on": plan.trained_on | {"unet": {"segmentation": learnt}},
        }
    )
    scores = segmentation_rows() + [segmentation_row("unet-s0", image, 0.4, prompt=prompt) for image in IMAGES]
    others = {test["other"] for test in run(tmp_path, plan, segmentation=scores)}
    assert ("unet" in others) == compared


def test_names_that_share_runs_are_compared_once(tmp_path):
    plan = make_plan(runs={"frozen_again": ["sam_frozen-s0"], "proposed_again": ["sam_adapter-s0", "sam_adapter-s1"]})
    tests = [t for t in run(tmp_path, plan) if t["table"] == "sam_vit_table_15"]
    assert {t["other"] for t in tests} == {"sam_frozen"}


def test_different_images_are_refused_and_named(tmp_path):
    rows = [row for row in segmentation_rows() if not (row["method"] == "sam_frozen" and row["image_id"] == "b")]
    make_store(tmp_path, segmentation=rows)
    with pytest.raises(ScoreError, match="different images") as error:
        write_statistics(tmp_path, make_plan())
    assert error.value.ids == ("b",)
    assert not (tmp_path / "statistics" / "tests.csv").exists()


def test_one_lesion_alone_has_no_interval(tmp_path):
    rows = [
        classification_row(f"{name}-s0", image, "nv", "nv" if name == "vit_none" else "mel", lesion_id="same")
        for name in ("vit_none", "vit_cross_attention")
        for image in IMAGES
    ]
    image = one(run(tmp_path, classification=rows), "sam_vit_table_16", "image", "vit_none")
    assert (image["clusters"], image["ci_low"], image["too_small"]) == ("1", "", "yes")


def test_nothing_to_compare_still_writes_both_tables(tmp_path):
    assert run(tmp_path, segmentation=[], classification=[]) == []
    assert (tmp_path / "tables" / "sam_vit_table_15.md").is_file()


def test_judgement_puts_n_first():
    small = {"too_small": "yes", "p_holm": "0.001", "notes": "a note; n too small: two pairs; another"}
    assert judgement(small, 0.05) == "n too small: two pairs"


@pytest.mark.parametrize(
    ("p", "low", "high", "says"),
    [
        ("0.001", "0.1", "0.2", "different"),
        ("0.2", "-0.1", "0.2", "no difference shown"),
        ("0.2", "", "", "no difference shown"),
        ("0.0458", "-0.08", "0.14", "no difference shown, by the interval; Holm's p (0.0458) disagrees"),
        ("0.07", "0.01", "0.14", "different, by the interval; Holm's p (0.07) disagrees"),
    ],
)
def test_no_judgement_rests_on_one_p_against_its_own_interval(p, low, high, says):
    assert judgement({"too_small": "", "p_holm": p, "ci_low": low, "ci_high": high}, 0.05) == says


def test_classifiers_are_tested_by_image_and_by_lesion(tmp_path):
    lesions = dict(zip(IMAGES, ("x", "x", "y", "z"), strict=True))
    rows = [row | {"lesion_id": lesions[row["image_id"]]} for row in classification_rows()]
    image = one(run(tmp_path, classification=rows), "sam_vit_table_16", "image", "vit_none")
    # b (lesion x, two images) and d (lesion z) are right with fusion alone: shares 1/2 and 1
    assert float(image["p_mcnemar"]) == float(image["p_mcnemar_smallest"]) == 0.5
    assert float(image["p_mcnemar_by_lesion"]) == pytest.approx(math.erfc(math.sqrt(1.5**2 / 1.25 / 2)))
    assert image["runs"] == "vit_cross_attention-s0"
    assert image["other_runs"] == "vit_none-s0"


def test_every_pair_of_seeds_is_tested_and_told_as_one(tmp_path):
    """Three seeds with 3, 2 and 0 disagreements, all for fusion: exact p 0.25, 0.5 and 1, so 3/2 of the median."""
    right = {0: (3, 0), 1: (3, 1), 2: (1, 1)}  # of the four images, by seed: with fusion, without
    rows = [
        classification_row(f"{method}-s{seed}", image, "nv", "nv" if place < hits[side] else "mel")
        for seed, hits in right.items()
        for side, method in enumerate(("vit_cross_attention", "vit_none"))
        for place, image in enumerate(IMAGES)
    ]
    names = ("vit_cross_attention", "vit_none")
    plan = make_plan(runs={name: [f"{name}-s{seed}" for seed in right] for name in names})
    image = one(run(tmp_path, plan, classification=rows), "sam_vit_table_16", "image", "vit_none")
    assert image["seed_pairs"] == "3"
    assert float(image["p_mcnemar"]) == pytest.approx(0.75)
    assert image["p_mcnemar_range"] == "0.25 to 1"
    assert float(image["p_mcnemar_smallest"]) == pytest.approx(0.75)
