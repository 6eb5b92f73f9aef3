"""What reviewers ask of the data and of failures: the flow of images, who they show, and which were worst."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from lesion_core.files import read_csv, read_json, read_parquet
from lesion_core.paths import Layout
from lesion_core.report.score_store import Store
from lesion_core.report.subgroups import UNKNOWN, read_metadata
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
    catalog = read_parquet(layout.catalog).to_pylist()
    groups = Counter(row.get("group_id") for row in catalog)
    known = {(row["dataset"], row["image_id"]) for row in catalog}
    problems = {(item["dataset"], item["image_id"]) for item in read_json(layout.data_report)["problems"]}
    aside = Counter(dataset for dataset, _ in problems - known)
    scored: dict[str, set[str]] = defaultdict(set)
    for scores in (store.segmentation, store.classification):
        for key, rows in scores.items():
            scored[key[1]].update(row["image_id"] for row in rows)
    listed = []
    for dataset in sorted({row["dataset"] for row in catalog}):
        own = [row for row in catalog if row["dataset"] == dataset]
        splits = Counter(_splits(layout, home, dataset).values())
        listed.append(
            {
                "dataset": dataset,
                "found": len(own) + aside[dataset],
                "set_aside": aside[dataset],
                "in_catalog": len(own),
                "joined": sum(row.get("group_id") is not None and groups[row["group_id"]] > 1 for row in own),
                **{split: splits[split] for split in SPLITS},
                "scored": len(scored[dataset]),
            }
        )
    return listed


def demographics_of(layout: Layout, home: str) -> list[Row]:
    """Age, sex, site and class per dataset and split: count and share (%) of each value; of age mean and SD."""
    metadata = read_metadata(layout)
    catalog = read_parquet(layout.catalog, ["dataset", "image_id", "label"]).to_pylist()
    listed: list[Row] = []
    for dataset in sorted({row["dataset"] for row in catalog}):
        splits = _splits(layout, home, dataset)
        for split in SPLITS:
            own = [row for row in catalog if row["dataset"] == dataset and splits.get(row["image_id"]) == split]
            facts = [metadata[dataset, row["image_id"]] | {"class": row["label"]} for row in own]
            head = {"dataset": dataset, "split": split, "images": len(own)}
            ages = [float(fact["age"]) for fact in facts if fact.get("age") is not None]
            told = f"{fmean(ages):.1f} (SD {pstdev(ages):.1f})" if ages else UNKNOWN
            listed.append(head | {"attribute": "age", "value": told, **_share(len(ages), len(own))})
            for attribute in ("sex", "site", "class"):
                counts = Counter(fact.get(attribute) or UNKNOWN for fact in facts)
                for value, count in sorted(counts.items()):
                    listed.append(head | {"attribute": attribute, "value": value, **_share(count, len(own))})
    return listed


def failures_of(store: Store, plan: Plan) -> list[Row]:
    """The worst cases by rule, of every method's first run: lowest Dice, and melanomas missed most confidently."""
    listed: list[Row] = []
    seen: set[str] = set()
    for method, runs in plan.runs.items():
        if not runs or runs[0] in seen:  # a method of another name with the same runs
            continue
        seen.add(runs[0])
        prompt = plan.prompt_of(method)
        for (run, dataset, own_prompt, resolution), rows in sorted(store.segmentation.items()):
            if (run, own_prompt, resolution) == (runs[0], prompt, "native"):
                for row in sorted(rows, key=lambda row: (row["dice"], row["image_id"]))[:WORST]:
                    listed.append(_failure("lowest Dice", dataset, method, row["image_id"], row["dice"]))
        for (run, dataset), answers in sorted(store.classification.items()):
            if run == runs[0]:
                for value, image_id, answer in _missed(answers):
                    told = {"truth": MELANOMA, "answer": answer}
                    listed.append(_failure("melanoma missed", dataset, method, image_id, value) | told)
    return sorted(listed, key=lambda row: (row["rule"], row["dataset"], row["method"]))


def _missed(rows: Sequence[Any]) -> list[tuple[float, str, str]]:
    """(probability of the wrong answer, image id, answer) of the melanomas missed most confidently."""
    missed = [
        (row[f"p_{row['predicted']}"], row["image_id"], row["predicted"])
        for row in rows
        if row["label"] == MELANOMA != row["predicted"]
    ]
    return sorted(missed, key=lambda item: (-item[0], item[1]))[:WORST]


def _failure(rule: str, dataset: str, method: str, image_id: str, value: float) -> Row:
    head = {"rule": rule, "dataset": dataset, "method": method, "image_id": image_id}
    return head | {"value": f"{value:.4f}", "truth": "", "answer": ""}


def _splits(layout: Layout, home: str, dataset: str) -> dict[str, str]:
    path = layout.split(home, dataset)
    return {row["image_id"]: row["split"] for row in read_csv(path)} if path.is_file() else {}


def _share(count: int, of: int) -> Row:
    return {"count": count, "share": f"{100 * count / of:.1f}" if of else ""}
