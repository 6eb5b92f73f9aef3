"""An exported segmenter: torch's numbers, predictions without torch, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from segmentation_runs import SETTINGS, SIZE, folder, restore_torch, root  # noqa: F401

from lesion_core.errors import RunError, SettingsError, WeightsError
from lesion_core.files import read_csv
from lesion_core.inference import onnx_export
from lesion_core.inference.exported import KEY, ExportedSegmenter
from lesion_core.inference.onnx_export import export_segmenter
from lesion_core.inference.predict import predict_folder
from lesion_core.models.trained import load_segmenter
from lesion_core.settings.run import Run
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


def test_predictions_are_those_of_torch_and_import_no_torch(run_dir, exported, images, tmp_path):
    predict_folder(load_segmenter(run_dir), images, tmp_path / "torch")
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", "--onnx", str(exported), "--images", str(images)]
    done = subprocess.run([*command, "--out", str(tmp_path / "onnx")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout
    theirs, ours = (read_csv(tmp_path / kind / "predictions.csv") for kind in ("torch", "onnx"))
    for one, other in zip(theirs, ours, strict=True):
        assert one["image_id"] == other["image_id"]
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-4)
        masks = [cv2.imread(str(tmp_path / kind / one["mask"]), 0) for kind in ("torch", "onnx")]
        assert np.mean(masks[0] != masks[1]) < 1e-3
    assert exported.with_name("unet.onnx.md").read_text().startswith("# Model card")


def test_a_graph_of_other_numbers_is_not_written(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(RunError, match="differs from torch"):
        export_segmenter(run_dir, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_are_written_only_where_the_dice_stays(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "INT8_TOLERANCE", 1.0)
    found = export_segmenter(run_dir, tmp_path / "small.onnx", int8=True)
    assert {"dice", "dice_int8"} <= set(found)
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    monkeypatch.setattr(onnx_export, "INT8_TOLERANCE", -1.0)
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
