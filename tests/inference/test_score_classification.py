"""Scoring classifiers: temperatures, mask flags, shuffled and true masks, test-time augmentation and ensembles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from classification_runs import SEGMENTER, make_pseudo_masks, make_root, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from material import HOME

from lesion_core.acquire.images import read_mask
from lesion_core.errors import MaskError, RunError, ScoreError, SettingsError
from lesion_core.files import read_csv, read_json, write_parquet
from lesion_core.inference.classify import class_probabilities
from lesion_core.inference.examples import labelled_examples, mask_flag
from lesion_core.inference.score_classification import score_classification
from lesion_core.inference.score_derived import EIGHT_VIEWS, score_derived
from lesion_core.metrics.calibration import ece, fit_temperature, log_probabilities, softmax
from lesion_core.models.classifier import prepare_input
from lesion_core.models.trained import load_classifier
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.shuffle import foreign_places
from lesion_core.report.measures import classification_metrics
from lesion_core.scores import read_scores
from lesion_core.settings import CLASSES
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.training.classification import open_images, train_run

SCORING = config.load("smoke").scoring.model_copy(update={"classification_on": ["ham10000"], "batch_size": 4})


def changed(run: Run, **spec: object) -> Run:
    seed = spec.pop("seed", run.seed)
    content = run.model_dump()
    return Run.model_validate({**content, "seed": seed, "spec": {**content["spec"], **spec}}, strict=False)


def trained(layout: Layout, run: Run) -> Path:
    folder = layout.run("classification", run.run_id)
    train_run(run, folder, layout.root, "cpu")
    return folder


def scored(layout: Layout, run: Run, folder: Path) -> list[dict[str, object]]:
    score_classification(folder, run, layout.root, SCORING, folder / "scores.parquet")
    return read_scores(folder / "scores.parquet", "classification")


def p_of(rows: list[dict[str, object]]) -> np.ndarray:
    return np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows])


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path)


def ids_of(layout: Layout) -> list[str]:
    return [row["image_id"] for row in read_csv(layout.pixels(HOME, "ham10000", 32) / "index.csv")]


def test_the_temperature_comes_from_validation_images_alone(layout: Layout):
    run = make_run(epochs=3)
    folder = trained(layout, run)
    rows = scored(layout, run, folder)
    loaded = load_classifier(folder)
    seen = labelled_examples(loaded, folder, run, layout.root, "ham10000", "val")
    logits = log_probabilities(class_probabilities(loaded.model, seen.images, None))
    truth = np.array([CLASSES.index(record["label"]) for record in seen.records])
    expected = fit_temperature(truth, logits)
    assert len({row["temperature"] for row in rows}) == 1
    assert rows[0]["temperature"] == pytest.approx(expected, rel=1e-6)
    assert {row["split"] for row in rows} == {"test"}
    told = read_json(folder / "scores_calibration.json")
    assert told["validation_images"] == len(truth) == 14
    assert told["validation_ece_calibrated"] == pytest.approx(ece(truth, softmax(logits, expected)), abs=1e-6)
    # other test images: other scores, the same temperature
    path = layout.pixels(HOME, "ham10000", 32) / "images.npy"
    images = np.load(path)
    images[[row for row in range(len(images)) if row >= 49]] = 7
    np.save(path, images)
    again = scored(layout, run, folder)
    assert again[0]["temperature"] == rows[0]["temperature"]
    assert not np.allclose(p_of(again), p_of(rows))


def test_calibrated_metrics_by_hand():
    rows = [
        {"label": label, "temperature": 2.0, **{f"p_{name}": 0.04 for name in CLASSES}, f"p_{guess}": 0.76}
        for label, guess in (("nv", "nv"), ("mel", "nv"))
    ]
    found = classification_metrics(pd.DataFrame(rows))
    top = np.sqrt(0.76) / (np.sqrt(0.76) + 6 * np.sqrt(0.04))
    assert found["ece"] == pytest.approx(0.76 - 0.5)
    assert found["ece_calibrated"] == pytest.approx(abs(top - 0.5))
    rest = (1 - top) / 6
    assert found["brier_calibrated"] == pytest.approx(
        ((1 - top) ** 2 + 6 * rest**2 + top**2 + (1 - rest) ** 2 + 5 * rest**2) / 2
    )
    with pytest.raises(ScoreError, match="several temperatures"):
        classification_metrics(pd.DataFrame([rows[0], {**rows[1], "temperature": 3.0}]).assign(run_id="x"))


def test_masks_that_cut_nothing_out_are_flagged_in_the_scores(layout: Layout):
    ids = ids_of(layout)
    home = make_pseudo_masks(layout, ids)
    maps = np.load(home / "probabilities.npy")
    maps[50], maps[52] = 0, 255
    np.save(home / "probabilities.npy", maps)
    run = make_run(masks="sam_adapter", segmenter=SEGMENTER, input="masked", epochs=1)
    rows = scored(layout, run, trained(layout, run))
    flags = {row["image_id"]: row["mask_flag"] for row in rows}
    expected = dict.fromkeys(ids[49:], "") | {ids[50]: "empty", ids[52]: "full"}
    maps_flags = {name: mask_flag(maps[number]) for number, name in enumerate(ids) if number >= 49}
    assert flags == expected == maps_flags


@pytest.mark.parametrize("kind", ["masked", "blend", "crop"])
def test_without_a_lesion_the_whole_image_is_shown(kind: str):
    images = torch.rand(3, 3, 8, 8) * 255
    masks = torch.zeros(3, 1, 8, 8)
    masks[1] = 1.0
    masks[2, :, 2:5, 3:6] = 1.0
    shown, seen = prepare_input(images, masks, kind, blend=0.7, margin=0.0)
    torch.testing.assert_close(shown[:2], images[:2], rtol=0, atol=1e-3)
    assert not torch.allclose(shown[2], images[2], atol=1.0)
    torch.testing.assert_close(seen[0], masks[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 5))
def test_no_place_gets_its_own_group(groups, key):
    names = [str(group) for group in groups]
    largest = max((names.count(name) for name in names), default=0)
    if 2 * largest > len(names):
        with pytest.raises(MaskError, match="cannot be exchanged"):
            foreign_places(names, key)
        return
    places = foreign_places(names, key)
    assert sorted(places) == list(range(len(names)))
    assert all(names[place] != name for place, name in zip(places, names, strict=True))
    assert np.array_equal(places, foreign_places(names, key))


def test_shuffled_masks_stay_in_their_split_and_leave_their_lesion(layout: Layout):
    ids = ids_of(layout)
    make_pseudo_masks(layout, ids)
    own = make_run(masks="sam_adapter", segmenter=SEGMENTER, fusion="concat", epochs=1)
    run = changed(own, mask_order="shuffled")
    assert run.run_id != own.run_id
    images = open_images(run, layout.root)
    plain = open_images(own, layout.root)
    for rows in (images.train, images.val):
        donors = images.donors[rows]
        assert sorted(donors) == sorted(rows)
        assert (donors != rows).all()
        for row in rows:
            assert np.array_equal(images.mask(row), plain.mask(images.donors[row]))
    folder = trained(layout, run)
    shown = labelled_examples(load_classifier(folder), folder, run, layout.root, "ham10000", "test")
    honest = labelled_examples(load_classifier(folder), folder, own, layout.root, "ham10000", "test")
    assert sorted(mask.max() for mask in shown.masks) == sorted(mask.max() for mask in honest.masks)
    assert all(a.max() != b.max() for a, b in zip(shown.masks, honest.masks, strict=True))


def make_catalog(layout: Layout, missing: tuple[str, ...] = (), none: bool = False) -> None:
    import cv2

    rows = []
    for entry in read_csv(layout.pixels(HOME, "ham10000", 32) / "index.csv"):
        path = None
        if not none and entry["image_id"] not in missing:
            path = f"{entry['image_id']}.png"
            mask = np.zeros((64, 64), np.uint8)
            mask[16:48, 12:44] = 255
            cv2.imwrite(str(layout.root / path), mask)
        rows.append({"dataset": "ham10000", "image_id": entry["image_id"], "mask_path": path})
    layout.catalog.parent.mkdir(exist_ok=True)
    write_parquet(layout.catalog, pyarrow.Table.from_pylist(rows))


def test_true_masks_of_test_images_are_prepared_as_in_training(layout: Layout):
    make_catalog(layout)
    run = make_run(masks="true", input="masked", epochs=1)
    folder = trained(layout, run)
    shown = labelled_examples(load_classifier(folder), folder, run, layout.root, "ham10000", "test")
    data = Harmonized.open(layout.pixels(HOME, "ham10000", 32))
    assert read_mask(layout.root / f"{shown.records[0]['image_id']}.png").shape == (64, 64)
    assert all(np.array_equal(mask, data.soft_mask(0)) for mask in shown.masks)
    assert len(scored(layout, run, folder)) == 7


def test_a_missing_true_mask_is_named_and_a_dataset_without_any_is_left_out(layout: Layout, capsys):
    run = make_run(masks="true", input="masked", epochs=1)
    folder = trained(layout, run)
    make_catalog(layout, missing=(ids_of(layout)[50],))
    with pytest.raises(MaskError, match="im050"):
        scored(layout, run, folder)
    make_catalog(layout, none=True)
    loaded = load_classifier(folder)
    assert labelled_examples(loaded, folder, run, layout.root, "ham10000", "test") is None


def test_a_image_without_pseudo_mask_is_named_when_it_is_scored(layout: Layout):
    ids = ids_of(layout)
    home = make_pseudo_masks(layout, ids)
    run = make_run(masks="sam_adapter", segmenter=SEGMENTER, fusion="concat", epochs=1)
    folder = trained(layout, run)
    text = (home / "masks.csv").read_text().replace("im051\n", "")
    (home / "masks.csv").write_text(text)
    with pytest.raises(MaskError, match="im051"):
        scored(layout, run, folder)


def derived(how: str, *sources: Run, method: str = "averaged") -> Run:
    content = sources[0].model_dump()
    spec = {"task": "derived", "protocol": "shared", "of": ["test"], "how": how}
    found = {**content, "method": method, "spec": spec, "segmenter_run": None}
    return Run.model_validate({**found, "source_runs": [run.run_id for run in sources]}, strict=False)


def test_augmentation_and_ensemble_are_runs_of_their_own(layout: Layout):
    runs = [make_run(epochs=1), changed(make_run(epochs=1), seed=2)]
    folders = [trained(layout, run) for run in runs]
    single = [scored(layout, run, folder) for run, folder in zip(runs, folders, strict=True)]
    for how, sources in (("tta", runs[:1]), ("ensemble", runs)):
        run = derived(how, *sources)
        out = layout.run("derived", run.run_id) / "scores.parquet"
        score_derived(run, layout.root, SCORING, out)
        rows = read_scores(out, "classification")
        assert {row["run_id"] for row in rows} == {run.run_id}
        assert {row["method"] for row in rows} == {"averaged"}
        assert {(row["protocol"], row["rule"]) for row in rows} == {("shared", "leak_free")}
        assert Run.load(out.parent) == run
        assert read_json(out.parent / "provenance.json")["inputs"].keys() == {
            f"runs/classification/{source.run_id}/weights.safetensors" for source in sources
        }
        if how == "ensemble":
            expected = np.mean([p_of(part) for part in single], axis=0)
        else:
            loaded = load_classifier(folders[0])
            seen = labelled_examples(loaded, folders[0], runs[0], layout.root, "ham10000", "test")
            turned = [np.rot90(np.flip(seen.images, axis=2) if flip else seen.images, turns, axes=(1, 2))
                      for flip in (False, True) for turns in range(4)]  # fmt: skip
            expected = np.mean([class_probabilities(loaded.model, view, None) for view in turned], axis=0)
        np.testing.assert_allclose(p_of(rows), expected, atol=1e-6)
    # what the single runs scored has not been touched
    assert [scored(layout, run, folder) for run, folder in zip(runs, folders, strict=True)] == single


def test_the_eight_views_are_the_symmetries_of_a_square():
    batch = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    views = {view(batch).tobytes() for view in EIGHT_VIEWS}
    assert len(views) == 8
    # closed: turned images have the same views
    assert {view(np.rot90(batch, axes=(1, 2))).tobytes() for view in EIGHT_VIEWS} == views
    assert {view(batch[:, ::-1]).tobytes() for view in EIGHT_VIEWS} == views
    assert EIGHT_VIEWS[5](batch[..., 0]).shape == (2, 4, 4)


def test_untrained_sources_are_named(layout: Layout):
    run = derived("ensemble", make_run(epochs=1))
    with pytest.raises(RunError, match="not trained"):
        score_derived(run, layout.root, SCORING, layout.run("derived", run.run_id) / "scores.parquet")


def test_the_matrix_links_averages_to_their_runs():
    smoke = config.load("smoke")
    runs = config.expand(smoke)
    by_method: dict[str, list[Run]] = {}
    for run in runs.values():
        by_method.setdefault(run.method, []).append(run)
    (ensemble,) = by_method["vit_cross_attention_ensemble"]
    assert ensemble.source_runs == [run.run_id for run in by_method["vit_cross_attention"]]
    assert by_method["vit_cross_attention_tta"][0].source_runs == ensemble.source_runs[:1]
    with pytest.raises(SettingsError, match="one run is no ensemble"):
        config.load("smoke", {"matrix": {"seeds": [0]}})
