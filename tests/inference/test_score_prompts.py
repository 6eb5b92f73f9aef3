"""Scoring of a SAM under every kind of prompt: which are taken, whose score each is, and upsampling comes first."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow
import pytest
import torch
from material import HOME
from segmentation_runs import SIZE, make_run, write_dataset

from lesion_core.errors import RunError
from lesion_core.files import read_parquet, write_parquet
from lesion_core.inference.predict import predict_folder, probabilities
from lesion_core.inference.pseudo_masks import write_pseudo_masks
from lesion_core.inference.refine import upsample
from lesion_core.inference.score_segmentation import model_size, prompts_of, score_segmentation
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.models.automatic_masks import automatic_lesions
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.prompts import automatic_prompts, click_draws, click_session, oracle_prompts
from lesion_core.models.trainable import finish, to_input
from lesion_core.models.trained import load_segmenter
from lesion_core.paths import Layout
from lesion_core.seeding import seed_torch
from lesion_core.settings import SegmentationModel
from lesion_core.settings import load as config
from lesion_core.training.checkpoint import write_safetensors
from lesion_core.training.segmentation import train_run

NATIVE = (48, 80)
ALL = ("none", "automatic", "automatic_masks", "oracle_box", "oracle_click_1", "oracle_click_3")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    import cv2

    root = tmp_path_factory.mktemp("results") / "smoke"
    write_dataset(root, "ph2", SIZE, 1, ["train"] * 2 + ["val"] + ["test"] * 3)
    np.save(Layout(root).reference(HOME), np.full((3, 256), 1 / 256))
    seed_torch(0, "test weights")
    write_safetensors(Layout(root).weights("sam_vit_t"), dict(build_sam("sam_vit_t").state_dict()))
    index = Layout(root).pixels(HOME, "ph2", SIZE) / "index.csv"
    text = index.read_text().replace(f",{SIZE},{SIZE},", f",{NATIVE[1]},{NATIVE[0]},")
    assert f",{NATIVE[1]},{NATIVE[0]}," in text
    index.write_text(text)
    catalog = []
    for number in range(3, 6):
        mask = np.zeros(NATIVE, np.uint8)
        mask[10 : 20 + 4 * number, 15:40] = 255
        path = root / f"mask{number}.png"
        cv2.imwrite(str(path), mask)
        catalog.append({"dataset": "ph2", "image_id": f"ph2_{number:02d}", "mask_path": path.name})
    write_parquet(Layout(root).catalog, pyarrow.Table.from_pylist(catalog))
    return root


@pytest.fixture(scope="module")
def scoring():
    own = config.load("smoke").scoring
    return own.model_copy(update={"segmentation_on": ["ph2"], "batch_size": 3, "refine": False})


@pytest.fixture(scope="module")
def segmenter(root):
    run = make_run(model={"kind": "sam", "backbone": "sam_vit_t"})
    run_dir = Layout(root).run("segmentation", run.run_id)
    train_run(run, run_dir, root, "cpu")
    return load_segmenter(run_dir)


def test_prompts_of_each_kind_of_model(scoring):
    def of(**model):
        return prompts_of(SegmentationModel(image_size=64, **model), scoring)

    sam = {"kind": "sam", "backbone": "sam_vit_t"}
    assert of(kind="otsu") == of(kind="unet") == ["none"]
    assert of(**sam) == ["none", *sorted(set(ALL) - {"none"})]
    assert set(of(**sam, adapter="lora")) == set(scoring.prompts)
    assert set(of(**sam, adapter="gl_med_sa", prompt="oracle_click_3")) == {*scoring.prompts, "oracle_click_3"}


def learnt_with(segmenter, prompt):
    spec = segmenter.run.spec
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"prompt": prompt})})
    return replace(segmenter, run=segmenter.run.model_copy(update={"spec": spec}))


def maps_of(segmenter, pixels):
    return np.stack(list(chain(*probabilities(segmenter, pixels, [NATIVE] * len(pixels), batch_size=2))))


def test_without_truth_a_run_is_prompted_as_it_learnt(root, segmenter):
    """Of none: nothing. Of boxes: the automatic box of scoring, cut at the run's threshold."""
    pixels = np.load(Layout(root).pixels(HOME, "ph2", SIZE) / "images.npy")[3:]
    segmenter = with_threshold(segmenter, 0.52)
    unprompted = maps_of(segmenter, pixels)
    boxes = automatic_prompts(unprompted, threshold=0.52)
    with torch.inference_mode():
        for prompt, given in (("none", None), ("oracle_box", boxes)):
            expected = finish(segmenter.model(to_input(pixels, "cpu"), given), SIZE)
            found = maps_of(learnt_with(segmenter, prompt), pixels)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - unprompted).max() > 1e-3


@pytest.mark.parametrize("prompt", ["oracle_click_1", "oracle_click_3"])
def test_a_run_that_learnt_with_clicks_is_refused_where_nobody_clicks(root, segmenter, tmp_path, prompt):
    clicked = learnt_with(segmenter, prompt)
    (tmp_path / "in").mkdir()
    folder = Layout(root).pixels(HOME, "ph2", SIZE)
    for job in (
        lambda: predict_folder(clicked, tmp_path / "in", tmp_path / "out"),
        lambda: write_pseudo_masks(clicked, folder, tmp_path / "out"),
        lambda: probabilities(clicked, np.load(folder / "images.npy"), [NATIVE] * 6),
    ):
        with pytest.raises(RunError, match=f"{clicked.run.run_id} learnt to segment from clicks") as caught:
            job()
        assert "oracle_box" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def with_threshold(segmenter, threshold):
    extraction = segmenter.run.extraction.model_copy(update={"threshold": threshold})
    return replace(segmenter, run=segmenter.run.model_copy(update={"extraction": extraction}))


@pytest.mark.parametrize("threshold", [0.5, 0.52])
def test_every_score_is_of_its_own_prompt(root, segmenter, scoring, tmp_path, threshold):
    """Each probability map made by hand; upsampled to the image's size first, cut at the threshold after."""
    import cv2

    segmenter = with_threshold(segmenter, threshold)

    out = tmp_path / "scores.parquet"
    score_segmentation(segmenter, segmenter.run, root, scoring, out, tmp_path / "masks.zip")
    rows = read_parquet(out).to_pylist()
    assert {row["prompt"] for row in rows} == set(ALL)
    images = to_input(np.load(Layout(root).pixels(HOME, "ph2", SIZE) / "images.npy")[3:], "cpu")
    truth = [cv2.imread(str(root / f"mask{number}.png"), cv2.IMREAD_GRAYSCALE) > 0 for number in range(3, 6)]
    small = np.stack([model_size(mask, SIZE) for mask in truth])
    keys = [f"ph2/ph2_{number:02d}" for number in range(3, 6)]
    model, seed = segmenter.model, segmenter.run.seed
    with torch.inference_mode():
        embeddings = model.encode(images)

        def probability(prompts):
            return finish(model.decode(embeddings, prompts), SIZE)

        expected = {
            "none": probability(None),
            "automatic": probability(automatic_prompts(probability(None), threshold=threshold)),
            "automatic_masks": finish(automatic_lesions(model, embeddings, images, scoring.automatic_masks), SIZE),
        }
        for kind in ("oracle_box", "oracle_click_1", "oracle_click_3"):
            prompts = oracle_prompts(small, kind, jitter=scoring.box_jitter, seed=seed, keys=keys)
            draws = click_draws(kind, seed=seed, keys=keys)
            prompts = click_session(prompts, small, draws, lambda given: probability(given) >= threshold)
            expected[kind] = probability(prompts)
    for row in rows:
        number = int(row["image_id"][-2:]) - 3
        own = expected[row["prompt"]][number]
        if row["resolution"] == "native":
            by_hand = dice(confusion(upsample(own, *NATIVE) >= threshold, truth[number]))
            assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == NATIVE[0] * NATIVE[1]
        else:
            by_hand = dice(confusion(own >= threshold, small[number]))
        assert row["dice"] == pytest.approx(float(by_hand), abs=1e-9), (row["prompt"], row["resolution"])
    maps = [expected[kind] for kind in ALL]
    assert not any(np.array_equal(one, other) for place, one in enumerate(maps) for other in maps[:place])
    if threshold != 0.5:
        boxes = [automatic_prompts(expected["none"], threshold=cut).boxes for cut in (0.5, threshold)]
        assert not torch.equal(*boxes), "another threshold must give another box, or this shows nothing"
