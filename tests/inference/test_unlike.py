"""Unlikeness: about 1 of 100 images like those of training is over 1; an overview with a ruler is over."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import save_file

from lesion_core.acquire.images import write_image
from lesion_core.acquire.synthetic import draw_batch
from lesion_core.files import read_csv, write_csv
from lesion_core.inference.predict import predict_folder
from lesion_core.inference.unlike import Unlikeness, image_statistics, unlikeness_of
from lesion_core.models.trained import load_segmenter
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS
from lesion_core.settings import load as config

SIZE = 48


@pytest.fixture(scope="module")
def unlikeness():
    images, _, _ = draw_batch(1, range(500), SIZE)
    statistics = np.stack([image_statistics(image) for image in images])
    return Unlikeness(statistics[:300], statistics[300:])


def test_new_images_of_the_same_kind_are_familiar(unlikeness):
    images, _, _ = draw_batch(2, range(200), SIZE)
    assert np.mean([unlikeness.of(image) > 1 for image in images]) < 0.05


def overview(image):
    """A small lesion on skin of an image's colour, and a ruler."""
    drawn = np.full((SIZE, SIZE, 3), image[0, 0], np.uint8)
    drawn[20:24, 20:24] = 60
    drawn[-8:] = 250
    drawn[-8:, ::3] = 0
    return drawn


def test_an_overview_with_a_ruler_is_not(unlikeness):
    images, _, _ = draw_batch(3, range(20), SIZE)
    assert min(unlikeness.of(overview(image)) for image in images) > 1


def test_statistics_by_hand():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, ::2] = 255
    cells = image_statistics(pixels).reshape(4, 4, 5)
    assert cells[1, 1].tolist() == pytest.approx([127.5, 128, 128, 127.5, 0], abs=0.6)
    assert (image_statistics(pixels[:, :, ::-1]) == image_statistics(pixels)).all()


def test_the_column_stands_where_training_images_lie_beside_the_run(tmp_path, capsys):
    run_dir = tmp_path / "runs" / "segmentation" / "otsu"
    segmenter = otsu(run_dir)
    assert unlikeness_of(segmenter, run_dir) is None
    assert "no column unlikeness" in capsys.readouterr().err
    folder = Layout(tmp_path).pixels(segmenter.run.pixels, segmenter.run.spec.train_on[0], SIZE)
    folder.mkdir(parents=True)
    images, _, _ = draw_batch(1, range(220), SIZE)
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", np.zeros((0, SIZE, SIZE), np.uint8))
    same = {"mask_row": -1, "width": 9, "height": 9}
    parts = ["train"] * 110 + ["val"] * 110
    rows = [{"row": at, "image_id": f"i{at}", "split": part, **same} for at, part in enumerate(parts)]
    write_csv(folder / "index.csv", INDEX_COLUMNS, rows)
    originals = tmp_path / "in"
    originals.mkdir()
    write_image(originals / "usual.png", images[120])
    write_image(originals / "strange.png", overview(images[0]))
    found = unlikeness_of(segmenter, run_dir)
    predict_folder(segmenter, originals, tmp_path / "out", unlikeness=found)
    rows = {row["image_id"]: float(row["unlikeness"]) for row in read_csv(tmp_path / "out" / "predictions.csv")}
    assert rows["strange"] > 1 > rows["usual"]
    assert "1 images are unlike" in capsys.readouterr().err


def otsu(run_dir):
    """Otsu's threshold at the size of these images."""
    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == "otsu")
    spec = run.spec.model_copy(update={"model": run.spec.model.model_copy(update={"image_size": SIZE})})
    harmonization = run.harmonization.model_copy(update={"histogram": "none", "colour": "none", "hair_removal": False})
    run.model_copy(update={"spec": spec, "harmonization": harmonization}).save(run_dir)
    save_file({}, run_dir / "weights.safetensors")
    return load_segmenter(run_dir)
