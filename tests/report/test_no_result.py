"""Somebody tries to take a rehearsal for a result."""

from __future__ import annotations

import pytest
from report_store import make_plan, make_store

from lesion_core.audit.protocol import no_rehearsal
from lesion_core.errors import RunError
from lesion_core.files import read_csv, read_text, write_json
from lesion_core.papers.published import published_numbers
from lesion_core.record.rehearsed import DRAWN
from lesion_core.report.ledger import REPRODUCED, write_ledger
from lesion_core.report.readme import BEGIN, END, update_readme
from lesion_core.report.statistics import write_statistics
from lesion_core.report.subgroups import COLUMNS
from lesion_core.report.tables import write_tables
from lesion_core.settings import load as config
from lesion_core.sharing.crate import write_crate

MARK = "REHEARSED, NO RESULT."


@pytest.fixture
def rehearsed(tmp_path):
    """Tables, tests and ledger of a rehearsal whose profile is given out for the paper's."""
    plan = make_plan("paper").model_copy(update={"rehearsed": True})
    root = make_store(tmp_path / "paper")
    write_tables(root, plan)
    write_statistics(root, plan)
    write_ledger(root, plan)
    return root, plan


def test_every_table_says_what_it_is(rehearsed):
    root, plan = rehearsed
    for name in (*plan.tables, *plan.tests, "human_reference"):
        path = root / "tables" / name
        assert read_text(path.with_suffix(".md")).startswith(f"**{MARK}")
        assert MARK in read_text(path.with_suffix(".tex"))
    files = [*(root / "tables").glob("*.csv"), *(root / "ledger").glob("*.csv"), *(root / "statistics").glob("*.csv")]
    rows = [row for path in files for row in read_csv(path)]
    assert len(rows) > len(published_numbers(plan))
    assert {row["rehearsed"] for row in rows} == {"yes"}
    assert "rehearsed" not in COLUMNS


def test_no_number_of_it_is_reproduced(rehearsed):
    root, _ = rehearsed
    found = [row["verdict"] for row in read_csv(root / "ledger" / "ledger.csv")]
    assert REPRODUCED not in found
    assert "not reproduced" not in found


@pytest.mark.parametrize("sign", ["run", "weights"])
def test_a_forged_profile_is_told_by_its_runs_and_by_its_weights(tmp_path, sign):
    """The folder and its plan are called `paper`; what the runs and the weights say of themselves is left."""
    root, plan = tmp_path / "paper", make_plan("paper")
    assert not no_rehearsal(root, plan).problems
    if sign == "run":
        said = {"settings": {"spec": {"training": {"rehearsed_steps": 5}}}}
        write_json(root / "runs" / "segmentation" / "unet-s0" / "provenance.json", said)
    else:
        write_json(root / "weights" / "sam_vit_b.safetensors.json", {"source": DRAWN})
    [problem] = no_rehearsal(root, plan).problems
    assert "rehears" in problem
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    with pytest.raises(RunError, match="no number of it is a result"):
        update_readme(root, readme)
    with pytest.raises(RunError, match="no number of it is a result"):
        write_crate(root, tmp_path / "crate")


def test_its_runs_have_other_ids_than_any_of_the_paper_profile():
    """Scores that are copied into results/paper are of no run that the tables there ask for."""
    own, papers = (config.expand(config.load(profile)) for profile in ("rehearsal", "paper"))
    assert not own.keys() & papers.keys()
