"""The feasibility commands: pairs, tables of them, confusion matrices, effects of n pairs, rates."""

from __future__ import annotations

import re
import shlex
from operator import attrgetter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesion_core.cli import app, main
from lesion_core.files import read_csv, write_csv
from lesion_core.metrics.feasibility.pairs import check_pair
from lesion_core.papers.published import published_numbers
from lesion_core.settings.load import load
from lesion_core.settings.matrix import plan

# METHOD.md: the papers' own rows that publish Dice and IoU, and those of paper 001 that share its table.
CLICKS = ("1 click (oracle)", "3 clicks (oracle)")
METHODS_OWN = {
    "sam_vit_table_05": ("SAM-ViT (proposed)",),
    "sam_vit_table_06": ("SAM-ViT (proposed)",),
    "gl_med_sa_table_01": tuple(
        f"{name}, {clicks}" for name in ("SAM", "MedSAM zero-shot", "Med-SA", "GL-Med-SA") for clicks in CLICKS
    ),
    "dual_network_table_01": ("Deep-UNet",),
    "segmae_table_01": ("SegMAE",),
    "segmae_table_02": ("SegMAE",),
    "segmae_table_03": ("SegMAE",),
    "peft_medsam_table_01": ("PEFT-MedSAM, oracle box",),
}
NAMED = {
    *(f"gl_med_sa_table_01: {name}, {n}" for name in ("Med-SA", "GL-Med-SA") for n in CLICKS),
    "segmae_table_01: SegMAE",
    "segmae_table_03: SegMAE",
}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def method_pairs(folder):
    """METHOD.md's pairs as a CSV, from the published numbers; both units, one and more decimals."""
    rows = {}
    for claim in published_numbers(plan(load("paper"))):
        if claim.metric in ("dice", "iou") and claim.row in METHODS_OWN.get(claim.table, ()):
            row = rows.setdefault((claim.table, claim.row), {"label": f"{claim.table}: {claim.row}", "n": ""})
            row |= {claim.metric: claim.printed, "n": claim.n or ""}
    rows = [row for row in rows.values() if {"dice", "iou"} <= set(row)]
    write_csv(folder / "pairs.csv", ("label", "dice", "iou", "n"), rows)
    return folder / "pairs.csv", rows


def test_of_the_methods_pairs_exactly_the_named_ones_are_impossible(tmp_path):
    path, rows = method_pairs(tmp_path)
    # 2 of paper A, 8 of B, 1 of C, 3 of D, 1 of E
    assert len(rows) == 15
    done = run("feasible", "--csv", path, "--out", tmp_path / "verdicts.csv")
    assert done.exit_code == 1
    assert "6 of 15 pairs are arithmetically impossible" in done.stdout
    verdicts = read_csv(tmp_path / "verdicts.csv")
    assert {row["label"] for row in verdicts if row["verdict"] == "impossible"} == NAMED
    sam_vit = next(row for row in verdicts if row["label"] == "sam_vit_table_05: SAM-ViT (proposed)")
    assert float(sam_vit["dice_sd_least"]) == pytest.approx(0.1756, abs=5e-5)
    assert float(sam_vit["least_share_below"]) == pytest.approx(0.0349, abs=5e-5)


def test_one_pair_says_what_it_needs():
    done = run("feasible", "--dice", "94.27", "--iou", "92.83", "--n", "519")
    assert done.exit_code == 0
    assert "19 of 519" in done.stdout
    assert "SD of Dice (divisor n)    17.55 to 19.89 %" in done.stdout
    assert run("feasible", "--dice", "92.6", "--iou", "84.1").exit_code == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "the columns are a, b"),
        ("", "the table is empty"),
        ("dice,iou\n", "No row holds both"),
        ("dice,iou\n,80\n", "No row holds both"),
        ("dice,iou\n90,x\n", "Line 2: 'x' is not a printed number"),
        ("label,dice,iou,n\nU-Net,90,80,many\n", "Line 2, U-Net: 'many' is not a count"),
        ("dice,iou,sd_over\n\n90,80,folds\n", "Line 3: 'folds' is not what an SD is over"),
        ("dice,iou\n0.921,87.9\n", "Line 2: Mixed units"),
        ("dice,iou\n92,1,87,9\n", "semicolons"),
        (b"PK\x03\x04\0", "a workbook"),
        ("dice,iou\n92.1,87.9\n".encode("utf-16"), "UTF-16"),
        ("dice,iou\n92.1,87.9\n".encode("utf-16-le"), "UTF-16"),
        ("label,dice,iou\nÜ,92.1,87.9\n".encode("cp1252"), "not UTF-8"),
    ],
)
def test_a_broken_table_is_named(tmp_path, content, says):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("feasible", "--csv", path)
    assert done.exit_code != 0
    assert says in str(done.exception)


@pytest.mark.parametrize(
    "content",
    [
        "label,dice,iou,n\nA,92.1 ± 0.3,84.0,519\nB,,84,\nC,94.27,92.83,519.0\n",
        "\ufeffLabel;DICE;IoU;N\nA;92,1 +- 0,3;84,0;519\nB;84;-;\n\nC;94,27;92,83;519\n",
        "sep=;\nlabel;dice;iou;n\r\nA;92.1%;84.0 %;519\r\nB;n/a;84;\r\nC;94.27;92.83;519\r\n",
        "label\tDice (%)\tIoU [%]\tn\tdice_sd\nA\t92.1\t84.0\t519\t0.3\nB\t\t\t\t\nC\t94.27\t92.83\t519\t\n",
        'LABEL,Dice,IOU,n\nA,"92,1","84,0",519\nB, ,84,\nC,"94,27","92,83",519\n',
        "label,dice,iou,n\nA,.921,.840,519\nB,.9,,\nC,0.9427,0.9283,519\n",
    ],
)
def test_tables_as_people_have_them(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_text(content, encoding="utf-8")
    done = run("feasible", "--csv", path, "--out", tmp_path / "out.csv")
    assert done.exit_code == 1, done.exception
    assert "1 of 2 pairs are arithmetically impossible\nrows without Dice or IoU, skipped: 1" in done.stdout
    wrong, right = read_csv(tmp_path / "out.csv")
    assert (wrong["label"], wrong["verdict"], right["label"]) == ("A", "impossible", "C")
    assert float(right["dice_sd_least"]) == pytest.approx(0.175593, abs=2e-6)


def test_command_table_and_python_give_one_answer(tmp_path):
    write_csv(tmp_path / "a.csv", ("dice", "iou", "n"), [{"dice": "94,27 ± 0,2 %", "iou": "92.83", "n": "1,000"}])
    run("feasible", "--csv", tmp_path / "a.csv", "--out", tmp_path / "table.csv")
    pair = ("--dice", "94,27 ± 0,2 %", "--iou", "92.83", "--n", "1000", "--out", tmp_path / "pair.csv")
    told = run("feasible", *pair).stdout.splitlines()[0]
    table, single = read_csv(tmp_path / "table.csv")[0], read_csv(tmp_path / "pair.csv")[0]
    assert {**table, "label": ""} == single
    assert told == single["explanation"] == check_pair("94,27 ± 0,2 %", "92.83", 1000).explanation


def test_lower_bounds_are_rounded_down_and_upper_bounds_up(tmp_path):
    # the least SD of this pair is 0.12962
    done = run("feasible", "--dice", "0.947", "--iou", "0.924", "--out", tmp_path / "out.csv")
    exact, row = check_pair("0.947", "0.924"), read_csv(tmp_path / "out.csv")[0]
    assert "SD of at least 0.129" in done.stdout
    assert 0.1295 < exact.dice_sd.least < 0.13  # to the nearest it would be 0.130
    for name in ("dice_sd.least", "iou_sd.least", "least_share_below", "iou_low"):
        assert 0 <= attrgetter(name)(exact) - float(row[name.replace(".", "_")]) < 1.1e-6
    for name in ("dice_sd.greatest", "iou_sd.greatest_sample", "iou_high", "pooled_high"):
        assert 0 <= float(row[name.replace(".", "_")]) - attrgetter(name)(exact) < 1.1e-6


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("--dice 94.27 --iou 92.83", 0, "possible only if"),
        ("--dice 92.6 --iou 84.1", 1, "impossible"),
        ("--dice 90.0±35 --n 100", 1, "sample SD (divisor n - 1) of at most 30.2 %"),
        ("--confusion 26255387 787716 924659 6,110,958 --dice 0.894", 1, "does not follow"),
        ("--confusion 26255387 787716 924659 6110958 --f1 0.8771 --iou 78,11%", 0, "F1 (Dice)"),
        ("--confusion 90 10 20 80 --auc 99%", 1, "72.00 to 98.00 %         99%  outside the bounds"),
        ("--confusion 50 10 25 20 --sensitivity .667 --f1 .741", 1, "they follow if the counts are, in this order, TP"),
        ("--confusion 9 1 2 8 --f1 0.84 --dice 0.84", 2, "--dice does not go with --confusion"),
        ("--dice 90 --iou 80 --f1 85", 2, "--f1 does not go with --dice"),
        ("--csv pairs.csv --n 5", 2, "--n does not go with --csv (a table has columns)"),
        ("--dice 90 --iou 85 --n 200,1000", 2, "two datasets are two calls"),
        ("--dice 94.8±2.1 --iou 91.9±3.0", 0, "The printed SD is none over images"),
        ("--dice 94.8±2.1 --iou 91.9±3.0 --sd-over images", 1, "too small to be one over images"),
        ("--dice 94.8±2.1 --iou 90.1 --pooled", 0, "Not judged: the SD of Dice (2.1 %)"),
        ("--dice 0.921 --iou 87.9", 2, "Mixed units: Dice 0.921 looks like a fraction, IoU 87.9 like per cent"),
        ("--dice 120 --iou 80", 2, "Dice 120 does not lie between 0 and 100 %\n  remedy: check the number as printed"),
        ("--dice 90", 2, "Dice alone"),
        ("--dice 90 --iou 80 --accuracy 90", 2, "--accuracy does not go with --dice without --confusion"),
    ],
)
def test_exit_status_and_words(arguments, status, says, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lesion", "feasible", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    output = capsys.readouterr()
    assert says in output.out + output.err


def test_the_documents_examples_are_what_the_commands_print(tmp_path, monkeypatch):
    document = (Path(__file__).parents[2] / "docs" / "feasible.md").read_text(encoding="utf-8")
    blocks = [block.split("\n", 1) for block in re.findall(r"```console\n\$ lesion (.*?)```", document, re.DOTALL)]
    assert len(blocks) == 8
    (table,) = re.findall(r"```text\n(.*?)```", document, re.DOTALL)
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command, output in blocks:
        assert run(*shlex.split(command)).stdout == output


def test_neither_pair_nor_table_is_refused(tmp_path):
    assert "--csv" in str(run("feasible").exception)
    assert "--csv" in str(run("feasible", "--dice", "90", "--iou", "80", "--csv", tmp_path / "x").exception)


def test_rows_and_columns_that_are_passed_over_are_named(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "Model,Dice (%),Dice SD,IoU (%),IOU_sd,SD over,Year\nA,94.8,± 2.1,91.9,(3.0),,2020\n"
        "B,94.8,2.1,91.9,3.0,images,\nC,94.8,2.1,91.9,3.0,runs,\nD,ninety,,80,,,\nE,190,,80,,,\nF,90,80\nG,,,80,,,\n"
    )
    done = run("feasible", "--csv", path, "--out", tmp_path / "out.csv")
    assert [row["verdict"] for row in read_csv(tmp_path / "out.csv")] == [
        "SD not over images",
        "impossible",
        "possible only with spread",
    ]
    assert done.stdout.splitlines()[3:] == [
        "1 of 3 pairs are arithmetically impossible; 1 more has an SD that cannot be one over images",
        "rows without Dice or IoU, skipped: 1",
        "rows that cannot be read: 3",
        "  line 5, D: 'ninety %' is not a printed number",
        "  line 6, E: Dice 190 % does not lie between 0 and 100 %",
        "  line 7, F: 3 cells, the header has 7",
        "columns that are not used: Year",
    ]
    assert done.exit_code == 1
    path.write_text("dice,iou\n94.8 ± 2.1,90.1\n")
    assert "possible: not judged: the SD of Dice (2.1 %)" in run("feasible", "--csv", path, "--pooled").stdout
    path.write_text("dice,iou\n90,85\n190,80\n")
    done = run("feasible", "--csv", path)
    assert (done.exit_code, "  line 3: Dice 190 does not" in done.stdout) == (2, True)


def test_effects():
    done = run("feasible-effect", "--n", 3, "--p-below", 0.05, "--wilcoxon")
    assert (done.exit_code, "0.25" in done.stdout) == (1, True)
    assert run("feasible-effect", "--n", 3, "--t", "4.33", "--d", "2.50", "--p", "0.049").exit_code == 0
    for claim in (("--p", "<0.001"), ("--p-below", "0,001")):
        done = run("feasible-effect", "--n", 3, "--t", "4.33", *claim)
        assert (done.exit_code, "not p < 0.001" in done.stdout) == (1, True)


def test_rates():
    """The first is paper 003's, Table 2: accuracy above both."""
    published = ("--accuracy", "0.947", "--sensitivity", "0.957", "--specificity", "0.979")
    assert run("feasible-rates", *published).exit_code == 1
    # half are positive and 70 % of them missed: at best 65 % right
    half = ("--sensitivity", "30.0", "--prevalence", 0.5)
    assert [run("feasible-rates", "--accuracy", value, *half).exit_code for value in ("65.0", "65.2")] == [0, 1]
    assert run("feasible-rates", "--accuracy", "90.0", "--sensitivity", "30.0").exit_code == 0
