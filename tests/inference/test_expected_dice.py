"""Confidence against Dice: what is told of their relation, the line between them, and where it says nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

from lesion_core.acquire.images import write_image
from lesion_core.acquire.synthetic import draw_batch
from lesion_core.errors import FormatError
from lesion_core.files import read_csv, read_json, write_csv
from lesion_core.inference.expected_dice import (
    ExpectedDice,
    calibrate_confidence,
    confidence,
    expected_dice_of,
    relation,
)
from lesion_core.inference.predict import predict_folder
from lesion_core.inference.refine import refine_mask
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.trained import load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.settings import load as config

SIZE = 48


def test_a_confidence_that_tells_is_found_and_one_that_does_not_gains_nothing():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 1, 200)
    told = relation(confidences, (confidences**2 + rng.normal(0, 0.03, 200)).clip(0, 1))
    line = ExpectedDice.read(told["map"])
    assert told["spearman"] > 0.95
    assert told["error"] < 0.04 < told["error_of_mean"]
    assert [line.of(at) for at in (0.6, 0.9)] == pytest.approx([0.36, 0.81], abs=0.04)
    assert line.of(0.1) == min(line.dice)
    assert line.of(1.0) == max(line.dice) <= 1
    assert [part["n"] for part in told["bins"]] == [40] * 5
    assert np.mean([part["mean_dice"] for part in told["bins"]]) == pytest.approx(told["mean_dice"])
    silent = relation(confidences, rng.permutation(confidences))
    assert abs(silent["spearman"]) < 0.2
    assert silent["error"] > 0.97 * silent["error_of_mean"]
    assert relation(np.full(40, 0.5), confidences[:40])["spearman"] is None
    assert relation(confidences[:29], confidences[:29]) == {"map": None}


@pytest.fixture
def run_dir(tmp_path):
    """Otsu's threshold at the size of these images, and what it was trained beside."""
    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == "otsu")
    spec = run.spec.model_copy(update={"model": run.spec.model.model_copy(update={"image_size": SIZE})})
    harmonization = run.harmonization.model_copy(update={"histogram": "none", "colour": "none", "hair_removal": False})
    run = run.model_copy(update={"spec": spec, "harmonization": harmonization})
    place = Layout(tmp_path).run("segmentation", run.run_id)
    run.save(place)
    save_file({}, place / "weights.safetensors")
    return place


def dataset(run_dir, n):
    """Synthetic images of the run's first dataset, all but ten for validation; the others' folders have none."""
    run, layout = load_segmenter(run_dir).run, Layout.of_run(run_dir)
    for number, name in enumerate(run.spec.train_on):
        images, masks, _ = draw_batch(1, range(n if number == 0 else 1), SIZE)
        folder = layout.pixels(run.pixels, name, SIZE)
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", images)
        np.save(folder / "masks.npy", masks * 255)
        same = {"width": 9, "height": 9}
        parts = ["train"] * min(10, len(images)) + ["val"] * (n - 10)
        rows = [
            {"row": at, "mask_row": at, "image_id": f"i{at}", "split": parts[at], **same} for at in range(len(images))
        ]
        write_csv(folder / "index.csv", INDEX_COLUMNS, rows)
    images, masks, _ = draw_batch(1, range(n), SIZE)
    return images, masks


class Strange:
    """Every image is."""

    def of(self, pixels):
        return 2.0


def test_the_line_comes_from_validation_images_alone_and_stands_in_the_table(run_dir, tmp_path):
    images, masks = dataset(run_dir, 60)
    segmenter = load_segmenter(run_dir)
    calibrate_confidence(segmenter, run_dir)
    told = read_json(run_dir / "scores_calibration.json")
    assert told["n"] == told["map"]["n"] == 50
    maps = segmenter.maps(images[10:], [(9, 9)] * 50)
    found = [refine_mask(one, segmenter.run.extraction) for one in maps]
    confidences = [confidence(one, mask) for one, mask in zip(maps, found, strict=True)]
    dices = [dice(confusion(mask, truth > 0)) for mask, truth in zip(found, masks[10:], strict=True)]
    assert told["mean_confidence"] == pytest.approx(np.mean(confidences))
    assert told["mean_dice"] == pytest.approx(np.mean(dices))
    line = expected_dice_of(run_dir)
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", images[20])
    predict_folder(segmenter, tmp_path / "in", tmp_path / "out", expected=line)
    [row] = read_csv(tmp_path / "out" / "predictions.csv")
    assert float(row["expected_dice"]) == pytest.approx(line.of(float(row["confidence"])), abs=1e-4)
    assert row["expected_dice_n"] == "50"
    predict_folder(segmenter, tmp_path / "in", tmp_path / "out", expected=line, unlikeness=Strange())
    [row] = read_csv(tmp_path / "out" / "predictions.csv")
    assert row["expected_dice"] == row["expected_dice_n"] == ""


def test_too_few_images_and_a_run_that_needs_clicks_get_no_line(run_dir, capsys):
    dataset(run_dir, 39)
    segmenter = load_segmenter(run_dir)
    assert expected_dice_of(run_dir) is None
    calibrate_confidence(segmenter, run_dir)
    assert read_json(run_dir / "scores_calibration.json")["n"] == 29
    assert expected_dice_of(run_dir) is None
    assert capsys.readouterr().err.count("no column expected_dice") == 2
    model = segmenter.settings.model_copy(update={"prompt": "oracle_click"})
    spec = segmenter.run.spec.model_copy(update={"model": model})
    calibrate_confidence(replace(segmenter, run=segmenter.run.model_copy(update={"spec": spec})), run_dir)
    assert read_json(run_dir / "scores_calibration.json")["n"] == 0
    (run_dir / "scores_calibration.json").write_text(json.dumps({"map": {"n": 3}}))
    with pytest.raises(FormatError, match="confidence"):
        expected_dice_of(run_dir)
