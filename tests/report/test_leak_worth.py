"""What the split is worth: two samples of unlike images, their difference and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from report_store import make_plan, segmentation_row

from lesion_core.report.external import external_cells
from lesion_core.report.leak_worth import NONE, difference, leak_worth_cells
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import Cells


def test_the_interval_of_lone_lesions_is_that_of_two_means():
    """Of one image a lesion the bootstrap's standard error is the textbook's: SD / sqrt(n)."""
    rng = np.random.default_rng(0)
    sides = [(rng.normal(mean, 0.1, 400), [f"l{number}" for number in range(400)]) for mean in (0.7, 0.8)]
    rule = make_plan().statistics.model_copy(update={"resamples": 4000})
    apart, low, high = difference(sides, rule)
    assert apart == pytest.approx(sides[1][0].mean() - sides[0][0].mean())
    error = np.hypot(*(values.std() / 20 for values, _ in sides))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def test_a_method_stands_beside_itself_under_both_rules():
    second = "sam_adapter_as_published-s0"
    rows = [segmentation_row("sam_adapter-s0", name, dice) for name, dice in (("a", 0.5), ("b", 0.7), ("c", 0.6))]
    rows += [segmentation_row(second, name, dice) for name, dice in (("d", 0.8), ("e", 1.0))]
    plan = make_plan().model_copy(update={"as_published": {"sam_adapter": [second]}})
    cells = {cell["column"]: cell for cell in leak_worth_cells(Cells("leak_worth", Store.of(rows, []), plan))}
    assert cells["leak_free"]["value"] == pytest.approx(60)
    assert cells["as_published"]["value"] == pytest.approx(90)
    assert cells["difference"]["published_text"].startswith("+30.00 (")
    [empty] = leak_worth_cells(Cells("leak_worth", Store.of(rows, []), make_plan()))
    assert empty["row"] == NONE


def test_a_single_lesion_has_a_difference_and_no_interval():
    """A dataset of one test lesion stopped all tables once."""
    second = "sam_adapter_as_published-s0"
    rows = [segmentation_row("sam_adapter-s0", "a", 0.5), segmentation_row(second, "d", 0.75)]
    plan = make_plan().model_copy(update={"as_published": {"sam_adapter": [second]}})
    cells = {cell["column"]: cell for cell in leak_worth_cells(Cells("leak_worth", Store.of(rows, []), plan))}
    assert cells["difference"]["published_text"] == "+25.00 (one lesion: no interval)"


def test_a_segmenter_stands_beside_itself_on_images_of_another_dataset():
    own = [segmentation_row("sam_adapter-s0", name, dice) for name, dice in (("a", 0.9), ("b", 0.7))]
    other = [segmentation_row("sam_adapter-s0", name, 0.5) | {"dataset": "ham10000"} for name in ("c", "d")]
    plan = make_plan().model_copy(update={"trained_on": {"sam_adapter": {"segmentation": [own[0]["dataset"]]}}})
    cells = {
        cell["column"]: cell for cell in external_cells(Cells("external_validity", Store.of(own + other, []), plan))
    }
    assert (cells["own"]["value"], cells["external"]["value"]) == (pytest.approx(80), pytest.approx(50))
    assert cells["difference"]["published_text"].startswith("-30.00 (")
    [empty] = external_cells(Cells("external_validity", Store.of(own, []), plan))
    assert empty["status"] == "not run in this profile"
