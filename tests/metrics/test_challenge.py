"""The challenge's rules: our scores, the answers of isic-challenge-scoring as recorded, and its answers today."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import releases

from lesion_core.acquire.readers import read_dataset
from lesion_core.files import read_csv
from lesion_core.metrics import classification
from lesion_core.metrics.segmentation import confusion, scores
from lesion_core.settings import CLASSES

FOLDER = Path(__file__).parent / "challenge"
RECORDED = json.loads((FOLDER / "answers.json").read_text())
NAMES = {"iou": "jaccard", "thresholded_iou": "threshold_jaccard"}


@pytest.fixture(scope="module")
def masks():
    with np.load(FOLDER / "masks.npz") as found:
        return found["truth"], found["prediction"]


def test_the_scorer_still_answers_as_recorded(masks, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
        from isic_challenge_scoring.load_csv import parse_truth_csv
        from isic_challenge_scoring.segmentation import SegmentationScore

        for folder, own in zip(("truth", "prediction"), masks, strict=True):
            for number, mask in enumerate(own):
                path = tmp_path / folder / f"ISIC_{number:07d}_segmentation.png"
                releases.save(path, mask.astype(np.uint8) * 255)
        lesions = SegmentationScore.from_dir(tmp_path / "truth", tmp_path / "prediction")
        with open(FOLDER / "truth.csv") as handle:
            truth, weights = parse_truth_csv(handle)
        given = pd.read_csv(FOLDER / "predictions.csv", index_col="image")[truth.columns]
        classes = ClassificationScore(truth, given, weights, ClassificationMetric.BALANCED_ACCURACY)
    assert lesions.macro_average.to_dict() == pytest.approx(RECORDED["segmentation"], abs=1e-12)
    found = {"balanced_accuracy": classes.overall, "auc": classes.macro_average["auc"]}
    assert found == pytest.approx(RECORDED["classification"], abs=1e-12)


def test_masks_score_as_recorded(masks):
    ours = [scores(confusion(mask, truth)) for truth, mask in zip(*masks, strict=True)]
    means = {NAMES.get(name, name): np.mean([one[name] for one in ours]) for name in ours[0]}
    assert means == pytest.approx(RECORDED["segmentation"], abs=1e-12)


def test_classes_of_an_official_test_part_score_as_recorded(tmp_path):
    for image in read_csv(FOLDER / "truth.csv"):
        releases.save(tmp_path / "ISIC2018_Task3_Test_Input" / f"{image['image']}.png", releases.synthetic_image(1))
    table = tmp_path / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    releases.write_text(table, (FOLDER / "truth.csv").read_text().rstrip())
    given = {row["image"]: row for row in read_csv(FOLDER / "predictions.csv")}
    rows = [row for row in read_dataset("isic2018_task3_test", tmp_path) if row.label is not None]
    truth = np.array([CLASSES.index(row.label) for row in rows])
    shares = np.array([[float(given[row.image_id][name.upper()]) for name in CLASSES] for row in rows])
    ours = classification.scores(truth, shares)
    assert {name: ours[name] for name in RECORDED["classification"]} == pytest.approx(
        RECORDED["classification"], abs=1e-12
    )
    assert len(rows) == len(given) - 1  # ISIC_0035068 has weight 0
