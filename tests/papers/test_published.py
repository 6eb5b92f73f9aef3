from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from lesion_core.errors import SettingsError
from lesion_core.metrics.feasibility.effects import check_effect
from lesion_core.metrics.feasibility.rates import check_rates
from lesion_core.papers.published import FILE, TABLES, load, pairs

PAPERS = Path(os.environ.get("LESION_SHARED_PAPERS", "papers"))
TEXTS = {
    "sam_vit": "000_*.txt",
    "gl_med_sa": "001_*.txt",
    "dual_network": "002_*.txt",
    "segmae": "003_*.txt",
    "peft_medsam": "004_*.txt",
}
# METHOD.md, "What is wrong in the literature": the papers' own rows.
NAMED = {
    ("gl_med_sa_table_1", "Med-SA, 1 point"),
    ("gl_med_sa_table_1", "Med-SA, 3 points"),
    ("gl_med_sa_table_1", "GL-Med-SA, 1 point"),
    ("gl_med_sa_table_1", "GL-Med-SA, 3 points"),
    ("segmae_table_1", "SegMAE"),
    ("segmae_table_3", "SegMAE"),
}
# Not named there: a baseline cited by SegMAE, one cited by SAM-ViT in whole per cent, and SegMAE's ablation, whose last
# step repeats the two named rows.
FURTHER = {
    ("table_01", "FAT-Net"),
    ("segmae_table_3", "MB-DCNN"),
    ("segmae_table_4", "2 + MAE decoder, ISIC 2017"),
    ("segmae_table_4", "3 + MAE decoder + pre-trained, ISIC 2017"),
    ("segmae_table_4", "4 + MAE decoder + L1, ISIC 2017"),
    ("segmae_table_4", "5 + MAE decoder + L2, ISIC 2017"),
    ("segmae_table_4", "6 + MAE decoder + L1 + L2, ISIC 2017"),
    ("segmae_table_4", "7 + MAE decoder + pre-trained + L1 + L2, ISIC 2017"),
    ("segmae_table_4", "1 Baseline, PH2"),
    ("segmae_table_4", "2 + MAE decoder, PH2"),
    ("segmae_table_4", "4 + MAE decoder + L1, PH2"),
    ("segmae_table_4", "5 + MAE decoder + L2, PH2"),
    ("segmae_table_4", "6 + MAE decoder + L1 + L2, PH2"),
    ("segmae_table_4", "7 + MAE decoder + pre-trained + L1 + L2, PH2"),
}


@pytest.fixture(scope="module")
def claims():
    return load()


def one(claims, table, row, metric):
    found = [c for c in claims if (c.table, c.row, c.metric) == (table, row, metric)]
    assert len(found) == 1
    return found[0]


def test_every_table_of_every_paper_has_claims(claims):
    assert {c.table for c in claims} == {table for tables in TABLES.values() for table in tables}
    assert Counter(c.paper for c in claims)["gl_med_sa"] == 21 * 4


def test_headline_numbers(claims):
    assert one(claims, "table_05", "SAM-ViT (proposed)", "dice").value == 94.27
    assert one(claims, "table_07", "SAM-ViT (proposed)", "auc").source == "method"
    assert one(claims, "table_09", "Frozen SAM", "dice").value == 89.41
    assert one(claims, "peft_medsam", "PEFT-MedSAM", "iou").value == 0.8918
    item = one(claims, "gl_med_sa_table_1", "GL-Med-SA, 3 points", "iou")
    assert (item.value, item.printed, item.decimals, item.unit, item.proposed) == (85.0, "85.0", 1, "percent", True)
    assert one(claims, "segmae_table_2", "SegMAE", "iou").decimals == 3
    assert one(claims, "table_01", "FAT-Net", "dice").decimals == 0
    assert one(claims, "segmae_table_1", "SegMAE", "dice").n == 600


def test_impossible_are_the_named_pairs_and_the_further_ones(claims):
    found = {(p.dice.table, p.dice.row) for p in pairs(claims) if p.verdict.verdict == "impossible"}
    assert found == NAMED | FURTHER


def test_of_the_papers_own_comparison_rows_and_med_sa_exactly_the_named_are_impossible(claims):
    found = {
        (p.dice.table, p.dice.row)
        for p in pairs(claims)
        if p.verdict.verdict == "impossible"
        and p.dice.table != "segmae_table_4"
        and (p.dice.proposed or p.dice.row.startswith("Med-SA"))
    }
    assert found == NAMED


def test_sam_vit_needs_the_named_spread(claims):
    for table in ("table_05", "table_09"):
        (pair,) = [p for p in pairs(claims) if p.dice.table == table and p.dice.proposed]
        assert pair.verdict.verdict == "possible only with spread"
        assert round(pair.verdict.least_sd_printed, 3) == 0.176


def test_published_effects_contradict_three_seeds(claims):
    effects = [c for c in claims if c.metric == "cohens_d"]
    assert sorted(c.value for c in effects) == [0.68, 0.89, 1.12, 2.14]
    for claim in effects:
        below = one(claims, claim.table, "All comparisons", "p_below").value
        assert check_effect(claim.n, d=claim.value, p_below=below, decimals=claim.decimals).verdict == "impossible"


def test_segmaes_isic_2018_accuracy_is_no_pooled_accuracy(claims):
    rates = [one(claims, "segmae_table_2", "SegMAE", m).printed for m in ("accuracy", "sensitivity", "specificity")]
    assert check_rates(*rates).pooled_verdict == "impossible"


@pytest.mark.skipif(not PAPERS.is_dir(), reason="the papers' texts are not here (set LESION_SHARED_PAPERS)")
def test_numbers_said_to_stand_in_a_text_stand_there(claims):
    texts = {}
    for paper, pattern in TEXTS.items():
        text = next(PAPERS.glob(pattern)).read_text(encoding="utf-8")
        texts[paper] = text.replace(". ", ".")  # "84. 1" in a scanned table
    missing = [
        (c.paper, c.table, c.row, c.metric, c.printed)
        for c in claims
        if c.source == "text" and c.metric != "p_below" and c.printed.removeprefix("0") not in texts[c.paper]
    ]
    assert missing == []


def valid() -> str:
    return (
        "- {paper: segmae, table: segmae_table_1, row: U-Net, dataset: isic2017, metric: dice, value: '0.783', "
        "unit: fraction, averaging: null, n: 600, proposed: false, source: text, where: Table 1}\n"
    )


def test_one_valid_claim(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(valid(), encoding="utf-8")
    (claim,) = load(path)
    assert (claim.value, claim.decimals) == (0.783, 3)
    assert pairs([claim]) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("where: Table 1", "where: Table 1, note: x", "unknown keys .'note'."),
        (", where: Table 1", "", "missing keys .'where'."),
        ("value: '0.783'", "value: 0.783", "value is not a text"),
        ("value: '0.783'", "value: '78.3'", "too great for fraction"),
        ("value: '0.783'", "value: '-0.783'", "not a printed number"),
        ("value: '0.783'", "value: 'nan'", "not a printed number"),
        ("metric: dice", "metric: dise", "unknown metric"),
        ("unit: fraction", "unit: p", "unknown unit"),
        ("dataset: isic2017", "dataset: isic", "unknown dataset"),
        ("table: segmae_table_1", "table: table_05", "unknown table"),
        ("paper: segmae", "paper: other", "unknown paper"),
        ("n: 600", "n: 0", "neither a count"),
        ("n: 600", "n: true", "neither a count"),
        ("proposed: false", "proposed: 0", "neither true nor false"),
        ("source: text", "source: guess", "unknown source"),
        ("averaging: null", "averaging: 3", "neither a text nor null"),
    ],
)
def test_faulty_claims_are_refused(tmp_path, old, new, says):
    path = tmp_path / "published.yaml"
    assert old in valid()
    path.write_text(valid().replace(old, new), encoding="utf-8")
    with pytest.raises(SettingsError, match=says):
        load(path)


def test_a_claim_twice_is_refused(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(valid() * 2, encoding="utf-8")
    with pytest.raises(SettingsError, match="stands twice"):
        load(path)


@pytest.mark.parametrize("text", ["", "{}", "- [", "- 3\n"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "published.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        load(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_the_file_ships_with_the_package():
    assert FILE.is_file()
