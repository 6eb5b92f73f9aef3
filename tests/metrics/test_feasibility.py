from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesion_core.errors import ScoreError
from lesion_core.metrics.feasibility.confusion import auc_bounds, check_confusion, pooled_metrics
from lesion_core.metrics.feasibility.effects import check_effect
from lesion_core.metrics.feasibility.pairs import check_pair, iou_of_dice, least_share_below
from lesion_core.metrics.feasibility.rates import check_rates
from lesion_core.metrics.feasibility.spread import (
    greatest_dice_variance,
    greatest_sds,
    least_sd,
    spread_of_dice,
    spread_of_iou,
)

# (Dice, IoU) as printed, with the place where they stand.
GL_MED_SA = {  # paper 001, Table I, text
    "SAM 1-point": (81.6, 70.4),
    "SAM 3-points": (85.8, 77.5),
    "MedSAM 1-point": (86.8, 77.5),
    "MedSAM 3-points": (87.5, 78.6),
    "Med-SA 1-point": (92.6, 84.1),
    "Med-SA 3-points": (93.4, 84.7),
    "GL-Med-SA 1-point": (92.9, 84.5),
    "GL-Med-SA 3-points": (93.8, 85.0),
    "ResUNet": (87.1, 78.2),
    "BEAL": (86.6, 78.0),
    "TransBTS": (88.1, 80.6),
    "EnsemDiff": (88.2, 80.7),
    "MTSeg": (87.5, 79.7),
    "UltraUNet": (89.0, 81.8),
    "FAT-Net": (90.7, 83.9),
    "BAT": (91.2, 84.3),
    "SegDiff": (87.3, 79.4),
    "nnUNet": (90.8, 83.6),
    "TransUNet": (89.4, 82.2),
    "UNetr": (89.7, 82.8),
    "Swin-UNetr": (90.2, 83.1),
}
SEGMAE = {  # paper 003, Tables 1-3, rows "SegMAE", text
    "ISIC 2017": (0.864, 0.757),
    "ISIC 2018": (0.896, 0.820),
    "PH2": (0.941, 0.881),
}
SAM_VIT = {"ISIC 2018": (94.27, 92.83), "PH2": (95.62, 92.91)}  # paper 000, Tables 5 and 6, text
DUAL_NETWORK = (91.17, 84.35)  # paper 002, key results, text
PEFT_MEDSAM = (0.9411, 0.8918)  # paper 004, summary, text


def pair(dice, iou, decimals=2, *, n=None, unit="percent", **more):
    """The verdict of two numbers that are printed with ``decimals`` decimals."""
    return check_pair(f"{dice:.{decimals}f}", f"{iou:.{decimals}f}", n, unit=unit, **more)


def test_gl_med_sa_exactly_the_four_adapter_pairs_are_impossible():
    impossible = {name for name, printed in GL_MED_SA.items() if pair(*printed, 1).verdict == "impossible"}
    assert impossible == {"Med-SA 1-point", "Med-SA 3-points", "GL-Med-SA 1-point", "GL-Med-SA 3-points"}


def test_segmae_exactly_isic_2017_and_ph2_are_impossible():
    verdicts = {name: pair(*printed, 3, unit="fraction").verdict for name, printed in SEGMAE.items()}
    assert verdicts == {
        "ISIC 2017": "impossible",
        "ISIC 2018": "possible only with spread",
        "PH2": "impossible",
    }


def test_sam_vit_needs_an_extreme_spread():
    result = pair(*SAM_VIT["ISIC 2018"], n=519)
    assert result.verdict == "possible only with spread"
    assert round(result.least_sd_printed, 3) == 0.176
    assert round(result.dice_sd.least, 3) == 0.176
    assert result.dice_sd.least < result.least_sd_printed
    assert not result.pooled_possible
    assert result.iou_low == pytest.approx(0.94265 / 1.05735)
    assert result.pooled_high == pytest.approx(0.94275 / 1.05725)
    assert result.least_images_below == 19
    assert "at least 17.5 % (17.6 % for the values as printed)" in result.explanation
    ph2 = pair(*SAM_VIT["PH2"])
    assert ph2.verdict == "possible only with spread"
    assert ph2.least_sd_printed == pytest.approx(0.0916, abs=5e-5)


def test_the_other_two_papers_are_possible():
    assert pair(*DUAL_NETWORK).verdict == "possible only with spread"
    peft = pair(*PEFT_MEDSAM, 4, unit="fraction")
    assert peft.verdict == "possible only with spread"
    assert peft.dice_sd.least < 0.06


def test_pooled_pairs_are_possible_without_spread():
    result = pair(90.0, 81.82)
    assert result.verdict == "possible"
    assert result.pooled_possible
    assert result.dice_sd.least == result.least_share_below == 0.0
    assert pair(100.0, 100.0).verdict == "possible"
    assert pair(0.0, 0.0).verdict == "possible"


def test_iou_above_dice_is_impossible():
    result = pair(80.0, 80.1)
    assert result.verdict == "impossible"
    assert math.isnan(result.dice_sd.least)
    assert math.isnan(result.least_share_below)


def test_rounding_decides_at_the_edge():
    # 0.90 / 1.10 = 0.81818...
    assert check_pair("0.900", "0.818").verdict == "possible"
    assert check_pair("0.900", "0.8175").verdict == "possible"
    assert check_pair("0.9000", "0.8175").verdict == "impossible"
    assert check_pair("90", "82").verdict == "possible"


def test_few_images_bound_the_iou_from_above():
    # Two images of mean Dice 0.75: at best 1.0 and 0.5, IoU (1 + 1/3) / 2.
    assert check_pair("0.75", "0.66", 2).verdict == "possible only with spread"
    assert check_pair("0.75", "0.70", 2).verdict == "impossible"
    assert check_pair("0.75", "0.70").verdict == "possible only with spread"
    assert check_pair("0.7500", "0.6667", 2).iou_high == pytest.approx(2 / 3, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_no_real_table_is_called_impossible(dices):
    d = np.array(dices)
    j = d / (2 - d)
    result = pair(100 * d.mean(), 100 * j.mean(), n=len(d))
    assert result.verdict != "impossible"
    assert d.std() >= result.dice_sd.least - 1e-9
    assert np.mean(j < 0.65 + 1e-12) >= result.least_share_below - 1e-9
    exact = pair(d.mean(), j.mean(), 12, unit="fraction")
    assert d.std() >= exact.dice_sd.least - 1e-5


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_pooled_counts_are_never_called_impossible(tp, wrong):
    d, j = 2 * tp / (2 * tp + wrong), tp / (tp + wrong)
    result = pair(d, j, 4, unit="fraction", pooled=True)
    assert result.verdict == "possible"
    assert result.pooled_possible


def linear_programme(cost, dice, iou, grid):
    from scipy.optimize import linprog

    rows = np.array([np.ones_like(grid), grid, grid / (2 - grid)])
    return linprog(cost, A_eq=rows, b_eq=[1.0, dice, iou], bounds=(0, None), method="highs")


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.99), st.floats(0.02, 0.98))
def test_closed_forms_equal_the_linear_programme(dice, position):
    iou = iou_of_dice(dice) + position * (dice - iou_of_dice(dice))
    d0 = 1.3 / 1.65
    grid = np.unique(np.r_[np.linspace(0, 1, 2001), d0, np.linspace(max(0, dice - 0.02), min(1, dice + 0.02), 200)])
    spread = linear_programme(grid**2, dice, iou, grid)
    assert spread.status == 0
    assert math.sqrt(max(0.0, spread.fun - dice**2)) == pytest.approx(least_sd(dice, iou), abs=2e-4)
    share = linear_programme((grid < d0 - 1e-9).astype(float), dice, iou, grid)
    assert share.fun == pytest.approx(least_share_below(dice, iou), abs=2e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 0.98), st.floats(0.0, 1.0))
def test_rounding_works_in_the_pairs_favour(dice, position):
    iou = iou_of_dice(dice) + position * (dice - iou_of_dice(dice))
    assume(0.02 < iou < 0.98)
    result = pair(dice, iou, unit="fraction")
    assert result.verdict != "impossible"
    assert result.dice_sd.least <= least_sd(dice, iou) + 1e-12
    assert result.least_share_below <= least_share_below(dice, iou) + 1e-9
    corners = [
        least_share_below(d, j)
        for d in np.linspace(result.dice.low, result.dice.high, 15)
        for j in np.linspace(result.iou.low, result.iou.high, 15)
    ]
    finite = [c for c in corners if not math.isnan(c)]
    assert not finite or result.least_share_below <= min(finite) + 1e-9


def test_planted_sets_reach_the_least_spread():
    # 2 of 10 images of Dice 0.4, the others perfect.
    d = np.array([0.4] * 2 + [1.0] * 8)
    assert least_sd(d.mean(), (d / (2 - d)).mean()) == pytest.approx(d.std())
    d0 = 1.3 / 1.65
    d = np.array([0.0, 1.0, d0, d0])
    assert least_share_below(d.mean(), (d / (2 - d)).mean()) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("dice", "iou", "more", "says"),
    [
        ("120", "80", {}, "Dice 120 does not lie between 0 and 100 %"),
        ("94.27", "92.83", {"unit": "fraction"}, "leave out --fraction"),
        ("94.27 %", "92.83", {"unit": "fraction"}, "per cent, not a fraction"),
        ("-1", "80", {}, "between 0 and 100 %"),
        ("nan", "80", {}, "not a printed number"),
        ("90", "85", {"n": 0}, "at least one image"),
        ("90", None, {}, "IoU too, or an SD"),
        ("0.921", "87.9", {}, "Mixed units: Dice 0.921 .* IoU 87.9"),
        ("92.1", "0.879", {}, "Mixed units: IoU 0.879 .* Dice 92.1"),
        ("0.92 ± 3.1", "0.879", {}, "Mixed units"),
    ],
)
def test_bad_pairs_are_refused(dice, iou, more, says):
    with pytest.raises(ScoreError, match=says):
        check_pair(dice, iou, **more)


def test_a_unit_that_is_given_settles_mixed_looks():
    assert check_pair("1.5", "0.8", unit="percent").verdict == "possible"
    assert check_pair("0.9 %", "0.5 %").verdict == "possible"
    assert check_pair("0.90 %", "0.0045").verdict == "possible"
    assert check_pair("92.1 %", "0.879").explanation.startswith("Dice 92.1 % with IoU 0.879 is possible only if")


def test_bounds_and_ranges_are_as_wide_as_they_say():
    assert check_pair(">92.0", "84.0").verdict == "impossible"
    assert check_pair("91-93", "84.0").verdict == "possible"
    assert check_pair("92.6", "<84.1").verdict == "impossible"
    assert check_pair("92.6", ">84.1").verdict == "possible"


def test_pooled_pixels_leave_no_choice():
    # 0.90 / 1.10 = 0.818
    assert check_pair("0.900", "0.818", pooled=True).verdict == "possible"
    assert check_pair("0.900", "0.830").verdict == "possible only with spread"
    assert check_pair("0.900", "0.830", pooled=True).verdict == "impossible"


def test_the_greatest_sd_by_hand():
    # 9 of 10 values are 1, one is 0: variance 0.09, sample variance 0.1
    assert greatest_sds(0.9, 0.9, 10) == pytest.approx((0.3, math.sqrt(0.1)))
    # two values of mean 0.9 are at most 1 and 0.8
    assert greatest_sds(0.9, 0.9, 2) == pytest.approx((0.1, math.sqrt(0.02)))
    # 2 1/2 of 5: two are 1, one is 1/2
    assert greatest_sds(0.5, 0.5, 5)[0] ** 2 == pytest.approx(2.25 / 5 - 0.25)
    assert greatest_sds(0.3, 0.6)[0] == 0.5
    assert greatest_sds(0.3, 0.6, 1) == (0, 0)
    # any n: two values, 0 and 1
    assert greatest_sds(0.5, 0.5)[1] == pytest.approx(math.sqrt(0.5))
    # Dice 0 and 0.75 in equal parts: IoU 0 and 0.6
    assert greatest_dice_variance((0.375, 0.375), (0.3, 0.3)) == pytest.approx(0.375**2)


def test_an_sd_decides():
    assert check_pair("90.0 ± 32", n=100).verdict == "impossible"
    assert check_pair("90.0 ± 32", n=10).verdict == "possible"
    assert check_pair("90.0 ± 35").verdict == "impossible"
    assert check_pair("90.0 ± 12", "82.0", 519).verdict == "impossible"
    assert check_pair("90.0 ± 4", "82.0", 519).verdict != "impossible"
    assert check_pair("90.0", "82.0 ± 45", 519).verdict == "impossible"
    few = check_pair("94.27 ± 0.31", "92.83")
    assert few.verdict == "SD not over images"
    assert few.explanation.endswith(
        "The printed SD is none over images (Dice: 0.31 % means at most 0.315 %, images have at least 17.5 %): "
        "it may be one over runs, or a standard error."
    )
    assert "sample SD (divisor n - 1) of at most 30.2 %" in check_pair("90.0 ± 32", n=100).explanation


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=2, max_size=12),
    st.integers(0, 1),
    st.integers(1, 3),
    st.booleans(),
)
def test_no_real_sample_with_its_sd_is_called_impossible(dices, ddof, decimals, known):
    d = np.array(dices)
    j = d / (2 - d)
    dice, iou = (f"{100 * x.mean():.{decimals}f} ± {100 * x.std(ddof=ddof):.{decimals}f}" for x in (d, j))
    for printed in ((dice, iou), (dice, None)):
        found = check_pair(*printed, len(d) if known else None, unit="percent")
        assert found.verdict != "impossible"
        assert found.verdict != "SD not over images"
        for values, spread in ((d, found.dice_sd), (j, found.iou_sd)):
            assert spread.least - 1e-9 <= values.std() <= spread.greatest + 1e-9
            assert values.std(ddof=1) <= spread.greatest_sample + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.98), st.floats(0.02, 0.98))
def test_the_greatest_variance_equals_the_linear_programme(dice, position):
    iou = iou_of_dice(dice) + position * (dice - iou_of_dice(dice))
    grid = np.unique(np.r_[np.linspace(0, 1, 2001), 2 - dice / iou])
    found = linear_programme(-(grid**2), dice, iou, grid)
    assert -found.fun - dice**2 == pytest.approx(greatest_dice_variance((dice, dice), (iou, iou)), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.98), st.floats(0.02, 0.98))
def test_the_spread_of_iou_equals_the_linear_programme(dice, position):
    iou = iou_of_dice(dice) + position * (dice - iou_of_dice(dice))
    y = 2 * iou / dice - 1
    grid = np.unique(np.r_[np.linspace(0, 1, 2001), 2 * y / (1 + y), 2 - 2 * (1 - dice) / (1 - iou)])
    found = spread_of_iou((dice, dice), (iou, iou))
    for sign, bound in ((1, found.least), (-1, found.greatest)):
        value = sign * linear_programme(sign * (grid / (2 - grid)) ** 2, dice, iou, grid).fun
        assert value - iou**2 == pytest.approx(bound**2, abs=1e-6)


def test_spread_by_hand():
    # half of the images Dice 0 and IoU 0, half Dice 3/4 and IoU 3/5: the farthest Dice, the nearest IoU
    means = (0.375, 0.375), (0.3, 0.3)
    assert (spread_of_dice(*means).greatest, spread_of_iou(*means).least) == pytest.approx((0.375, 0.3))
    # half Dice 1 and IoU 1 instead: the nearest Dice, the farthest IoU
    means = (0.875, 0.875), (0.8, 0.8)
    assert (spread_of_dice(*means).least, spread_of_iou(*means).greatest) == pytest.approx((0.125, 0.2))


def test_the_spread_is_that_of_means_which_can_be():
    # an IoU of 0.85 or more needs a Dice of at least 0.85: 0.85 * 0.15
    assert spread_of_dice((0.5, 1.0), (0.85, 0.95)).greatest == pytest.approx(math.sqrt(0.85 * 0.15))
    # a Dice of 0.5 or less allows an IoU of at most 0.5
    assert spread_of_iou((0.4, 0.5), (0.3, 0.9)).greatest == pytest.approx(0.5)


def test_an_sd_that_is_too_small_for_images():
    # Dice 0.9485 and IoU 0.9185 at best: IoU 0 and 2 * 0.9185 / 0.9485 - 1, an SD of 0.1294
    printed = ("94,8 ± 2,1 %", "91,9 ± 3,0 %", 200)
    found = check_pair(*printed)
    assert found.verdict == "SD not over images"
    assert (found.dice_sd.least, found.iou_sd.least) == pytest.approx((0.10456, 0.12944), abs=1e-5)
    assert "IoU: 3 % means at most 3.05 %, images have at least 12.9 %" in found.explanation
    over = check_pair(*printed, sd_over="images")
    assert (over.verdict, check_pair(*printed, sd_over="runs").verdict) == ("impossible", "possible only with spread")
    assert "too small to be one over images" in over.explanation
    # decimals enough to tell the bound from the printed SD
    near = check_pair("0.9500 ± 0.10", "0.922", sd_over="images").explanation
    assert "0.1 means at most 0.105, images have at least 0.1054" in near
    # n counts images: 3 runs may spread more, for divisor n - 1
    assert check_pair("90.0 ± 31", n=100).verdict == "impossible"
    assert check_pair("90.0 ± 31", n=100, sd_over="runs").verdict == "possible"
    assert "too large: over any number of runs" in check_pair("90.0 ± 33", n=100, sd_over="runs").explanation
    pooled = check_pair("94.8 (2.1)", "90.1", pooled=True)
    assert pooled.explanation.endswith("Not judged: the SD of Dice (2.1 %), for pooled pixels have none over images.")
    with pytest.raises(ScoreError, match="no SD over images"):
        check_pair("94.8 (2.1)", "90.1", pooled=True, sd_over="images")


def test_a_jaccard_below_the_bound_may_be_a_thresholded_one():
    for iou, says in (("84.1", True), ("93.0", False)):
        found = check_pair("92.6", iou)
        assert (found.verdict, "thresholded Jaccard" in found.explanation) == ("impossible", says)


# UltraLight-VM-UNet issue 72: the matrix and the metrics of one log; the paper prints a Dice of 0.894
LOG = (26255387, 787716, 924659, 6110958)
PRINTED = {
    "iou": "0.7811195049475715",
    "dice": "0.8771107191603792",
    "accuracy": "0.9497523674598107",
    "specificity": "0.9708718337536931",
    "sensitivity": "0.868574568513323",
}


def test_a_logged_matrix_gives_its_metrics_and_not_the_papers():
    assert check_confusion(*LOG, PRINTED).verdict == "possible"
    found = {check.name: check for check in check_confusion(*LOG, {"dice": "0.894", "accuracy": "0.9497"}).checks}
    assert found["dice"].follows == "does not follow"
    assert found["accuracy"].follows == "follows if cut off, not rounded"
    assert found["iou"].low == iou_of_dice(found["dice"].high)


def test_metrics_of_a_matrix_by_hand():
    found = pooled_metrics(tn=50, fp=10, fn=20, tp=20)
    assert found == pytest.approx(
        {
            "dice": 40 / 70,
            "iou": 20 / 50,
            "accuracy": 70 / 100,
            "sensitivity": 20 / 40,
            "specificity": 50 / 60,
            "precision": 20 / 30,
            "npv": 50 / 70,
            "balanced_accuracy": (1 / 2 + 5 / 6) / 2,
            "mean_iou": (20 / 50 + 50 / 80) / 2,
            "mcc": (20 * 50 - 10 * 20) / math.sqrt(30 * 40 * 60 * 70),
        }
    )
    assert math.isnan(pooled_metrics(10, 0, 0, 0)["dice"])
    swapped = check_confusion(50, 10, 20, 20, {"precision": "50,0 %"}).checks[5]
    assert (swapped.follows, swapped.instead) == ("does not follow", ("sensitivity",))
    hundredth = check_confusion(50, 10, 20, 20, {"sensitivity": "0.50 %"}).checks[3]
    assert (hundredth.follows, hundredth.instead) == ("does not follow", ("sensitivity / 100",))


def test_each_metric_of_a_matrix_has_its_own_unit():
    assert check_confusion(50, 10, 20, 20, {"accuracy": "70.0 %", "sensitivity": "0.500"}).verdict == "possible"


def test_another_order_of_the_counts_is_found():
    # TP 50, FP 10, FN 25, TN 20: sensitivity 50 / 75, specificity 20 / 30, precision 50 / 60
    found = check_confusion(50, 10, 25, 20, {"sensitivity": "0.667", "specificity": "0.667", "precision": "0.833"})
    assert (found.verdict, found.orders) == ("impossible", ("TP FP FN TN", "TP FP TN FN") if False else found.orders)
    assert (found.verdict, found.orders) == ("impossible", ("TP FP FN TN",))
    assert check_confusion(50, 10, 20, 20, {"sensitivity": "0.500"}).orders == ()
    assert check_confusion(50, 10, 20, 20, {"sensitivity": "0.123"}).orders == ()


def test_one_operating_point_bounds_the_auc():
    # 1 - specificity 0.1, sensitivity 0.8: at least 0.9 * 0.8, at most 0.1 * 0.8 + 0.9 * 1
    assert auc_bounds(0.8, 0.9) == pytest.approx((0.72, 0.98))
    for auc, verdict in (("0.98", "possible"), ("98.6 %", "impossible"), ("0.72", "possible"), ("0.71", "impossible")):
        assert check_confusion(90, 10, 20, 80, {"auc": auc}).verdict == verdict
    # any curve through the point, by trapezia: scores that rise and fall
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = np.r_[0, np.sort(rng.uniform(0, 0.1, 5)), 0.1, np.sort(rng.uniform(0.1, 1, 5)), 1]
        y = np.r_[0, np.sort(rng.uniform(0, 0.8, 5)), 0.8, np.sort(rng.uniform(0.8, 1, 5)), 1]
        assert 0.72 <= np.trapezoid(y, x) <= 0.98


@settings(max_examples=100, deadline=None)
@given(*[st.integers(0, 10**7)] * 4, st.integers(0, 5))
def test_what_follows_from_a_matrix_is_never_called_impossible(tn, fp, fn, tp, decimals):
    assume(tn + fp + fn + tp > 0)
    values = {name: value for name, value in pooled_metrics(tn, fp, fn, tp).items() if value >= 0}
    printed = {name: f"{100 * value:.{decimals}f}" for name, value in values.items()}
    found = check_confusion(tn, fp, fn, tp, printed, unit="percent")
    assert found.verdict == "possible"
    assert {check.follows for check in found.checks if check.printed} <= {"follows"}


def test_bad_matrices_are_refused():
    for counts, printed in (((0, 0, 0, 0), {}), ((1, -1, 1, 1), {}), ((1, 1, 1, 1), {"kappa": "0.9"})):
        with pytest.raises(ScoreError):
            check_confusion(*counts, printed)


def test_three_seeds_wilcoxon():
    # Paper 000 repeats three times and reports all p < 0.05, Wilcoxon "with similar results" (section 4.4).
    result = check_effect(3, p_below="0.05", test="wilcoxon")
    assert result.smallest_p_wilcoxon == 0.25
    assert result.verdict == "impossible"
    assert check_effect(6, p_below="0.05", test="wilcoxon").verdict == "possible"
    assert check_effect(5, p_below="0.05", test="wilcoxon").verdict == "impossible"


@pytest.mark.parametrize("d", ["0.89", "2.14", "0.68", "1.12"])  # paper 000, section 4.4: ranges of Cohen's d
def test_three_seeds_paired_t_contradicts_the_published_effects(d):
    result = check_effect(3, d=d, p_below="0.05")
    assert result.critical_d_z == pytest.approx(2.4841, abs=1e-4)
    assert result.verdict == "impossible"
    assert result.p[0] > 0.05


def test_effect_at_the_critical_size():
    assert check_effect(3, d="2.50", p_below="0.05").verdict == "possible"
    assert check_effect(3, d="2.47", p_below="0.05").verdict == "impossible"
    assert check_effect(519, d="0.89", p_below="0.05").verdict == "possible"


def test_effect_and_t_must_agree():
    assert check_effect(3, d="2.50", t="4.33").verdict == "possible"
    result = check_effect(3, d="0.89", t="4.33")
    assert result.verdict == "impossible"
    assert "d_z = 2.5" in result.explanation


def test_implied_p_equals_scipy():
    from scipy.stats import ttest_1samp

    x = np.array([0.3, 1.2, 0.7, 0.1])
    expected = ttest_1samp(x, 0)
    result = check_effect(4, d=f"{x.mean() / x.std(ddof=1):.9f}")
    assert result.p[0] <= expected.pvalue <= result.p[1]
    assert result.t[0] <= expected.statistic <= result.t[1]


def test_least_correlation_is_of_the_claimed_p_and_of_the_greatest_d():
    # t of p = 0.001 with 4 degrees of freedom is 8.610, so d_z 3.851; d 0.45 at most: 1 - (0.45 / 3.851)^2 / 2
    result = check_effect(5, d="0.4", p_below="0.001")
    assert result.critical_d_z == pytest.approx(8.6103 / math.sqrt(5), abs=1e-4)
    assert result.least_correlation == pytest.approx(0.99317, abs=1e-5)
    assert result.explanation == (
        "Impossible as d_z; as d by the scores' own SD only with a correlation of at least 0.993: "
        "with 5 pairs p < 0.001 needs |d_z| > 3.851, and a d up to 0.45 gives p = 0.371 at best."
    )
    assert check_effect(5, d="0.400000", p="<0.001").least_correlation == pytest.approx(0.9946, abs=1e-4)
    # d_z = d_av / sqrt(2 (1 - r)) for equal SDs; t = 4.33 of 3 pairs is d_z = 2.5
    effect = check_effect(3, d="0.89000", t="4.33013")
    assert 0.89 / math.sqrt(2 * (1 - effect.least_correlation)) == pytest.approx(2.5, abs=1e-4)


def test_what_is_possible_names_the_claimed_p():
    assert "p < 0.001 needs |d_z| > 3.851" in check_effect(5, p_below="0,001").explanation
    assert "p < 0.05 needs |d_z| > 1.242" in check_effect(5).explanation


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"t": "4.33", "p": "0.2"}, "t = 4.33 with 5 pairs gives p = 0.0123 to 0.0124, not p = 0.2"),
        ({"d": "3.0", "p": "0.05"}, "a d from 2.95 gives p = 0.00274 at most"),
        ({"d": ">0.8", "p": "0.50"}, "a d from 0.75 gives p = 0.169 at most"),
        ({"d": "0.89", "t": "0.5"}, "t = 0.5 gives d_z = 0.201 to 0.246 with n = 5, not 0.89"),
        ({"p": "0.06", "p_below": "0.05"}, "p = 0.06 and p < 0.05 contradict each other"),
        ({"p": "0.03", "test": "wilcoxon"}, "cannot go below p = 0.0625"),
    ],
)
def test_effects_that_contradict_each_other(claims, says):
    result = check_effect(5, **claims)
    assert (result.verdict, math.isnan(result.least_correlation)) == ("impossible", True)
    assert says in result.explanation


def test_effects_as_printed_are_possible():
    for claims in (
        {"t": "2.776", "p": "0.050"},
        {"d": "-1.24", "p": "0.05"},
        {"p": ">0.05", "d": "0.5"},
        {"d": "0.00"},
    ):
        assert check_effect(5, **claims).verdict == "possible"
    for p in ("1.2", "<0", "about 0.05"):
        with pytest.raises(ScoreError):
            check_effect(5, p_below=p)


def test_rates_of_segmae():
    # Paper 003, Table 2: accuracy 0.947 under sensitivity 0.957 and specificity 0.979.
    result = check_rates("0.947", "0.957", "0.979")
    assert result.pooled_verdict == "impossible"
    assert result.mean_verdict == "possible"
    # Table 1: 0.938, 0.858, 0.961.
    result = check_rates("0.938", "0.858", "0.961")
    assert result.pooled_verdict == "possible"
    low, high = result.prevalence
    assert low < 0.023 / 0.103 < high
    assert check_rates("0.938", "0.858", "0.961", prevalence=0.5).pooled_verdict == "impossible"


def test_rates_in_their_own_units_and_with_a_known_prevalence():
    # 0.4 * 0.91 + 0.6 * 0.95 = 0.934
    rates = ("93.4 %", "0.910", "95.0 %")
    assert check_rates(*rates).pooled_verdict == "possible"
    known = check_rates(*rates, prevalence=0.4)
    assert known.explanation.startswith("Possible with a share of positives of 0.4: pooled accuracy lies within 93.35")
    wrong = check_rates(*rates, prevalence=0.8)
    assert "lies within 91.75 to 91.85 % there; macro averages or another test set could." in wrong.explanation
    assert check_rates("0.934", "0.910", "0.95 %").explanation.endswith("With specificity 0.95 % times 100 they agree.")


def test_rates_beyond_any_averaging():
    result = check_rates("10.00", "90.00", "90.00")
    assert result.pooled_verdict == result.mean_verdict == "impossible"
    assert math.isnan(result.prevalence[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_real_counts_are_never_called_impossible(tp, fn, fp, tn):
    assume(tp + fn > 0)
    assume(fp + tn > 0)
    n = tp + fn + fp + tn
    rates = (f"{rate:.3f}" for rate in ((tp + tn) / n, tp / (tp + fn), tn / (tn + fp)))
    result = check_rates(*rates, prevalence=(tp + fn) / n, unit="fraction")
    assert result.pooled_verdict == result.mean_verdict == "possible"
