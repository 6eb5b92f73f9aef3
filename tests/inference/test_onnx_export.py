"""Exported segmenters and classifiers: torch's numbers, predictions without torch, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from classification_runs import SEGMENTER, dual_run, make_pseudo_masks, make_root, with_metadata
from classification_runs import make_run as classifier_run
from segmentation_runs import SETTINGS, SIZE, folder, restore_torch, root  # noqa: F401

from lesion_core.errors import RunError, SettingsError, WeightsError
from lesion_core.files import read_csv, write_json
from lesion_core.inference import onnx_export, onnx_file
from lesion_core.inference.classify import RunClassifier
from lesion_core.inference.expected_dice import expected_dice_of
from lesion_core.inference.exported import KEY, ExportedClassifier, ExportedSegmenter
from lesion_core.inference.one_image import image_classifier
from lesion_core.inference.onnx_classifier import export_classifier
from lesion_core.inference.onnx_export import export_segmenter
from lesion_core.inference.predict import predict_folder
from lesion_core.inference.score_classification import score_classification
from lesion_core.models.trained import load_segmenter
from lesion_core.settings import CLASSES
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.training.classification import train_run as train_classifier
from lesion_core.training.segmentation import train_run

WITHOUT_TORCH = """
import sys
from lesion_core.cli import main
try:
    main()
finally:
    heavy = {"torch", "torchvision", "timm", "safetensors", "monai"} & {name.split(".")[0] for name in sys.modules}
    print("imported:", sorted(heavy))
"""


@pytest.fixture(scope="module")
def run_dir(root):  # noqa: F811
    run = Run.model_validate(SETTINGS)
    train_run(run, folder(root, run), root, "cpu")
    line = {"n": 40, "confidence": [0.5, 1.0], "dice": [0.2, 0.9]}
    write_json(folder(root, run) / "scores_calibration.json", {"map": line})
    return folder(root, run)


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "unet.onnx"
    assert 0 <= export_segmenter(run_dir, path)["difference"] <= 1e-4
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, shape in (("a", (90, 120)), ("b", (70, 64))):
        y, x = np.mgrid[: shape[0], : shape[1]]
        lesion = (x - shape[1] / 2) ** 2 + (y - shape[0] / 2) ** 2 < 400
        pixels = np.where(lesion[..., None], 80, 190) + rng.normal(0, 6, (*shape, 3))
        cv2.imwrite(str(place / f"{name}.png"), pixels.clip(0, 255).astype(np.uint8))
    return place


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory):
    """A scored dual network that looks at images, masks and metadata."""
    layout = with_metadata(make_root(tmp_path_factory.mktemp("classified") / "smoke"))
    make_pseudo_masks(layout, [f"im{number:03d}" for number in range(56)])
    run = dual_run(input="blend", masks="sam_adapter", segmenter=SEGMENTER)
    place = layout.run("classification", run.run_id)
    train_classifier(run, place, layout.root, "cpu")
    scoring = config.load("smoke").scoring.model_copy(update={"classification_on": ["ham10000"]})
    score_classification(place, run, layout.root, scoring, place / "scores.parquet")
    return place


@pytest.fixture(scope="module")
def exported_classifier(classifier_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "dual.onnx"
    assert 0 <= export_classifier(classifier_dir, path)["difference"] <= 1e-4
    return path


def test_predictions_are_those_of_torch_and_import_no_torch(
    run_dir, exported, classifier_dir, exported_classifier, images, tmp_path
):
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("image_id,age,sex,site\na,72,,face\n")
    classify = image_classifier(RunClassifier(classifier_dir), metadata=metadata, image_ids=["a", "b"])
    expected = expected_dice_of(run_dir)
    predict_folder(load_segmenter(run_dir), images, tmp_path / "torch", classify=classify, expected=expected)
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", "--onnx", exported, "--images", images]
    command += ["--classifier-onnx", exported_classifier, "--metadata", metadata, "--out", tmp_path / "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
    assert f"the classifier learnt on masks of {SEGMENTER}; here it sees those of unet" in done.stderr
    theirs, ours = (read_csv(tmp_path / kind / "predictions.csv") for kind in ("torch", "onnx"))
    for one, other in zip(theirs, ours, strict=True):
        assert one.keys() == other.keys()
        assert [one[name] for name in ("image_id", "predicted")] == [other[name] for name in ("image_id", "predicted")]
        for name in (
            "confidence",
            "expected_dice",
            "expected_dice_n",
            "temperature",
            *(f"{kind}_{label}" for kind in ("p", "calibrated") for label in CLASSES),
        ):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-4)
        masks = [cv2.imread(str(tmp_path / kind / one["mask"]), 0) for kind in ("torch", "onnx")]
        assert np.mean(masks[0] != masks[1]) < 1e-3
    assert exported.with_name("unet.onnx.md").read_text().startswith("# Model card")


def test_the_graph_of_a_classifier_holds_its_temperature(classifier_dir, exported_classifier):
    found = ExportedClassifier(exported_classifier)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, found.size, found.size, 3), dtype=np.uint8)
    masks, codes = np.zeros((2, 16, 16), np.uint8), np.array([[-1, 0, 0], [50, 0, 1]], np.float32)
    masks[:, 4:12, 4:12] = 200
    raw = found.probabilities(images, masks, codes)
    assert found.temperature == RunClassifier(classifier_dir).temperature != 1.0
    powers = raw.astype(float) ** (1 / found.temperature)
    calibrated = found.probabilities(images, masks, codes, output="calibrated")
    np.testing.assert_allclose(calibrated, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    assert not np.allclose(raw[0], found.probabilities(images, 0 * masks, codes)[0], atol=1e-6)
    assert not np.allclose(raw[1], found.probabilities(images, masks, 0 * codes)[1], atol=1e-6)
    card = exported_classifier.with_name("dual.onnx.md").read_text()
    assert "site (0 unknown, 1 back, 2 face)" in card
    assert ", ".join(CLASSES) in card


def test_a_classifier_in_eight_bits_must_answer_alike(classifier_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "INT8_TOLERANCE", 1.0)
    found = export_classifier(classifier_dir, tmp_path / "small.onnx", int8=True)
    assert {"accuracy", "balanced_accuracy", "accuracy_int8", "balanced_accuracy_int8"} <= set(found)
    monkeypatch.setattr(onnx_file, "INT8_TOLERANCE", -1.0)
    with pytest.raises(RunError, match="balanced_accuracy is"):
        export_classifier(classifier_dir, tmp_path / "no.onnx", int8=True)
    assert not (tmp_path / "no.onnx").exists()


def test_a_baseline_and_a_file_of_the_other_kind_are_refused(exported, exported_classifier, tmp_path):
    layout = make_root(tmp_path / "smoke")
    run = classifier_run(kind="majority", backbone=None)
    place = layout.run("classification", run.run_id)
    train_classifier(run, place, layout.root, "cpu")
    with pytest.raises(SettingsError, match="only networks are exported"):
        export_classifier(place, tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="--classifier-onnx"):
        ExportedSegmenter(exported_classifier)
    with pytest.raises(WeightsError, match="give it with --onnx"):
        ExportedClassifier(exported)


def test_a_graph_of_other_numbers_is_not_written(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(RunError, match="differs from torch"):
        export_segmenter(run_dir, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_are_written_only_where_the_dice_stays(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "INT8_TOLERANCE", 1.0)
    found = export_segmenter(run_dir, tmp_path / "small.onnx", int8=True)
    assert {"dice", "dice_int8"} <= set(found)
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    monkeypatch.setattr(onnx_file, "INT8_TOLERANCE", -1.0)
    with pytest.raises(RunError, match="without --int8"):
        export_segmenter(run_dir, tmp_path / "no.onnx", int8=True)
    assert not (tmp_path / "no.onnx").exists()


def test_a_run_that_learnt_with_boxes_and_a_strange_file_are_refused(run_dir, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export.LoadedSegmenter, "prompt", "automatic")
    with pytest.raises(SettingsError, match="learnt with boxes"):
        export_segmenter(run_dir, tmp_path / "x.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"x")
    model = onnx.load(exported)
    onnx.helper.set_model_props(model, {KEY: "{}"})
    onnx.save(model, tmp_path / "other.onnx")
    for name in ("bad.onnx", "other.onnx"):
        with pytest.raises(WeightsError, match="lesion export"):
            ExportedSegmenter(tmp_path / name)
