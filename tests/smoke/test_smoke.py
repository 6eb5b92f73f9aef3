"""The whole chain on synthetic images, and what must hold after it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import snakemake

from lesion_core.files import read_csv, read_json, read_parquet, sha256_file, write_csv
from lesion_core.models.trained import load_classifier
from lesion_core.paths import Layout
from lesion_core.report.extra_tables import EXTRA_TABLES
from lesion_core.report.table_cells import write_cells
from lesion_core.scores import COLUMNS
from lesion_core.settings import CLASSES
from lesion_core.settings import load as config
from lesion_core.settings.run import Run

pytestmark = pytest.mark.smoke
RESULTS = Path("results") / "smoke"


def lesion(folder: Path, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lesion"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)


def planned(folder: Path, *settings: str) -> str:
    done = snakemake(folder, "--dry-run", "--config", "profile=smoke", *settings)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_every_rule_ran_and_every_table_stands(smoke):
    settings = config.load("smoke")
    for name in (*settings.tables, *EXTRA_TABLES, "sam_vit_table_15", "sam_vit_table_16"):
        for suffix in ("csv", "md", "tex"):
            assert (smoke / RESULTS / "tables" / f"{name}.{suffix}").stat().st_size > 0
    for run in config.expand(settings).values():
        folder = smoke / RESULTS / "runs" / run.place / run.run_id
        trained = ("weights.safetensors", "history.csv", "log.txt") if run.task != "derived" else ("scores.parquet",)
        for name in ("settings.yaml", "provenance.json", *trained):
            assert (folder / name).is_file(), folder / name
        assert not (folder / "checkpoint.pt").exists()
    for name in ("subgroups", "robustness"):
        assert len(read_csv(smoke / RESULTS / "statistics" / f"{name}.csv")) > 30
    assert list((smoke / RESULTS / "pseudo_masks").glob("*/ham10000/audit_summary.csv"))
    for kind, columns in COLUMNS.items():
        table = read_parquet(smoke / RESULTS / "scores" / f"{kind}.parquet")
        assert table.column_names == list(columns)
        assert table.num_rows > 0
    assert read_json(Layout(smoke / RESULTS).certificate("shared/leak_free"))["verdict"] == "no leak"
    assert (smoke / RESULTS / "report.html").stat().st_size > 10_000


def test_every_link_of_sheets_and_cards_leads_to_a_file(smoke):
    folder = smoke / RESULTS
    written = [*(folder / "checklists").glob("*.md"), *(folder / "cards").rglob("*.md")]
    assert len(written) > 10
    for path in written:
        for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), (path, link)


def test_cells_can_be_traced_and_a_changed_one_is_found(smoke, tmp_path):
    root = tmp_path / "smoke"
    shutil.copytree(smoke / RESULTS, root, ignore=shutil.ignore_patterns("downloads", "made", "report.html"))
    for cell in (
        ("sam_vit_table_05", "U-Net", "dice"),
        ("sam_vit_table_08", "SAM-ViT (proposed)", "auc"),
        ("dual_scoring", "U-Net, PH2", "iou native pooled"),
        ("sam_vit_table_15", "unet, sam_vit_table_06, ph2, dice, image", "p_holm"),
    ):
        done = lesion(smoke, "trace", *cell, "--root", root)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the cell is what its score rows give" in done.stdout
    path = root / "tables" / "cells.parquet"
    cells = read_parquet(path).to_pylist()
    for found in cells:
        if (found["table"], found["row"], found["column"]) == ("sam_vit_table_05", "U-Net", "dice"):
            found["value"] += 1e-9
    write_cells(cells, path)
    assert lesion(smoke, "trace", "sam_vit_table_05", "U-Net", "dice", "--root", root).returncode == 1


def test_explanations_stand_beside_the_centre_prior(smoke):
    settings = config.load("smoke")
    plan = config.plan(settings)
    for method in settings.explain.methods:
        rows = read_csv(smoke / RESULTS / "explain" / f"{plan.runs[method][0]}.csv")
        assert {"grad_cam", "rollout", "centre_prior"} == {row["explainer"] for row in rows}
        counts = Counter((row["dataset"], row["explainer"]) for row in rows)
        assert all(0 < count <= settings.explain.images for count in counts.values())
        assert all(0 <= float(row["energy_inside"]) <= 1 for row in rows)


def test_scores_are_of_test_images_only(smoke):
    layout = Layout(smoke / RESULTS)
    for kind in COLUMNS:
        rows = read_parquet(smoke / RESULTS / "scores" / f"{kind}.parquet").to_pylist()
        assert {row["split"] for row in rows} == {"test"}
        for run, dataset in {(row["run_id"], row["dataset"]) for row in rows}:
            [settings] = layout.run_files("settings.yaml", run)
            home = Run.load(settings.parent).split_tables
            split = {r["image_id"]: r["split"] for r in read_csv(layout.split(home, dataset))}
            scored = [row["image_id"] for row in rows if (row["run_id"], row["dataset"]) == (run, dataset)]
            assert {split[image_id] for image_id in scored} == {"test"}


def test_oracle_prompts_are_named_as_such(smoke):
    rows = read_parquet(smoke / RESULTS / "scores" / "segmentation.parquet").to_pylist()
    settings = config.load("smoke")
    runs = config.plan(settings).runs  # methods of equal settings share a run, which has the name of one of them
    prompts = {name: {row["prompt"] for row in rows if row["run_id"] in runs[name]} for name in runs}
    scoring = settings.scoring
    assert prompts["sam_adapter"] == set(scoring.prompts)
    assert prompts["sam_frozen"] == prompts["sam_zero_shot"] == {*scoring.prompts, *scoring.zero_shot_prompts}
    assert prompts["peft_medsam"] == set(scoring.prompts)
    assert prompts["gl_med_sa_3"] == {*scoring.prompts, "oracle_click_3"}
    assert prompts["unet"] == prompts["otsu"] == {"none"}


def test_second_call_has_nothing_to_do(smoke):
    done = snakemake(smoke, "--resources", "gpu=1", "--config", "profile=smoke")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("override", "methods"),
    [
        ("methods={unet: {training: {epochs: 3}}}", {"unet"}),
        (
            "methods={sam_adapter: {model: {rank: 8}}}",
            {
                "sam_adapter",
                "vit_cross_attention",
                "vit_cross_attention_shuffled_masks",
                "vit_cross_attention_tta",
                "vit_cross_attention_ensemble",
                "vit_none",  # sees the crop that the masks tell
                "joint_proposed",
            },
        ),
    ],
)
def test_a_changed_setting_re_runs_what_it_touches(smoke, override, methods):
    text = planned(smoke, override)
    before = config.expand(config.load("smoke"))
    after = config.expand(config.load("smoke", _parse(override)))
    touched = {key: run for key, run in after.items() if key not in before}
    assert {run.method for run in touched.values()} == methods
    outputs = re.findall(r"^rule train_\w+:\n(?:    .*\n)*?    output: (.*)$", text, re.MULTILINE)
    trained = {Path(name).parent.name for line in outputs for name in line.split(", ")}
    assert trained == {key for key, run in touched.items() if run.task != "derived"}
    assert not re.search(r"^rule (download|catalog|splits|harmonize)\b", text, re.MULTILINE)


def _parse(override: str) -> dict:
    import yaml

    key, value = override.split("=", 1)
    return {key: yaml.safe_load(value)}


def test_a_second_run_at_the_same_time_is_refused(smoke):
    import fcntl

    with open(smoke / RESULTS / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = snakemake(smoke, "--forcerun", "tables", "--config", "profile=smoke")
    assert done.returncode != 0
    assert "Another run works in" in done.stdout + done.stderr


def copied_run(smoke: Path, folder: Path, method: str) -> tuple[Path, str]:
    """A results folder of its own, in which a run's outputs are gone: (root, the run's folder under ``runs/``)."""
    root = folder / "smoke"
    shutil.copytree(smoke / RESULTS, root, ignore=shutil.ignore_patterns("downloads", "made", "report.html"))
    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == method)
    shutil.rmtree(root / "runs" / run.place / run.run_id)
    return root, f"{run.place}/{run.run_id}"


@pytest.mark.parametrize("method", ["segmae", "vit_cross_attention", "joint_proposed"])  # segmae has two stages
def test_killed_training_resumes_to_the_same_bytes(smoke, tmp_path, method):
    root, run = copied_run(smoke, tmp_path, method)
    command = [str(Path(sys.executable).parent / "lesion"), "train", Path(run).name, "--root", str(root)]
    checkpoint = root / "runs" / run / "checkpoint.pt"
    with subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.DEVNULL) as job:
        end = time.monotonic() + 300
        while not checkpoint.exists() and time.monotonic() < end and job.poll() is None:
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
    assert checkpoint.exists(), "the job ended before it was killed: nothing was tested"
    assert not (root / "runs" / run / "weights.safetensors").exists()
    again = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "resum" in again.stderr.lower()
    extra = read_json(root / "runs" / run / "provenance.json")["extra"]
    assert extra["resumed"] >= 1
    assert extra["training_seconds"] > 0
    for name in ("weights.safetensors", "history.csv", "settings.yaml"):
        assert sha256_file(root / "runs" / run / name) == sha256_file(smoke / RESULTS / "runs" / run / name), name


@pytest.mark.parametrize("method", ["sam_adapter", "segmae"])
def test_training_does_without_test_masks(smoke, tmp_path, method):
    """Every test mask is deleted; training must neither notice nor come to another result."""
    root, run = copied_run(smoke, tmp_path, method)
    closed = 0
    for row in read_parquet(root / "catalog" / "images.parquet").to_pylist():
        table = Layout(root).split("shared/leak_free", row["dataset"])
        split = {r["image_id"]: r["split"] for r in read_csv(table)}
        if row["mask_path"] and split[row["image_id"]] == "test":
            (root / row["mask_path"]).unlink()
            closed += 1
    assert closed > 5
    log = tmp_path / "opened.txt"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        f"_log = open({str(log)!r}, 'a')\n"
        "def _hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[0], str):\n"
        "        _log.write(arguments[0] + '\\n'); _log.flush()\n"
        "sys.addaudithook(_hook)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = lesion(tmp_path, "train", Path(run).name, "--root", root, "--device", "cpu", env=environment)
    assert done.returncode == 0, done.stderr
    name = "weights.safetensors"
    assert sha256_file(root / "runs" / run / name) == sha256_file(smoke / RESULTS / "runs" / run / name)
    opened = log.read_text()
    assert "masks.npy" in opened
    assert "_segmentation.png" not in opened
    assert "_lesion.bmp" not in opened


def test_predict_masks_have_the_images_size(smoke, tmp_path):
    import cv2
    import numpy as np

    from lesion_core.acquire.synthetic import draw_batch

    originals = tmp_path / "originals"
    originals.mkdir()
    images, _, _ = draw_batch(5, range(3), 256)
    for number, (height, width) in enumerate(((100, 333), (450, 600), (64, 64))):
        resized = cv2.resize(images[number], (width, height))
        cv2.imwrite(str(originals / f"photo {number}.jpg"), resized[:, :, ::-1])
    cv2.imwrite(str(originals / "grey.png"), np.full((40, 50), 128, np.uint8))
    runs = smoke / RESULTS / "runs"
    segmenter = next((runs / "segmentation").glob("sam_adapter-*"))
    classifier = next((runs / "classification").glob("vit_cross_attention-*"))
    arguments = ["--images", originals, "--out", tmp_path / "out", "--device", "cpu"]
    done = lesion(tmp_path, "predict", "--segmenter", segmenter, "--classifier", classifier, *arguments)
    assert done.returncode == 0, done.stderr
    rows = {row["image"]: row for row in read_csv(tmp_path / "out" / "predictions.csv")}
    assert sorted(rows) == ["grey.png", "photo 0.jpg", "photo 1.jpg", "photo 2.jpg"]
    for name, row in rows.items():
        mask = cv2.imread(str(tmp_path / "out" / row["mask"]), cv2.IMREAD_UNCHANGED)
        original = cv2.imread(str(originals / name))
        assert mask.shape == original.shape[:2] == (int(row["height"]), int(row["width"]))
        assert set(np.unique(mask)) <= {0, 255}
        assert abs(sum(float(row[key]) for key in row if key.startswith("p_")) - 1) < 1e-4


@pytest.mark.parametrize("method", ["vit_cross_attention", "dual_network", "joint_proposed"])
def test_predict_gives_the_scored_probabilities(method, smoke, tmp_path):
    """The same images by ``lesion predict`` and in the score store: probabilities, temperature, answer."""
    root, dataset = smoke / RESULTS, "ham10000"
    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == method)
    classifier = root / "runs" / run.place / run.run_id
    segmenter = classifier if run.task == "joint" else next((root / "runs").glob(f"*/{run.segmenter_run}"))
    scored = {
        row["image_id"]: row
        for row in read_parquet(root / "scores" / "classification.parquet").to_pylist()
        if row["run_id"] == run.run_id and row["dataset"] == dataset
    }
    catalog = read_parquet(root / "catalog" / "images.parquet").to_pylist()
    entries = [row for row in catalog if row["dataset"] == dataset and row["image_id"] in scored]
    (tmp_path / "in").mkdir()
    for entry in entries:
        shutil.copy(root / entry["path"], tmp_path / "in")
    learnt = load_classifier(classifier).vocabulary
    lines = [{name: row[name] for name in ("image_id", "age", "sex", "site")} for row in entries]
    for line in lines:  # scoring takes a site that no training image has for unknown; predict wants that said
        line["site"] = line["site"] if learnt is None or line["site"] in learnt.sites else ""
    write_csv(tmp_path / "metadata.csv", ("image_id", "age", "sex", "site"), lines)
    arguments = ["--images", tmp_path / "in", "--out", tmp_path / "out", "--metadata", tmp_path / "metadata.csv"]
    done = lesion(tmp_path, "predict", "--segmenter", segmenter, "--classifier", classifier, *arguments)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert len(rows) == len(scored) > 3
    for row in rows:
        stored = scored[Path(row["image"]).stem]
        raw = [float(row[f"p_{name}"]) for name in CLASSES]
        assert raw == pytest.approx([stored[f"p_{name}"] for name in CLASSES], abs=1e-4)
        assert row["predicted"] == stored["predicted"]
        assert float(row["temperature"]) == pytest.approx(stored["temperature"], abs=1e-5)
        powers = [stored[f"p_{name}"] ** (1 / stored["temperature"]) for name in CLASSES]
        calibrated = [float(row[f"calibrated_{name}"]) for name in CLASSES]
        assert calibrated == pytest.approx([power / sum(powers) for power in powers], abs=1e-3)


def test_predict_refuses_a_broken_image(smoke, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    segmenter = next((smoke / RESULTS / "runs" / "segmentation").glob("otsu-*"))
    done = lesion(tmp_path, "predict", "--segmenter", segmenter, "--images", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "broken.jpg" in done.stderr
    assert "remedy" in done.stderr
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_tables_are_computed_from_the_scores(smoke):
    import numpy as np

    rows = read_parquet(smoke / RESULTS / "scores" / "segmentation.parquet").to_pylist()
    cells = read_parquet(smoke / RESULTS / "tables" / "cells.parquet").to_pylist()
    checked = 0
    for cell in cells:
        if cell["table"] != "sam_vit_table_05" or cell["value"] is None:
            continue
        per_run = [
            np.mean(
                [
                    row[cell["column"]]
                    for row in rows
                    if (row["run_id"], row["dataset"], row["prompt"], row["resolution"])
                    == (run, "isic2018_task1", "none", "native")
                ]
            )
            for run in cell["run_ids"].split()
        ]
        assert cell["value"] == pytest.approx(100 * np.mean(per_run), abs=1e-9)
        assert cell["n_seeds"] == len(per_run)
        checked += 1
    assert checked >= 20


def test_broken_archive_is_named_and_nothing_is_left(smoke, tmp_path):
    root = tmp_path / RESULTS
    shutil.copytree(smoke / RESULTS / "downloads" / "ham10000", root / "downloads" / "ham10000")
    archive = root / "downloads" / "ham10000" / "HAM10000_images_part_1.zip"
    content = archive.read_bytes()
    archive.unlink()
    archive.write_bytes(content[: len(content) // 2])
    done = lesion(tmp_path, "unpack", "ham10000", "--root", root)
    assert done.returncode == 2
    assert "HAM10000_images_part_1.zip" in done.stderr
    assert "remedy" in done.stderr
    assert not (root / "data" / "ham10000").exists()
