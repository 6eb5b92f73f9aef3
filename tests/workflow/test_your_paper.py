"""A paper that the project does not ship, docs/your_paper.md's, as a file alone: table, tests, ledger, trace, page."""

from __future__ import annotations

import re

import pytest
from chain import REPOSITORY, ROOT, lesion
from conftest import checkout, snakemake

from lesion_core.files import read_csv, read_json

pytestmark = pytest.mark.smoke
SMALL = (  # its three methods once each, on a few tiny images
    "papers=[lesion_net]",
    "data={datasets: [isic2018_task1]}",
    "synthetic={size: 96, isic2018_task1: 16}",
    "scoring={segmentation_on: [isic2018_task1], classification_on: []}",
    "matrix={seeds: [0]}",
    "statistics={resamples: 200}",
    "protocols={lesion_net_protocol: {training: {epochs: 2}}}",
)
TABLE = "lesion_net_table_01"


def test_a_sixth_paper_is_run_tested_and_judged_from_its_file_alone(tmp_path):
    folder = checkout(tmp_path / "project")
    [text] = re.findall(r"```yaml\n(# workflow/papers/.*?)```", (REPOSITORY / "docs/your_paper.md").read_text(), re.S)
    (folder / "workflow" / "papers" / "lesion_net.yaml").write_text(text)
    done = snakemake(folder, "--resources", "gpu=1", "--config", "profile=smoke", *SMALL)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    root = folder / ROOT

    rows = {row["row"]: row for row in read_csv(root / "tables" / f"{TABLE}.csv")}
    assert {row: bool(found["dice"]) for row, found in rows.items()} == {
        "Otsu": True, "U-Net": True, "FocusNet": False, "LesionNet": True,
    }  # fmt: skip
    assert rows["FocusNet"]["iou_published"] == ">78"
    tests = read_csv(root / "statistics" / "tests.csv")
    assert {(test["proposed"], test["other"]) for test in tests} == {
        ("lesion_net", "lesion_net_otsu"),
        ("lesion_net", "lesion_net_unet"),
    }
    assert "| LesionNet | U-Net, LesionNet's protocol |" in (root / "tables" / "lesion_net_tests.md").read_text()

    ledger = {(row["row"], row["metric"]): row for row in read_csv(root / "ledger" / "ledger.csv")}
    assert {row["paper"] for row in ledger.values()} == {"lesion_net"}
    for metric in ("dice", "iou"):
        assert ledger["LesionNet", metric]["verdict"] == "arithmetically impossible"
        assert ledger["LesionNet", metric]["ours"]
    assert "quoted" in ledger["FocusNet", "dice"]["reason"]
    assert "cannot go below p = 0.25" in ledger["LesionNet", "p_below"]["reason"]

    assert "recomputed" in lesion(folder, "trace", TABLE, "LesionNet", "dice", "--root", ROOT)
    assert "lesion_net_figure_02" in {figure["name"] for figure in read_json(root / "figures" / "figures.json", list)}
    page = (root / "report.html").read_text()
    for said in (
        "LesionNet, Table 1: Segmentation on ISIC 2018",
        "The abstract says a Dice of 92.9",
        "Claims of LesionNet",
    ):
        assert said in page
    assert "SegMAE" not in page
