"""Each training of a rehearsal is followed by a prediction of one image, whose seconds its provenance tells."""

# ruff: noqa: F811 - fixtures come from a helper module

from __future__ import annotations

from types import SimpleNamespace

import classification_runs
import cv2
import numpy as np
import pytest
from segmentation_runs import SAM, make_run, restore_torch, root  # noqa: F401

from lesion_core.catalog.table import COLUMNS, write_table
from lesion_core.cli import runs as commands
from lesion_core.errors import WeightsError
from lesion_core.files import read_json
from lesion_core.paths import Layout
from lesion_core.record import observe


def rehearse(monkeypatch, root, run):
    """`lesion train` of a run in a rehearsal; what its provenance tells."""
    layout = Layout(root)
    image = np.full((90, 120, 3), 200, np.uint8)
    cv2.circle(image, (60, 45), 20, (60, 60, 90), -1)
    cv2.imwrite(str(root / "ISIC_0000001.png"), image)
    row = dict.fromkeys(name for name, _ in COLUMNS)
    write_table(layout.catalog, COLUMNS, [row | {"dataset": "ph2", "image_id": "x", "path": "ISIC_0000001.png"}])
    folder = layout.run(run.task, run.run_id)
    given = SimpleNamespace(rehearsal=object(), compute=SimpleNamespace(device="cpu"))
    monkeypatch.setattr(commands, "runs_and_sections", lambda *_: ([run], [folder], given))
    monkeypatch.setattr(observe, "limit_memory", lambda: None)  # it would hold for the tests that follow
    commands.train([], root)
    return read_json(folder / "provenance.json")["extra"]


def test_a_segmenter_predicts_unless_it_needs_clicks(root, monkeypatch):
    assert rehearse(monkeypatch, root, make_run(model={"kind": "otsu"}))["predict_seconds"] > 0
    assert "predict_seconds" not in rehearse(monkeypatch, root, make_run(model={**SAM, "prompt": "oracle_click_1"}))


def test_a_classifier_predicts_without_a_segmenter(tmp_path, monkeypatch):
    layout = classification_runs.make_root(tmp_path)
    for masks, model in ((None, {"kind": "majority"}), ("true", {"kind": "color_histogram", "input": "masked"})):
        run = classification_runs.make_run(masks=masks, backbone=None, **model)
        assert rehearse(monkeypatch, layout.root, run)["predict_seconds"] > 0


def test_what_cannot_be_loaded_fails_the_rehearsal(root, monkeypatch):
    run = make_run(model={"kind": "otsu"})

    def broken(*_, **__):
        raise WeightsError("Tensors do not fit")

    monkeypatch.setattr("lesion_core.inference.rehearse.load_segmenter", broken)
    with pytest.raises(WeightsError):
        rehearse(monkeypatch, root, run)
