"""What reviewers ask of the data and of failures: the flow of images, who they show, and which were worst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from lesion_core.files import read_csv, read_json, read_parquet
from lesion_core.paths import Layout
from lesion_core.report.score_store import Store
from lesion_core.report.subgroups import FIELDS, UNKNOWN, read_metadata
from lesion_core.settings import Plan

SPLITS = ("train", "val", "test")
FLOW = ("dataset", "found", "set_aside", "in_catalog", "joined", *SPLITS, "scored")
DEMOGRAPHICS = ("dataset", "split", "images", "attribute", "value", "count", "share")
FAILURES = ("rule", "dataset", "method", "image_id", "value", "truth", "answer")
WORST = 3
MELANOMA = "mel"

Row = dict[str, Any]


def flow_of(layout: Layout, store: Store, home: str) -> list[Row]:
    """One row per dataset: images found, set aside by a rule, in the catalog, joined with another, per split, scored.

    ``joined``: images whose group has another image, of this dataset or another.
    """
    catalog = _catalog(layout, home)
    groups = catalog.get("group_id", pd.Series(None, catalog.index, dtype=object))
    known = set(zip(catalog["dataset"], catalog["image_id"], strict=True))
    aside = {(item["dataset"], item["image_id"]) for item in read_json(layout.data_report)["problems"]} - known
    scored = {
        (key[1], image)
        for scores in (store.segmentation, store.classification)
        for key, rows in scores.items()
        for image in rows["image_id"]
    }
    catalog["joined"] = groups.map(groups.value_counts()).fillna(0) > 1
    listed = []
    for dataset, own in catalog.groupby("dataset"):
        set_aside = sum(of == dataset for of, _ in aside)
        row = {"dataset": dataset, "found": len(own) + set_aside, "set_aside": set_aside, "in_catalog": len(own)}
        row |= {"joined": int(own["joined"].sum()), **{split: int((own["split"] == split).sum()) for split in SPLITS}}
        listed.append(row | {"scored": sum(of == dataset for of, _ in scored)})
    return listed


def demographics_of(layout: Layout, home: str) -> list[Row]:
    """Age, sex, site and class per dataset and split: count and share (%) of each value; of age mean and SD."""
    known = _catalog(layout, home).drop(columns=[*FIELDS], errors="ignore")
    known = known.join(read_metadata(layout), on=["dataset", "image_id"])
    listed: list[Row] = []
    for dataset in sorted(known["dataset"].unique()):
        for split in SPLITS:
            own = known[(known["dataset"] == dataset) & (known["split"] == split)]
            head = {"dataset": dataset, "split": split, "images": len(own)}
            ages = own["age"].dropna().astype(float)
            told = f"{ages.mean():.1f} (SD {ages.std(ddof=0):.1f})" if len(ages) else UNKNOWN
            counts = [("age", told, len(ages))]
            for attribute, name in (("sex", "sex"), ("site", "site"), ("class", "label")):
                values = own[name].astype(object).fillna(UNKNOWN).value_counts().sort_index()
                counts += [(attribute, value, int(count)) for value, count in values.items()]
            for attribute, value, count in counts:
                share = f"{100 * count / len(own):.1f}" if len(own) else ""
                listed.append(head | {"attribute": attribute, "value": value, "count": count, "share": share})
    return listed


def failures_of(store: Store, plan: Plan) -> list[Row]:
    """The worst cases by rule, of every method's first run: lowest Dice, and melanomas missed most confidently."""
    listed = [row for method, (run, *_) in plan.distinct_runs() for row in _failures(store, plan, method, run)]
    return sorted(listed, key=lambda row: (row["rule"], row["dataset"], row["method"]))


def _failures(store: Store, plan: Plan, method: str, run: str) -> Iterator[Row]:
    for (own, dataset, prompt, resolution), rows in sorted(store.segmentation.items(), key=lambda item: item[0]):
        if (own, prompt, resolution) == (run, plan.prompt_of(method), "native"):
            for row in rows.sort_values(["dice", "image_id"])[:WORST].itertuples():
                head = {"rule": "lowest Dice", "dataset": dataset, "method": method, "image_id": row.image_id}
                yield head | {"value": f"{row.dice:.4f}", "truth": "", "answer": ""}
    for (own, dataset), rows in sorted(store.classification.items(), key=lambda item: item[0]):
        if own == run:
            missed = rows[(rows["label"] == MELANOMA) & (rows["predicted"] != MELANOMA)]
            sure = [row[f"p_{row['predicted']}"] for _, row in missed.iterrows()]
            worst = missed.assign(sure=sure).sort_values(["sure", "image_id"], ascending=[False, True])[:WORST]
            for row in worst.itertuples():
                head = {"rule": "melanoma missed", "dataset": dataset, "method": method, "image_id": row.image_id}
                yield head | {"value": f"{row.sure:.4f}", "truth": MELANOMA, "answer": row.predicted}


def _catalog(layout: Layout, home: str) -> pd.DataFrame:
    """The catalog with a column ``split``; images of a dataset without a split table have none."""
    catalog = read_parquet(layout.catalog).to_pandas()
    splits = {
        (dataset, row["image_id"]): row["split"]
        for dataset in catalog["dataset"].unique()
        if (path := layout.split(home, dataset)).is_file()
        for row in read_csv(path)
    }
    return catalog.assign(split=[splits.get(key) for key in zip(catalog["dataset"], catalog["image_id"], strict=True)])
