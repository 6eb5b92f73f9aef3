"""Corruptions grow with their strength and are always the same; a classifier is measured from the file on."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pandas as pd
import pyarrow
import pytest
from classification_runs import make_root, make_run
from material import HOME

from lesion_core.acquire.synthetic import draw_batch
from lesion_core.errors import SettingsError
from lesion_core.files import read_csv, write_parquet
from lesion_core.inference.robustness import measure_robustness
from lesion_core.inference.robustness_table import METRICS, gather_robustness
from lesion_core.inference.score_classification import score_classification
from lesion_core.pixels.colour import grey_world
from lesion_core.pixels.corruptions import CORRUPTIONS
from lesion_core.pixels.datasets import Harmonized
from lesion_core.report.measures import classification_metrics
from lesion_core.scores import read_scores
from lesion_core.seeding import generator
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.training.classification import train_run

SETTINGS = config.load("paper").robustness


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
def test_five_strengths_that_grow(kind):
    image = draw_batch(3, range(1), 512)[0][0]
    before = image.copy()
    amounts = SETTINGS.corruptions[kind]
    assert len(amounts) == 5
    results = [CORRUPTIONS[kind](image, amount, generator("key", kind)) for amount in amounts]
    distances = [np.abs(result.astype(float) - image).mean() for result in results]
    assert all(0 < low < high for low, high in itertools.pairwise(distances))
    assert all(result.dtype == np.uint8 and result.shape == image.shape for result in results)
    assert np.array_equal(image, before)
    assert np.array_equal(results[2], CORRUPTIONS[kind](image, amounts[2], generator("key", kind)))


def test_a_stronger_one_is_the_same_one_further_on():
    image = np.full((64, 64, 3), 200, np.uint8)
    few, many = (CORRUPTIONS["hair"](image, count, generator(1)) for count in (2, 6))
    assert (many[few < 150] < 160).all()
    weak, strong = (CORRUPTIONS["colour_cast"](image, amount, generator(2)).astype(int) - 200 for amount in (0.1, 0.2))
    np.testing.assert_allclose(np.clip(2 * weak, -200, 55), np.clip(strong, -200, 55), atol=2)
    signs = {np.sign(CORRUPTIONS["brightness"](image, 0.3, generator(key)).astype(int) - 200).max() for key in range(9)}
    assert signs == {-1, 1}


def test_nothing_is_done_at_no_strength():
    image = draw_batch(3, range(1), 64)[0][0]
    for kind in sorted(set(CORRUPTIONS) - {"jpeg"}):
        assert np.array_equal(CORRUPTIONS[kind](image, 0.0, generator("key")), image), kind


@pytest.fixture
def layout(tmp_path):
    """Images on disk that are what the harmonized arrays hold."""
    layout = make_root(tmp_path)
    data = Harmonized.open(layout.pixels(HOME, "ham10000", 32))
    rows = []
    for entry in data.index:
        path = f"{entry['image_id']}.png"
        cv2.imwrite(str(tmp_path / path), data.image(entry["row"])[:, :, ::-1])
        rows.append({"dataset": "ham10000", "image_id": entry["image_id"], "path": path, "mask_path": None})
    layout.catalog.parent.mkdir()
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(rows))
    return layout


def plain(run: Run) -> Run:
    return run.model_copy(update={"harmonization": run.harmonization.model_copy(update={"histogram": "none"})})


def measured(layout, run, name="out.csv", **changes):
    settings = SETTINGS.model_copy(update=changes)
    out = layout.root / name
    measure_robustness(layout.run(run.task, run.run_id), run, layout.root, ["ham10000"], settings, out)
    return read_csv(out)


def test_the_clean_row_is_the_score_and_noise_beyond_reason_is_chance(layout):
    run = plain(make_run(epochs=3))
    folder = layout.run("classification", run.run_id)
    train_run(run, folder, layout.root, "cpu")
    scoring = config.load("smoke").scoring.model_copy(update={"classification_on": ["ham10000"]})
    score_classification(folder, run, layout.root, scoring, folder / "scores.parquet")
    expected = classification_metrics(pd.DataFrame(read_scores(folder / "scores.parquet", "classification")))
    rows = measured(layout, run, images=None, corruptions={"noise": [1.0, 200.0], "blur": [50.0]})
    assert [(row["corruption"], row["strength"], row["amount"]) for row in rows] == [
        ("none", "0", "0"),
        ("blur", "1", "50"),
        ("noise", "1", "1"),
        ("noise", "2", "200"),
    ]
    for name in METRICS:
        assert float(rows[0][name]) == pytest.approx(expected[name], abs=1e-5)
    assert float(rows[3]["brier"]) > float(rows[0]["brier"])
    first = (layout.root / "out.csv").read_bytes()
    measured(layout, run, images=None, corruptions={"noise": [1.0, 200.0], "blur": [50.0]})
    assert (layout.root / "out.csv").read_bytes() == first
    few = measured(layout, run, images=4, corruptions={"jpeg": [90.0]})
    assert {row["n"] for row in few} == {"4"}
    gather_robustness([layout.root / "out.csv"], layout.root / "all.csv")
    assert read_csv(layout.root / "all.csv") == few


def test_images_are_corrected_as_their_dataset_was(layout):
    home = layout.pixels(HOME, "ham10000", 32)
    np.save(home / "images.npy", np.stack([grey_world(image) for image in np.load(home / "images.npy")]))
    run = plain(make_run(epochs=3))
    corrected = run.harmonization.model_copy(update={"colour_for": {"ham10000": "grey_world"}})
    run = run.model_copy(update={"harmonization": corrected})
    folder = layout.run("classification", run.run_id)
    train_run(run, folder, layout.root, "cpu")
    scoring = config.load("smoke").scoring.model_copy(update={"classification_on": ["ham10000"]})
    score_classification(folder, run, layout.root, scoring, folder / "scores.parquet")
    expected = classification_metrics(pd.DataFrame(read_scores(folder / "scores.parquet", "classification")))
    clean = measured(layout, run, images=None, corruptions={"jpeg": [90.0]})[0]
    for name in METRICS:
        assert float(clean[name]) == pytest.approx(expected[name], abs=1e-5)


def test_the_mask_is_made_of_the_corrupted_image(layout, monkeypatch):
    from safetensors.torch import save_file

    from lesion_core.inference import robustness

    otsu = next(run for run in config.expand(config.load("smoke")).values() if run.method == "otsu")
    model = otsu.spec.model.model_copy(update={"image_size": 32})
    otsu = plain(otsu.model_copy(update={"spec": otsu.spec.model_copy(update={"model": model})}))
    home = layout.run("segmentation", otsu.run_id)
    otsu.save(home)
    save_file({}, home / "weights.safetensors")
    run = plain(make_run(masks="otsu", segmenter=otsu.run_id, fusion="concat", epochs=1))
    ids = [entry["image_id"] for entry in Harmonized.open(layout.pixels(HOME, "ham10000", 32)).index]
    pseudo = layout.pseudo_masks(otsu.run_id, "ham10000")
    pseudo.mkdir(parents=True)
    np.save(pseudo / "probabilities.npy", np.zeros((len(ids), 16, 16), np.uint8))
    (pseudo / "masks.csv").write_text("image_id\n" + "\n".join(ids) + "\n")
    train_run(run, layout.run("classification", run.run_id), layout.root, "cpu")
    seen = []
    honest = robustness.class_probabilities
    monkeypatch.setattr(
        robustness, "class_probabilities", lambda *args, **more: (seen.append(args[2]), honest(*args, **more))[1]
    )
    measured(layout, run, images=4, corruptions={"hair": [30.0]})
    assert len(seen) == 2
    assert seen[0].shape == (4, 32, 32)
    assert not np.array_equal(*seen)


def test_masks_that_no_corruption_reaches_are_refused(layout):
    run = plain(make_run(masks="true", input="masked", epochs=1))
    train_run(run, layout.run("classification", run.run_id), layout.root, "cpu")
    with pytest.raises(SettingsError, match="no corruption reaches"):
        measured(layout, run)
