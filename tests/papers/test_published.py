from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from lesion_core.metrics.feasibility.effects import check_effect
from lesion_core.metrics.feasibility.rates import check_rates
from lesion_core.papers.published import pairs, published_numbers
from lesion_core.settings.load import load
from lesion_core.settings.matrix import plan

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
    ("gl_med_sa_table_01", "Med-SA, 1 click (oracle)"),
    ("gl_med_sa_table_01", "Med-SA, 3 clicks (oracle)"),
    ("gl_med_sa_table_01", "GL-Med-SA, 1 click (oracle)"),
    ("gl_med_sa_table_01", "GL-Med-SA, 3 clicks (oracle)"),
    ("segmae_table_01", "SegMAE"),
    ("segmae_table_03", "SegMAE"),
}
# Not named there: a baseline cited by SegMAE, one cited by SAM-ViT in whole per cent, and SegMAE's ablation, whose last
# step repeats the two named rows.
FURTHER = {
    ("sam_vit_table_01", "FAT-Net"),
    ("segmae_table_03", "MB-DCNN"),
    ("segmae_table_04", "2 + MAE decoder, ISIC 2017"),
    ("segmae_table_04", "3 + MAE decoder + pre-trained, ISIC 2017"),
    ("segmae_table_04", "4 + MAE decoder + L1, ISIC 2017"),
    ("segmae_table_04", "5 + MAE decoder + L2, ISIC 2017"),
    ("segmae_table_04", "6 + MAE decoder + L1 + L2, ISIC 2017"),
    ("segmae_table_04", "7 + MAE decoder + pre-trained + L1 + L2, ISIC 2017"),
    ("segmae_table_04", "1 Baseline, PH2"),
    ("segmae_table_04", "2 + MAE decoder, PH2"),
    ("segmae_table_04", "4 + MAE decoder + L1, PH2"),
    ("segmae_table_04", "5 + MAE decoder + L2, PH2"),
    ("segmae_table_04", "6 + MAE decoder + L1 + L2, PH2"),
    ("segmae_table_04", "7 + MAE decoder + pre-trained + L1 + L2, PH2"),
}


@pytest.fixture(scope="module")
def claims():
    return published_numbers(plan(load("paper")))


def one(claims, table, row, metric):
    found = [c for c in claims if (c.table, c.row, c.metric) == (table, row, metric)]
    assert len(found) == 1
    return found[0]


def test_every_table_of_every_paper_has_claims(claims):
    tables = {f"sam_vit_table_{number:02d}" for number in range(1, 17)}
    tables |= {f"segmae_table_{number:02d}" for number in range(1, 5)}
    tables |= {f"{name}_table_01" for name in ("gl_med_sa", "dual_network", "peft_medsam")}
    assert {c.table for c in claims} == tables
    assert Counter(c.paper for c in claims)["gl_med_sa"] == 21 * 4 - 4  # one count of parameters in rows trained whole


def test_headline_numbers(claims):
    assert one(claims, "sam_vit_table_05", "SAM-ViT (proposed)", "dice").value == 94.27
    assert one(claims, "sam_vit_table_07", "SAM-ViT (proposed)", "auc").unit == "fraction"
    assert one(claims, "sam_vit_table_09", "Frozen SAM", "dice").value == 89.41
    assert one(claims, "peft_medsam_table_01", "PEFT-MedSAM, oracle box", "iou").value == 0.8918
    item = one(claims, "gl_med_sa_table_01", "GL-Med-SA, 3 clicks (oracle)", "iou")
    assert (item.value, item.printed, item.decimals, item.unit, item.proposed) == (85.0, "85.0", 1, "percent", True)
    assert one(claims, "segmae_table_02", "SegMAE", "iou").decimals == 3
    assert one(claims, "sam_vit_table_01", "FAT-Net", "dice").decimals == 0
    assert one(claims, "segmae_table_01", "SegMAE", "dice").n == 600


def test_impossible_are_the_named_pairs_and_the_further_ones(claims):
    found = {(p.dice.table, p.dice.row) for p in pairs(claims) if p.verdict.verdict == "impossible"}
    assert found == NAMED | FURTHER


def test_of_the_papers_own_comparison_rows_and_med_sa_exactly_the_named_are_impossible(claims):
    found = {
        (p.dice.table, p.dice.row)
        for p in pairs(claims)
        if p.verdict.verdict == "impossible"
        and p.dice.table != "segmae_table_04"
        and (p.dice.proposed or p.dice.row.startswith("Med-SA"))
    }
    assert found == NAMED


def test_sam_vit_needs_the_named_spread(claims):
    for table in ("sam_vit_table_05", "sam_vit_table_09"):
        (pair,) = [p for p in pairs(claims) if p.dice.table == table and p.dice.proposed]
        assert pair.verdict.verdict == "possible only with spread"
        assert round(pair.verdict.least_sd_printed, 3) == 0.176


def test_published_effects_contradict_three_seeds(claims):
    effects = [c for c in claims if c.metric == "cohens_d"]
    assert sorted(c.value for c in effects) == [0.68, 0.89, 1.12, 2.14]
    for claim in effects:
        below = one(claims, claim.table, "All comparisons", "p_below").printed
        assert check_effect(claim.n, d=claim.printed, p_below=below).verdict == "impossible"


def test_segmaes_isic_2018_accuracy_is_no_pooled_accuracy(claims):
    rates = [one(claims, "segmae_table_02", "SegMAE", m).printed for m in ("accuracy", "sensitivity", "specificity")]
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
        for number in re.findall(r"[\d.]+", c.printed)
        if c.metric != "p_below" and number.removeprefix("0") not in texts[c.paper]
    ]
    assert missing == []
