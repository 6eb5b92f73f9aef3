"""A tiny score store that the report's tests compute by hand, and what else the page shows."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
from material import HOME

from lesion_core.files import read_json, sha256_file, write_json, write_parquet
from lesion_core.paths import Layout
from lesion_core.scores import write_scores
from lesion_core.settings import CLASSES, Ledger, Plan, Report, Statistics, Table
from lesion_core.settings.paper import Figure, TestTable
from lesion_core.settings.papers import read_paper

CHECKOUT = Path(__file__).resolve().parents[1]
IMAGES = ("a", "b", "c", "d")
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)
# Dice per image; SAM-Adapter has two seeds, the frozen model none (one run), the U-Net was not run
DICE = {
    "sam_frozen-s0": (0.5, 0.6, 0.7, 0.8),
    "sam_adapter-s0": (0.7, 0.8, 0.9, 0.8),
    "sam_adapter-s1": (0.9, 0.8, 0.9, 1.0),
}
CLASSIFIED = {"vit_none-s0": ("nv", "nv", "nv", "nv"), "vit_cross_attention-s0": ("nv", "mel", "nv", "bkl")}
TRUTH = ("nv", "mel", "mel", "bkl")


def make_plan(profile: str = "smoke", papers: tuple[str, ...] = (), **changes: Any) -> Plan:
    """Tables of paper A as far as the store below has runs of them, and all tables of the papers named."""
    rows = [
        {"label": "U-Net", "method": "unet"},
        {"label": "SAM frozen", "method": "sam_frozen"},
        {
            "label": "SAM-ViT (proposed)",
            "method": "sam_adapter",
            "proposed": True,
            "published": {"dice": "94.27", "iou": "92.83"},
        },
        {"label": "SAM, oracle box", "method": "sam_frozen", "prompt": "oracle_box"},
    ]
    classifiers = [
        {"label": "ViT without fusion", "method": "vit_none"},
        {
            "label": "SAM-ViT (proposed)",
            "method": "vit_cross_attention",
            "proposed": True,
            "published": {"accuracy": "96.37", "auc": "0.979"},
        },
        {"label": "Skin-DeepNet", "published": {"accuracy": "98.00", "f1": "97.57"}, "where": "section 4.2"},
    ]
    quoted = [
        {"label": "FAT-Net", "published": {"dice": "91", "iou": "82"}},
        {"label": "EGAN", "published": {"dice": ">92"}},
    ]
    shared = {"paper": "sam_vit", "task": "segmentation", "dataset": "isic2018_task1", "metrics": ["dice", "iou"]}
    tables = {
        "sam_vit_table_01": {**shared, "title": "Literature", "rows": quoted},
        "sam_vit_table_05": {**shared, "title": "Seg", "rows": rows},
        "sam_vit_table_08": {
            "title": "Cls",
            "paper": "sam_vit",
            "task": "classification",
            "dataset": "ham10000",
            "metrics": ["accuracy", "auc", "balanced_accuracy"],
            "units": {"auc": "fraction"},
            "rows": classifiers,
        },
    }
    real = {name: read_paper(CHECKOUT / "workflow" / "papers" / f"{name}.yaml") for name in ("sam_vit", *papers)}
    typed = {name: Table.model_validate(table) for name, table in tables.items()}
    return Plan(
        profile=profile,
        tables=typed | {key: table for name in papers for key, table in real[name].tables.items()},
        papers={name: paper.reference for name, paper in real.items()},
        claims={name: paper.claims for name, paper in real.items()},
        contradictions={name: paper.contradictions for name, paper in real.items()},
        tests={
            "sam_vit_table_15": TestTable(title="Tests of segmentation", of=["sam_vit_table_05"]),
            "sam_vit_table_16": TestTable(title="Tests of classification", of=["sam_vit_table_08"]),
        },
        runs={
            "sam_frozen": ["sam_frozen-s0"],
            "sam_adapter": ["sam_adapter-s0", "sam_adapter-s1"],
            "vit_none": ["vit_none-s0"],
            "vit_cross_attention": ["vit_cross_attention-s0"],
            **changes.pop("runs", {}),
        },
        names={
            "unet": "U-Net",
            "sam_frozen": "SAM frozen",
            "sam_adapter": "SAM-Adapter",
            "vit_none": "ViT, no fusion",
            "vit_cross_attention": "ViT, cross-attention",
        },
        trained_on={
            "sam_frozen": {"segmentation": []},
            "sam_adapter": {"segmentation": ["isic2018_task1"]},
            "vit_none": {"classification": ["ham10000"]},
            "vit_cross_attention": {"classification": ["ham10000"]},
        },
        figures={
            "sam_vit_figure_08": Figure(
                kind="contours", title="Figure 8", dataset="isic2018_task1", method="sam_adapter"
            ),
            "sam_vit_figure_09": Figure(kind="contours", title="Figure 9", dataset="ph2", method="sam_adapter"),
        },
        protocols={HOME: HOME},
        figure_segmenter="sam_adapter",
        statistics=Statistics(alpha=0.05, resamples=200, seed=1, power=0.8, segmentation_metric="dice"),
        ledger=Ledger(tolerance_points=1.0),
        report=Report(gallery_side=64, gallery_megabytes=1.0),
    )


def segmentation_row(run: str, image: str, dice: float, **changes: Any) -> dict[str, Any]:
    """One segmentation score; IoU follows from Dice as for one image."""
    return {
        "run_id": run,
        "method": run.rsplit("-", 1)[0],
        "protocol": "shared",
        "rule": "leak_free",
        "dataset": "isic2018_task1",
        "split": "test",
        "seed": int(run[-1]),
        "image_id": image,
        "lesion_id": None,
        "prompt": "none",
        "resolution": "native",
        "dice": dice,
        "iou": dice / (2 - dice),
        "thresholded_iou": dice / (2 - dice),
        "sensitivity": 0.5,
        "specificity": 0.5,
        "accuracy": 0.5,
        "hd95": 0.1,
        "surface_distance": 0.05,
        "tp": 1,
        "fp": 1,
        "fn": 1,
        "tn": 1,
        **changes,
    }


def classification_row(run: str, image: str, label: str, predicted: str, **changes: Any) -> dict[str, Any]:
    """One classification score: 0.7 on the predicted class, 0.05 on every other."""
    return {
        "run_id": run,
        "method": run.rsplit("-", 1)[0],
        "protocol": "shared",
        "rule": "leak_free",
        "dataset": "ham10000",
        "split": "test",
        "seed": int(run[-1]),
        "image_id": image,
        "lesion_id": f"lesion_{image}",
        "label": label,
        "predicted": predicted,
        **{f"p_{name}": 0.7 if name == predicted else 0.05 for name in CLASSES},
        "temperature": 1.0,
        "mask_flag": "",
        **changes,
    }


def segmentation_rows() -> list[dict[str, Any]]:
    """All segmentation scores: no prompt at both sizes, and an oracle box for the frozen model."""
    rows = []
    for run, values in DICE.items():
        for image, dice in zip(IMAGES, values, strict=True):
            rows.append(segmentation_row(run, image, dice))
            rows.append(segmentation_row(run, image, dice, resolution="model"))
    rows.extend(segmentation_row("sam_frozen-s0", image, 0.99, prompt="oracle_box") for image in IMAGES)
    return rows


def classification_rows() -> list[dict[str, Any]]:
    """All classification scores."""
    return [
        classification_row(run, image, label, predicted)
        for run, answers in CLASSIFIED.items()
        for image, label, predicted in zip(IMAGES, TRUTH, answers, strict=True)
    ]


def make_store(root: Path, segmentation: list | None = None, classification: list | None = None) -> Path:
    """Write both score files under ``root``."""
    layout = Layout(root)
    write_scores(
        layout.scores("segmentation"), "segmentation", segmentation_rows() if segmentation is None else segmentation
    )
    write_scores(
        layout.scores("classification"),
        "classification",
        classification_rows() if classification is None else classification,
    )
    return root


def make_surroundings(root: Path, plan: Plan) -> None:
    """What the page shows besides scores: catalog report, certificate, provenance and history of every run."""
    layout = Layout(root)
    part = {
        "images": 4,
        "lesions": 3,
        "masks": 4,
        "labels": {"nv": 3, "mel": 1},
        "missing": {"age": 1, "sex": 0},
        "sizes": {"common": {"600 x 450": 3, "<script>": 1}, "different": 2},
    }
    problems = [{"dataset": "ham10000", "image_id": "x", "kind": "mask", "detail": "a <b>bold</b> claim"}]
    joins = {"edges": {"lesion": 3}, "edges_between": {"ham10000": {"lesion": 3}}, "groups": 2}
    report = {"datasets": {"ham10000": part}, "problems": problems, "joins": joins | {"groups_by_size": {"1": 1}}}
    write_json(layout.catalog.with_name("report.json"), report)
    write_json(layout.colours, {"pairs": [{"first": "ham10000", "second": "ph2", "before": 12.34, "after": 0.68}]})
    for name in ("overview.png", "colours.png"):
        layout.colours.with_name(name).write_bytes(PIXEL)
    write_json(
        layout.certificate(HOME),
        {
            "rule": "leak_free",
            "verdict": "no leak",
            "splits": {"ham10000": {"sha256": "0" * 64, "counts": {"train": 2, "val": 1, "test": 1}}},
            "edges_checked": {"lesion": 3},
            "crossing": [],
            "leaks": {},
            "confirmed_by": {"ham10000": {"test": CONFIRMED}},
        },
    )
    for runs in plan.runs.values():
        for run in runs:
            task = "classification" if run.startswith("vit") else "segmentation"
            content = {
                "seed": int(run[-1]),
                "device": "cpu",
                "code": {"hash": "abc"},
                "settings": {"note": "</script><!--", "split_tables": HOME},
                "inputs": {},
                "packages": {"numpy": "2"},
                "extra": {},
            }
            write_json(layout.run(task, run) / "provenance.json", content)
            header = "epoch,train_loss,val_dice\n"
            text = header if run.startswith("sam_frozen") else header + "1,0.5,0.7\n2,0.4,0.8\n"
            (layout.run(task, run) / "history.csv").write_text(text, encoding="utf-8")


CONFIRMED = {"images": 4, "cramers_v": 0.5774, "classes": {"follow_up": {"nv": 1}, "histo": {"mel": 2, "nv": 1}}}


def make_results(root: Path, plan: Plan | None = None) -> Path:
    """Scores as scoring leaves them, gathered and per run, with weights, splits, certificate and catalog."""
    plan = plan or make_plan()
    make_store(root)
    make_surroundings(root, plan)
    layout = Layout(root)
    for runs in plan.runs.values():
        for run in runs:
            kind = "classification" if run.startswith("vit") else "segmentation"
            rows = classification_rows() if kind == "classification" else segmentation_rows()
            folder = layout.run(kind, run)
            write_scores(folder / "scores.parquet", kind, [row for row in rows if row["run_id"] == run])
            (folder / "weights.safetensors").write_bytes(run.encode())
    certificate = read_json(layout.certificate(HOME))
    records = []
    for dataset in ("isic2018_task1", "ham10000"):
        lines = [f"{image},{dataset}:{image},test\n" for image in IMAGES]
        layout.split(HOME, dataset).write_text("image_id,group_id,split\n" + "".join(lines), encoding="utf-8")
        counts = {"train": 0, "val": 0, "test": len(IMAGES)}
        certificate["splits"][dataset] = {"sha256": sha256_file(layout.split(HOME, dataset)), "counts": counts}
        records += [
            {
                "dataset": dataset,
                "image_id": image,
                "path": f"data/{dataset}/{image}.png",
                "mask_path": f"data/{dataset}/{image}_mask.png",
                "sha256": f"{number:064x}",
                "licence": "CC0-1.0",
                "label": label,
            }
            for number, (image, label) in enumerate(zip(IMAGES, TRUTH, strict=True))
        ]
    write_json(layout.certificate(HOME), certificate)
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(records))
    return root


def disc(radius: int) -> np.ndarray:
    """A mask of 60 x 80 pixels, 0 or 255, with a disc in its middle."""
    y, x = np.mgrid[:60, :80]
    return ((x - 40) ** 2 + (y - 30) ** 2 < radius**2).astype(np.uint8) * 255


def make_images(root: Path, segmented: tuple[str, ...] = ("isic2018_task1",)) -> None:
    """Every image, and what scoring stores: predicted and true masks; the catalog's own masks are not there."""
    layout = Layout(root)
    for dataset in (*segmented, "ham10000"):
        layout.data(dataset).mkdir(parents=True)
        for number, image in enumerate(IMAGES):
            cv2.imwrite(str(layout.data(dataset) / f"{image}.png"), np.full((60, 80, 3), 40 * number + 60, np.uint8))
    for run in DICE:
        with zipfile.ZipFile(layout.run("segmentation", run) / "test_masks.zip", "w") as masks:
            for number, image in enumerate(IMAGES):
                # the frozen model finds nothing on the first image
                radius = 0 if run.startswith("sam_frozen") and number == 0 else 15 + number
                for name, mask in (("", disc(radius)), ("truth/", disc(20))):
                    content = cv2.imencode(".png", mask)[1].tobytes()
                    for dataset in segmented:
                        masks.writestr(f"{name}{dataset}/{image}.png", content)
