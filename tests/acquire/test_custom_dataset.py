"""A user's own dataset in every stage: catalog, splits, harmonization, training, scoring; and the README's lines."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.acquire.synthetic.lesion import make_lesion
from lesion_core.audit.integrity import files
from lesion_core.audit.manifest import Job, Manifest, product_files
from lesion_core.audit.opened import masks_closed
from lesion_core.catalog.splits import build_splits
from lesion_core.catalog.table import build_catalog, read_images
from lesion_core.files import read_csv, read_json, read_parquet, sha256_file
from lesion_core.paths import Layout
from lesion_core.pixels.harmonized_arrays import harmonize_dataset
from lesion_core.pixels.reference import reference_histogram
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, Plan
from lesion_core.settings import load as config
from lesion_core.settings.stored import store

HOME = "sam_vit_protocol/leak_free"
REPOSITORY = Path(__file__).resolve().parents[2]
LESIONS = 28  # four of each class: a classifier trains on all seven


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic lesions, every fifth with two images, with masks, labels and some metadata."""
    folder = tmp_path_factory.mktemp("clinic")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    lines = ["image_id,lesion_id,label,age,sex,site"]
    for number in range(LESIONS):
        draw = generator("clinic", number)
        lesion = make_lesion(draw, CLASSES[number % 7])
        for view in range(2 if number % 5 == 0 else 1):
            name = f"case{number:02d}{'ab'[view]}"
            pixels, mask = synthetic_image(lesion, draw, (72, 96))
            Image.fromarray(pixels).save(folder / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
            age = "" if number % 4 == 0 else str(30 + number)
            lines.append(f"{name},L{number:02d},{CLASSES[number % 7]},{age},female,")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def settings(clinic: Path):
    own = {"images": str(clinic / "images"), "masks": str(clinic / "masks"), "csv": str(clinic / "images.csv")}
    return config.load(
        "smoke",
        {
            "data": {"datasets": ["custom"], "custom": own},
            "scoring": {"segmentation_on": ["custom"], "classification_on": ["custom"]},
            "matrix": {"seeds": [0], "methods": ["otsu", "unet", "majority"], "ablations": []},
            "bases": {
                "segmentation": {"train_on": ["custom"], "training": {"epochs": 1}, "model": {"image_size": 64}},
                "classification": {"train_on": ["custom"]},
            },
            "methods": {"unet": {"model": {"image_size": 64}}},
        },
    )


@pytest.fixture(scope="module")
def root(settings, clinic: Path) -> Path:
    """Results of the data stages."""
    layout = Layout(clinic / "results")
    build_catalog(
        {"custom": layout.data("custom")},
        layout.root,
        settings.duplicates,
        settings.data.custom,
        out_images=layout.catalog,
        out_edges=layout.edges,
        out_report=layout.catalog.with_name("report.json"),
    )
    splits, material = layout.certificate("shared/leak_free").parent, settings.homes.materials[HOME]
    build_splits(layout.catalog, layout.edges, material.splits, splits)
    chosen = material.harmonization
    reference_histogram(layout.catalog, splits, layout.root, layout.reference(HOME), chosen)
    out = layout.pixels(HOME, "custom", 64)
    harmonize_dataset("custom", 64, layout.catalog, splits, layout.reference(HOME), layout.root, out, chosen)
    return layout.root


def test_catalog_splits_and_arrays_hold_every_case(root: Path) -> None:
    layout = Layout(root)
    rows = read_images(layout.catalog)
    assert len(rows) == LESIONS + 6
    assert {row["label"] for row in rows} == set(CLASSES)
    assert all(row["mask_path"] for row in rows)
    splits = {row["image_id"]: row["split"] for row in read_csv(layout.split("shared/leak_free", "custom"))}
    assert set(splits.values()) == {"train", "val", "test"}
    assert all(splits[f"case{number:02d}a"] == splits[f"case{number:02d}b"] for number in range(0, LESIONS, 5))
    assert read_json(layout.certificate("shared/leak_free"))["verdict"] == "no leak"
    missing = read_json(layout.catalog.with_name("report.json"))["datasets"]["custom"]["missing"]
    assert missing["age"] == sum(row["age"] is None for row in rows) == 7 + 2  # cases 0, 4, ...; 0 and 20 twice


@pytest.fixture(scope="module")
def plan(settings) -> Plan:
    """A matrix without runs: nothing was trained."""
    return config.plan(settings).model_copy(update={"runs": {}, "ablations": []})


def manifest_of(root: Path, plan: Plan) -> Manifest:
    """What the data stages made."""
    hashes = {name: sha256_file(root / name) for name in product_files(root, plan)}
    return Manifest(settings={}, jobs=[Job(outputs=hashes)])


@pytest.mark.parametrize("column", ["path", "mask_path"])
def test_one_byte_of_an_own_image_or_mask_is_found_and_named(root: Path, plan: Plan, column: str) -> None:
    rows = read_images(Layout(root).catalog)
    name = rows[len(rows) // 2][column]
    path = root / name
    untouched = files(root, plan, manifest_of(root, plan))
    assert untouched.problems == []
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        [changed] = files(root, plan, manifest_of(root, plan)).problems
        path.unlink()
        [missing] = files(root, plan, manifest_of(root, plan)).problems
    finally:
        path.write_bytes(content)
    assert changed.startswith(f"{name}: its SHA-256 is not ")
    assert missing.startswith(f"{name}: missing")
    assert f"{2 * len(rows)} of the own dataset's {2 * len(rows)} files" in untouched.evidence


def test_a_catalog_that_is_not_the_recorded_one_vouches_for_no_own_file(root: Path, plan: Plan) -> None:
    manifest = manifest_of(root, plan)
    name = Layout(root).catalog.relative_to(root).as_posix()
    manifest.jobs[0].outputs[name] = "0" * 64
    answer = files(root, plan, manifest)
    assert [problem.split(":")[0] for problem in answer.problems] == [name]
    assert "not asked: the own dataset's files" in answer.evidence


def job(script: str, *arguments: str) -> None:
    """A job's process, which records what it opens: an audit hook cannot be taken off."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


OPENS = """
import sys
from pathlib import Path
from lesion_core.record import observe, outputs
observe.begin()
from lesion_core.record.attempts import Attempts
from lesion_core.record.provenance import write_provenance
from lesion_core.settings.run import Run
root, folder, *names = sys.argv[1:]
root, folder = Path(root), Path(folder)
for name in names:
    open(root / name, "rb").close()
write_provenance(folder, Run.load(folder), inputs=[], device="cpu", attempts=Attempts(root))
outputs.record_job(folder / "more.provenance.json", root, [])
"""


@pytest.fixture
def audited(root: Path):
    """A copy beside the results, where the catalog's names lead to the same files."""
    copy = root.with_name("audited")
    shutil.copytree(root, copy)
    yield copy
    shutil.rmtree(copy)


def test_harmonization_records_the_own_images_and_masks_by_the_catalogs_names(audited: Path, settings) -> None:
    layout = Layout(audited)
    split = {row["image_id"]: row["split"] for row in read_csv(layout.split("shared/leak_free", "custom"))}
    rows = read_images(layout.catalog)
    wanted = {row["path"] for row in rows} | {row["mask_path"] for row in rows if split[row["image_id"]] != "test"}
    store(settings, audited)
    script = "import sys; from lesion_core.cli import app; app()"
    job(script, "harmonize", HOME, "custom", "48", "--root", str(audited))
    opened = read_json(layout.pixels(HOME, "custom", 48) / "provenance.json")["opened"]
    assert set(opened) == wanted
    assert all(name.startswith("../") for name in opened)


def test_a_test_mask_of_the_own_dataset_that_training_opened_is_named(audited: Path, settings) -> None:
    layout, plan = Layout(audited), config.plan(settings)
    plan = plan.model_copy(update={"runs": {"otsu": plan.runs["otsu"]}})
    split = {row["image_id"]: row["split"] for row in read_csv(layout.split("shared/leak_free", "custom"))}
    masks = {
        name: next(row["mask_path"] for row in read_images(layout.catalog) if split[row["image_id"]] == name)
        for name in ("train", "test")
    }
    run = config.expand(settings)[plan.runs["otsu"][0]]
    folder = layout.run(run.place, run.run_id)
    run.save(folder)

    def named() -> list[str]:
        return [line for line in masks_closed(audited, plan).problems if run.run_id in line]

    job(OPENS, str(audited), str(folder))
    assert "test mask" not in "".join(named())
    assert not [name for name in read_json(folder / "provenance.json")["opened"] if name.startswith((".", "/"))]
    job(OPENS, str(audited), str(folder), *masks.values())
    assert named() == [f"{masks['test']}: a test mask, opened by {folder.relative_to(audited).as_posix()}"]
    opened = read_json(folder / "provenance.json")["opened"]
    assert [name for name in opened if name.startswith((".", "/"))] == sorted(masks.values())
    assert read_json(folder / "more.provenance.json") == {"opened": sorted(masks.values()), "outputs": {}}


def test_segmenters_and_a_classifier_train_and_are_scored(root: Path, settings) -> None:
    from lesion_core.inference.score_classification import score_classification
    from lesion_core.inference.score_segmentation import score_segmentation
    from lesion_core.models.trained import load_segmenter
    from lesion_core.training import classification, segmentation

    layout = Layout(root)
    test = {row["image_id"] for row in read_csv(layout.split("shared/leak_free", "custom")) if row["split"] == "test"}
    scored = {}
    for run in config.expand(settings).values():
        folder = layout.run(run.task, run.run_id)
        out = folder / "scores.parquet"
        if run.task == "segmentation":
            segmentation.train_run(run, folder, root, "cpu")
            score_segmentation(load_segmenter(folder), run, root, settings.scoring, out, folder / "test_masks.zip")
        else:
            classification.train_run(run, folder, root, "cpu")
            score_classification(folder, run, root, settings.scoring, out)
        scored[run.method] = read_parquet(out).to_pylist()
    assert set(scored) == {"otsu", "unet", "majority"}
    for method, rows in scored.items():
        assert {row["image_id"] for row in rows} == test, method
        assert {row["dataset"] for row in rows} == {"custom"}
    assert all(0 <= row["dice"] <= 1 for method in ("otsu", "unet") for row in scored[method])


def test_the_readmes_lines_are_settings_that_load() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own data")[1].split("\n## ")[0]
    block = re.search(r"```yaml\n(.*?)```", section, re.DOTALL).group(1)
    given = yaml.safe_load(block)
    assert len(block.strip().splitlines()) <= 10
    loaded = config.load("paper", given)
    assert "custom" in loaded.data.datasets
    assert loaded.data.custom.images == given["data"]["custom"]["images"]
    assert "custom" in loaded.scoring.segmentation_on
