"""Papers as files: what is wrong is refused with file and line, and each file can be taken away or added."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from lesion_core.errors import SettingsError
from lesion_core.papers.published import pairs, published_numbers
from lesion_core.settings.load import load
from lesion_core.settings.matrix import expand, plan
from lesion_core.settings.papers import read_paper

CHECKOUT = Path(__file__).resolve().parents[2]
PAPERS = sorted(path.stem for path in (CHECKOUT / "workflow" / "papers").glob("*.yaml"))
SIXTH = """\
reference: {short: Sixth, title: A sixth paper, authors: [A. Nobody], year: 2026, read: full text}
methods:
  sixth_unet: {extends: unet, train_on: [isic2018_task1]}
tables:
  sixth_table_01:
    title: Segmentation
    task: segmentation
    dataset: isic2018_task1
    metrics: [dice, iou]
    rows:
      - {label: Otsu, method: otsu}
      - {label: Ours, method: sixth_unet, proposed: true, published: {dice: "90.0", iou: "91.0"}, where: Table 1}
names: {sixth_unet: Sixth net}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "params.yaml", tmp_path)
    shutil.copytree(CHECKOUT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("rules"))
    return tmp_path


@pytest.mark.parametrize("profile", ["smoke", "mini", "paper"])
@pytest.mark.parametrize("gone", PAPERS)
def test_the_rest_plans_without_any_one_paper(checkout, gone, profile):
    whole = load(profile, checkout=checkout)
    (checkout / "workflow" / "papers" / f"{gone}.yaml").unlink()
    settings = load(profile, checkout=checkout)
    assert set(whole.papers) - set(settings.papers) == {gone}
    left, all_runs = ({run_id[-8:] for run_id in expand(found)} for found in (settings, whole))
    assert left <= all_runs
    assert not any(table.paper == gone for table in plan(settings).tables.values())


@pytest.mark.parametrize("alone", PAPERS)
def test_one_paper_plans_alone(alone):
    settings = load("paper", {"papers": [alone]})
    named = {row.method for table in settings.tables.values() for row in table.rows if row.method}
    assert list(settings.papers) == [alone]
    assert {run.method for run in expand(settings).values()} & named


def test_a_sixth_paper_is_a_file(checkout):
    (checkout / "workflow" / "papers" / "sixth.yaml").write_text(SIXTH)
    made = plan(load("paper", {"papers": ["sixth"]}, checkout=checkout))
    assert list(made.tables) == ["sixth_table_01"]
    assert made.tables["sixth_table_01"].title == "Sixth, Table 1: Segmentation"
    assert set(made.runs) == {"otsu", "sixth_unet"}
    assert (made.name_of("otsu"), made.name_of("sixth_unet")) == ("Otsu", "Sixth net")
    assert made.tests["sixth_tests"].of == ["sixth_table_01"]
    (pair,) = pairs(published_numbers(made))
    assert pair.verdict.verdict == "impossible"


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("metrics: [dice, iou]", "metrics: [dise, iou]", 9, "unknown metrics dise"),
        ('{dice: "90.0"', '{dise: "90.0"', 12, "unknown metric 'dise'"),
        ('"90.0"', '"900"', 5, "too great for percent"),
        ('"90.0"', '"about 90"', 12, "no printed number"),
        ("method: otsu", "method: otso", 11, "no method is called 'otso'"),
        ("{label: Otsu, method: otsu}", "{label: Otsu}", 11, "neither a method nor a published number"),
        ("method: otsu}", "method: otsu, segmenter: otso}", 11, "no method is called 'otso'"),
        ("method: otsu}", "segmenter: otsu, where: here}", 11, "has a segmenter but no method"),
        ("label: Otsu", "label: Ours", 5, "rows stand twice"),
        ("sixth_table_01", "seventh_table_01", 5, "is called sixth_table_<two digits>"),
        ("    task: segmentation", "    tasks: segmentation", 7, "unknown key"),
        ("sixth_unet", "medsam_zero_shot", 3, "stands in params.yaml too"),
        ("names: {sixth_unet", "names: {unet", 13, "this file has no such method"),
        ("read: full text", "read: some of it", 1, "full text"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(checkout, old, new, line, says):
    assert old in SIXTH
    path = checkout / "workflow" / "papers" / "sixth.yaml"
    path.write_text(SIXTH.replace(old, new))
    with pytest.raises(SettingsError, match=r"(?s)sixth\.yaml") as refused:
        load("paper", checkout=checkout)
    assert f"line {line}: " in str(refused.value)
    assert says in str(refused.value)


def test_two_papers_cannot_share_a_name(checkout):
    path = checkout / "workflow" / "papers" / "sixth.yaml"
    path.write_text(SIXTH.replace("sixth_unet", "sam_adapter"))
    with pytest.raises(SettingsError, match=r"(?s)line 3: .*sam_adapter.*sam_vit\.yaml too"):
        load("paper", checkout=checkout)


def test_a_paper_of_which_a_profile_runs_nothing_is_told():
    with pytest.raises(SettingsError, match=r"(?s)Profile mini runs nothing of these papers.*segmae"):
        load("mini", {"papers": ["segmae"]})


def test_an_unknown_paper_is_refused():
    with pytest.raises(SettingsError, match="no such file in workflow/papers"):
        load("paper", {"papers": ["sam_vitt"]})


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_of_ours_and_every_number_says_where_it_stands(name):
    paper = read_paper(CHECKOUT / "workflow" / "papers" / f"{name}.yaml")
    for table in paper.tables.values():
        for row in table.rows:
            assert not row.published or row.where or table.where, (table.title, row.label)
    text = (CHECKOUT / "workflow" / "papers" / f"{name}.yaml").read_text()
    assert set(yaml.safe_load(text)) >= {"reference", "tables"}
