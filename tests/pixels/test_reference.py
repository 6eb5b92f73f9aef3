"""Colour distance between datasets: parity with scipy, and that specification lowers it across made cameras."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from scipy.stats import wasserstein_distance

from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.acquire.synthetic.lesion import make_lesion
from lesion_core.catalog.table import COLUMNS
from lesion_core.files import read_json, write_csv, write_parquet
from lesion_core.pixels.histogram import apply_tables, channel_histograms
from lesion_core.pixels.reference import (
    colour_distances,
    colour_frequencies,
    distance,
    mapped,
    reference_histogram,
    write_colours,
)
from lesion_core.seeding import generator
from lesion_core.settings import Harmonization

# A gain per channel and a gamma: what another camera and another lamp do to an image.
CASTS = {"isic2016": ((1.0, 1.0, 1.0), 1.0), "isic2017": ((0.75, 0.9, 1.1), 1.0), "ph2": ((1.0, 0.85, 0.7), 1.3)}


def _frequencies(seed: int) -> np.ndarray:
    counts = np.random.default_rng(seed).integers(0, 50, (3, 256))
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_distance_equals_scipys(seed: int) -> None:
    first, second = _frequencies(seed), _frequencies(seed + 100)
    levels = np.arange(256)
    expected = np.mean([wasserstein_distance(levels, levels, a, b) for a, b in zip(first, second, strict=True)])
    assert distance(first, second) == pytest.approx(expected, abs=1e-9)
    assert distance(first, first) == 0.0
    assert distance(first, second) == pytest.approx(distance(second, first))


def test_distance_by_hand() -> None:
    first, second = np.zeros((3, 256)), np.zeros((3, 256))
    first[:, 100] = 1.0
    second[0, 100], second[1, 130], second[2, 70] = 1.0, 1.0, 1.0
    assert distance(first, second) == pytest.approx((0 + 30 + 30) / 3)
    pairs = colour_distances({"b": np.stack([second, second]), "a": np.stack([first, second])})["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("a", "b")]
    assert pairs[0]["before"] == pytest.approx(20.0)
    assert pairs[0]["after"] == 0.0


def test_mapped_frequencies_are_those_of_the_mapped_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(np.uint8)
    tables = np.sort(np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint8), axis=1)
    expected = channel_histograms(apply_tables(image, tables)) / (50 * 40)
    np.testing.assert_allclose(mapped(channel_histograms(image) / (50 * 40), tables), expected, atol=1e-12)


def test_a_large_image_is_sampled_on_a_grid() -> None:
    image = np.random.default_rng(0).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    expected = channel_histograms(np.ascontiguousarray(image[::2, ::2]))
    np.testing.assert_allclose(colour_frequencies(image), expected / expected.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("histogram", ["specification", "none"])
def test_specification_brings_made_cameras_together(tmp_path: Path, histogram: str) -> None:
    content, rows, tables = {}, [], {}
    for dataset, (gains, gamma) in CASTS.items():
        tables[dataset] = []
        for number in range(6):
            draw = generator(3, dataset, number)
            pixels, _ = synthetic_image(make_lesion(draw, ("nv", "mel")[number % 2]), draw, (60, 80), device=0)
            cast = 255.0 * (pixels / 255.0 * np.array(gains)) ** gamma
            path = tmp_path / f"{dataset}_{number}.png"
            Image.fromarray(np.clip(np.rint(cast), 0, 255).astype(np.uint8)).save(path)
            row = dict.fromkeys(name for name, _ in COLUMNS)
            sha = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(row | {"dataset": dataset, "image_id": path.stem, "path": path.name, "sha256": sha})
            split = "train" if number < 5 else "test"
            tables[dataset].append({"image_id": path.stem, "group_id": path.stem, "split": split})
        write_csv(tmp_path / "splits" / f"{dataset}.csv", ("image_id", "group_id", "split"), tables[dataset])
    write_parquet(tmp_path / "images.parquet", pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(COLUMNS)))
    settings = Harmonization(
        histogram=histogram,
        colour="none",
        hair_removal=False,
        mask_closing=3,
        mask_min_component=0.0005,
        mask_smoothing=2.0,
        soft_mask_sigma=2.0,
        reference_size=64,
        reference_from=sorted(CASTS),
    )
    given = (tmp_path / "images.parquet", tmp_path / "splits", tmp_path)
    for name, workers in (("first.json", 1), ("second.json", 2)):
        reference = reference_histogram(*given, tmp_path / "reference.npy", settings, workers=workers)
        wanted = reference if histogram == "specification" else None
        write_colours(*given, wanted, tmp_path / name, settings, workers=workers)
        content[name] = (tmp_path / name).read_bytes()
    assert content["first.json"] == content["second.json"]
    found = read_json(tmp_path / "first.json")
    assert len(found["pairs"]) == 3
    if histogram == "specification":
        assert all(pair["after"] < 0.35 * pair["before"] for pair in found["pairs"]), found["pairs"]
        assert found["mean"]["after"] < 0.2 * found["mean"]["before"]
    else:  # only the resizing is left, which moves no colour to speak of
        assert found["mean"]["after"] == pytest.approx(found["mean"]["before"], rel=0.1)


def test_the_reference_is_of_its_own_datasets_alone(tmp_path: Path) -> None:
    """What lies in another dataset changes nothing, and what lies in its own does."""
    rows = []
    for dataset, value in (("ham10000", 90), ("ph2", 200)):
        path = tmp_path / f"{dataset}.png"
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(path)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        row = dict.fromkeys(name for name, _ in COLUMNS)
        rows.append(row | {"dataset": dataset, "image_id": dataset, "path": path.name, "sha256": sha})
        split = {"image_id": dataset, "group_id": dataset, "split": "train"}
        write_csv(tmp_path / "splits" / f"{dataset}.csv", tuple(split), [split])
    write_parquet(tmp_path / "images.parquet", pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(COLUMNS)))
    masks = {"mask_closing": 0, "mask_min_component": 0.0, "mask_smoothing": 0.0, "soft_mask_sigma": 0.0}
    shared = {"histogram": "specification", "colour": "none", "hair_removal": False, "reference_size": 32, **masks}
    for names, level in ((["ham10000"], 90), (["ph2"], 200)):
        settings = Harmonization(**shared, reference_from=names)
        out = tmp_path / "reference.npy"
        found = reference_histogram(tmp_path / "images.parquet", tmp_path / "splits", tmp_path, out, settings)
        assert found.argmax(axis=1).tolist() == [level] * 3
