"""The feasibility commands: any table of pairs, effects of n pairs, rates with a prevalence."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lesion_core.cli import app
from lesion_core.files import read_csv, write_csv
from lesion_core.metrics.feasibility.printed import decimals_of
from lesion_core.papers.published import load

# METHOD.md: the papers' own rows that publish Dice and IoU, and those of paper 001 that share its table.
METHODS_OWN = {
    "table_05": ("SAM-ViT (proposed)",),
    "table_06": ("SAM-ViT (proposed)",),
    "gl_med_sa_table_1": tuple(
        f"{name}, {clicks}" for name in ("SAM", "MedSAM", "Med-SA", "GL-Med-SA") for clicks in ("1 point", "3 points")
    ),
    "dual_network": ("Deep-UNet",),
    "segmae_table_1": ("SegMAE",),
    "segmae_table_2": ("SegMAE",),
    "segmae_table_3": ("SegMAE",),
    "peft_medsam": ("PEFT-MedSAM",),
}
NAMED = {
    *(f"gl_med_sa_table_1: {name}, {n}" for name in ("Med-SA", "GL-Med-SA") for n in ("1 point", "3 points")),
    "segmae_table_1: SegMAE",
    "segmae_table_3: SegMAE",
}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def method_pairs(folder):
    """METHOD.md's pairs as a CSV, from the published numbers; both units, one and more decimals."""
    rows = {}
    for claim in load():
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
    sam_vit = next(row for row in verdicts if row["label"] == "table_05: SAM-ViT (proposed)")
    assert float(sam_vit["least_sd"]) == pytest.approx(0.1756, abs=5e-5)
    assert float(sam_vit["least_share_below"]) == pytest.approx(0.0349, abs=5e-5)


def test_possible_pairs_alone_exit_with_0(tmp_path):
    write_csv(tmp_path / "a.csv", ("dice", "iou"), [{"dice": "94.27", "iou": "92.83"}, {"dice": "0.90", "iou": "0.82"}])
    done = run("feasible", "--csv", tmp_path / "a.csv")
    assert done.exit_code == 0
    assert "line 2" in done.stdout
    assert "0 of 2" in done.stdout


def test_one_pair_says_what_it_needs():
    done = run("feasible", "--dice", "94.27", "--iou", "92.83", "--n", "519")
    assert done.exit_code == 0
    assert "19 of 519" in done.stdout
    assert "least SD" in done.stdout
    assert run("feasible", "--dice", "92.6", "--iou", "84.1").exit_code == 1


def test_printed_decimals_decide():
    # 92 and 85 may be 92.49 and 85.49; 92.00 and 85.00 may not
    assert run("feasible", "--dice", "92", "--iou", "85").exit_code == 0
    assert run("feasible", "--dice", "92.00", "--iou", "85.00").exit_code == 1
    assert run("feasible", "--dice", "0.92", "--iou", "0.85").exit_code == 0
    assert run("feasible", "--dice", "0.9200", "--iou", "0.8500").exit_code == 1
    assert (decimals_of("85.0"), decimals_of("85"), decimals_of(" 0.9411 ")) == (1, 0, 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "No pairs"),
        ("dice,iou\n", "No pairs"),
        ("dice,iou\n90,x\n", "Line 2"),
        ("label,dice,iou,n\nU-Net,90,80,many\n", "U-Net"),
        ("dice,iou\n90,80\n190,80\n", "Line 3"),
    ],
)
def test_a_broken_table_is_named(tmp_path, content, says):
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    done = run("feasible", "--csv", path)
    assert done.exit_code != 0
    assert says in str(done.exception)


def test_neither_pair_nor_table_is_refused(tmp_path):
    assert "--csv" in str(run("feasible").exception)
    assert "--csv" in str(run("feasible", "--dice", "90", "--iou", "80", "--csv", tmp_path / "x").exception)


def test_effects_of_three_seeds():
    # paper 000: d from 0.89 with p < 0.05 over three seeds; Wilcoxon "with similar results"
    assert run("feasible-effect", "--n", 3, "--d", "0.89", "--p-below", 0.05).exit_code == 1
    done = run("feasible-effect", "--n", 3, "--p-below", 0.05, "--wilcoxon")
    assert done.exit_code == 1
    assert "0.25" in done.stdout
    assert run("feasible-effect", "--n", 3, "--d", "2.50", "--p-below", 0.05).exit_code == 0


def test_d_is_t_over_root_n_and_p_follows_from_t():
    from scipy.stats import t as student

    p = f"{2 * student.sf(4.33, 2):.3f}"
    assert run("feasible-effect", "--n", 3, "--t", "4.33", "--d", "2.50", "--p", p).exit_code == 0
    assert run("feasible-effect", "--n", 3, "--t", "4.33", "--d", "0.89").exit_code == 1
    assert run("feasible-effect", "--n", 3, "--t", "4.33", "--p", "0.012").exit_code == 1
    assert run("feasible-effect", "--n", 519, "--t", "4.33", "--p", "0.000").exit_code == 0


def test_rates_with_and_without_specificity():
    # paper 003, Table 2: accuracy above both
    assert (
        run("feasible-rates", "--accuracy", "0.947", "--sensitivity", "0.957", "--specificity", "0.979").exit_code == 1
    )
    assert run("feasible-rates", "--accuracy", "93.8", "--sensitivity", "85.8", "--specificity", "96.1").exit_code == 0
    # half are positive and 70 % of them missed: at best 65 % right
    half = ("--sensitivity", "30.0", "--prevalence", 0.5)
    assert run("feasible-rates", "--accuracy", "65.0", *half).exit_code == 0
    assert run("feasible-rates", "--accuracy", "65.2", *half).exit_code == 1
    assert run("feasible-rates", "--accuracy", "90.0", "--sensitivity", "30.0").exit_code == 0
