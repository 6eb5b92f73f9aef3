"""`lesion paper new` and `lesion paper check`: what a newcomer writes, and what he is told of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from chain import REPOSITORY
from typer.testing import CliRunner

from lesion_core.cli import app
from lesion_core.errors import SettingsError
from lesion_core.papers.check import check_paper, check_text
from lesion_core.papers.new import write_new

GUIDE = REPOSITORY / "docs" / "your_paper.md"
OTSU = "method: lesion_net_otsu}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("rules"))
    return tmp_path


def example(checkout: Path, *changes: tuple[str, str]) -> Path:
    """The guide's paper, with some of its text replaced, as a file of a checkout."""
    [text] = re.findall(r"```yaml\n(# workflow/papers/.*?)```", GUIDE.read_text(), re.DOTALL)
    path = checkout / text.splitlines()[0].removeprefix("# ")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_new_file_explains_every_key_and_plans_as_it_stands(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    path = Path("workflow/papers/their_net.yaml")
    done = CliRunner().invoke(app, ["paper", "new", "their_net"])
    assert done.exit_code == 0
    assert str(path) in done.output
    done = CliRunner().invoke(app, ["paper", "check", str(path)])
    assert done.exit_code == 0, done.output
    assert "their_net_net 0, 1, 2" in done.output
    assert "my_paper" not in path.read_text()
    before = path.read_text()
    with pytest.raises(SettingsError, match="has a file already"):
        write_new("their_net", checkout)
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["", "My", "a/b", "../a", "-a", "a b", "a" * 41])
def test_a_name_that_cannot_be_one_is_refused(checkout, name):
    with pytest.raises(SettingsError, match="name takes lower-case letters"):
        write_new(name, checkout)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no checkout"):
        write_new("their_net", tmp_path)
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "a.yaml").write_text("{}")
    with pytest.raises(SettingsError, match="among the papers of a checkout"):
        check_paper(tmp_path / "workflow" / "a.yaml")


def test_the_guide_shows_what_its_example_gives(checkout):
    found = check_paper(example(checkout))
    shown = GUIDE.read_text().split("$ lesion paper check workflow/papers/lesion_net.yaml\n")[1].split("```")[0]
    assert check_text(found) == shown.rstrip("\n")
    assert found.is_good


QUOTED = """
reference: {short: Quoted, title: "Quoted: an invented paper", authors: [A. Nobody], year: 2026, read: full text}
tables:
  quoted_table_01:
    title: Segmentation on ISIC 2018
    task: segmentation
    dataset: isic2018_task1
    metrics: [dice, iou]
    where: Table 1
    n: 200
    rows:
      - {label: FocusNet, published: {dice: "94.8", dice_sd: "2.1", iou: "91.9 ± 3.0"}}
      - {label: U-Net, published: {dice: "90.1 ± 55.0"}}
claims:
  - {table: quoted_table_01, label: FocusNet, published: {cohens_d: "0.4", p_below: "0.001"}, n: 5, where: section 4}
  - {table: quoted_table_01, label: Seeds, published: {p_below: "0.05"}, n: 3, where: section 5}
"""


def test_a_quoted_paper_runs_nothing_and_its_sds_and_claims_are_judged(checkout):
    path = checkout / "workflow" / "papers" / "quoted.yaml"
    path.write_text(QUOTED)
    done = CliRunner().invoke(app, ["paper", "check", str(path)])
    assert done.exit_code == 0, done.output
    found = check_paper(path)
    assert "Nothing runs: all rows are quoted" in done.output
    assert [text.split(": ")[1] for text in found.impossible] == ["quoted_table_01, U-Net"]
    [small] = found.small_sd
    assert "IoU: 3 % means at most 3.05 %, images have at least 12.9 %" in small
    effect, seeds = found.effects
    assert effect.startswith("line 15: quoted_table_01, FocusNet, d = 0.4, p < 0.001: Impossible as d_z; as d by")
    assert "Possible; with 3 pairs p < 0.05 needs |d_z| > 2.484" in seeds
    assert seeds.endswith(
        "Wilcoxon: Impossible: a two-sided Wilcoxon test of 3 pairs cannot go below p = 0.25, and p < 0.05."
    )


def test_the_guide_explains_every_key(checkout):
    from lesion_core.settings.paper import (
        Claim,
        Contradiction,
        Paper,
        PaperProfile,
        Reference,
        Table,
        TableRow,
        TestTable,
    )

    models = (Paper, Reference, Table, TableRow, TestTable, Claim, Contradiction, PaperProfile)
    keys = {key for model in models for key in model.model_fields} - {"paper"}  # the reader fills that one in
    assert [key for key in sorted(keys) if f"`{key}`" not in GUIDE.read_text()] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("year: 2026", "year: soon", "line 6: reference.year"),
        ("method: lesion_net_otsu", "method: otso", "line 40: no method is called 'otso'"),
        ("epochs: 100", "epochs: -1", "line 16: methods.lesion_net.training.epochs"),
        ("train_on: [isic2018_task1]", "train_on: [ham1000]", "line 14: methods.lesion_net.train_on"),
        ("metrics: [dice, iou]", "metrics: [dice, precision]", "line 35: tables.lesion_net_table_01"),
    ],
)
def test_what_is_refused_is_told_with_its_line(checkout, old, new, said):
    path = example(checkout, (old, new))
    done = CliRunner().invoke(app, ["paper", "check", str(path)])
    assert done.exit_code == 1
    assert said in done.output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("where: Table 1\n", "averaging: not stated\n", "lesion_net_table_01, U-Net: no `where`"),
        ("metrics: [dice, iou]", "metrics: [dice]", "U-Net: iou is published; list it in the table's `metrics`"),
        ("dataset: isic2018_task1\n", "dataset: isic2016\n", "Otsu: isic2016 is not in data.datasets"),
        (OTSU, "method: majority}", "majority is a classification method and cannot fill dice, iou"),
        (OTSU, "method: lesion_net_otsu, segmenter: majority}", "majority is a classification method, not a"),
        (OTSU, "method: lesion_net_otsu, prompt: oracle_box}", "lesion_net_otsu takes no prompt"),
        ("{epochs: 12, batch_size: 4}", "{epochs: 5000}", "does not scale lesion_net down: training.epochs"),
        ("  smoke:\n", "  smoke:\n    methods: {lesion_net_unet: {model: {image_size: 512}}}\n",
         "does not scale lesion_net_unet down: model.image_size"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(checkout, old, new, said):
    path = example(checkout, (old, new))
    done = CliRunner().invoke(app, ["paper", "check", str(path)])
    assert done.exit_code == 1
    assert "Refused" not in done.output
    assert said in done.output
