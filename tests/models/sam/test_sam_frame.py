"""SAM's own frame: what segment_anything's resizing, padding and whole forward give, seen from the resized square."""

# ruff: noqa: F811 - fixtures come from another file
from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from material import HOME
from segment_anything.utils.transforms import ResizeLongestSide
from segmentation_runs import SIZE, make_run
from test_score_prompts import ALL, NATIVE, root, scoring  # noqa: F401

from lesion_core.errors import ImageError, SettingsError
from lesion_core.files import read_parquet
from lesion_core.inference.predict import probabilities
from lesion_core.inference.score_segmentation import score_segmentation
from lesion_core.models.sam.frame import PaddedSam, content_size
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.trainable import finish, to_input
from lesion_core.models.trained import load_segmenter
from lesion_core.paths import Layout
from lesion_core.seeding import generator, seed_torch
from lesion_core.settings import load as config
from lesion_core.settings.as_published import SUFFIX
from lesion_core.training.segmentation import train_run

SIDE = 128
SIZES = [(90, 120), (120, 90), (70, 128), (128, 128)]


@pytest.fixture(scope="module")
def sam():
    seed_torch(0, "test_sam_frame")
    return SamSegmenter(build_sam("sam_vit_t", image_size=SIDE), adapter="none").eval()


@pytest.fixture(scope="module")
def resized() -> torch.Tensor:
    images = generator("test_sam_frame").integers(0, 256, (len(SIZES), SIDE // 8, SIDE // 8, 3)).astype(np.uint8)
    return to_input(images.repeat(8, axis=1).repeat(8, axis=2), "cpu").contiguous()


def contents(images: torch.Tensor) -> list[torch.Tensor]:
    """The images at the size that SAM would give them, whole numbers."""
    found = []
    for image, size in zip(images, SIZES, strict=True):
        content = torch.nn.functional.interpolate(
            image[None], size=content_size(*size, SIDE), mode="bilinear", antialias=True
        )
        found.append(content[0].round().clamp(0, 255))
    return found


@given(height=st.integers(1, 6000), width=st.integers(1, 6000), side=st.sampled_from([64, 256, 1024]))
def test_the_content_has_segment_anythings_size(height, width, side):
    assert content_size(height, width, side) == ResizeLongestSide.get_preprocess_shape(height, width, side)


def test_embeddings_are_segment_anythings_of_padded_images(sam, resized):
    with torch.inference_mode():
        padded = torch.stack([sam.sam.preprocess(content) for content in contents(resized)])
        ours, theirs = PaddedSam(sam, SIZES).encode(resized), sam.sam.image_encoder(padded)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert not torch.equal(PaddedSam(sam, SIZES).encode(resized)[:3], sam.encode(resized)[:3])


def test_masks_and_iou_are_those_of_segment_anythings_whole_forward(sam, resized):
    """Boxes that SAM gets in its own frame; its answer, resized, is ours."""
    boxes = torch.tensor([[20.0, 30.0, 90.0, 100.0]]).repeat(len(SIZES), 1)
    padded = PaddedSam(sam, SIZES)
    with torch.inference_mode():
        ours = padded.decode(padded.encode(resized), Prompts(boxes=boxes))
        quality = padded.decode_all(padded.encode(resized), Prompts(boxes=boxes))[1]
        for row, content in enumerate(contents(resized)):
            height, width = content.shape[1:]
            shares = torch.tensor([width, height, width, height]) / SIDE
            told = {"image": content, "boxes": (boxes[row : row + 1] + 0.5) * shares - 0.5}
            (published,) = sam.sam([{**told, "original_size": (SIDE, SIDE)}], multimask_output=False)
            theirs = sam.sam.postprocess_masks(published["low_res_logits"], (height, width), (SIDE, SIDE))
            # decoded four at a time here, one by one there
            torch.testing.assert_close(ours[row], theirs[0], rtol=1e-4, atol=1e-5)
            assert (theirs.max() - theirs.min()) > 0.1
            torch.testing.assert_close(quality[row, :1], published["iou_predictions"][0], rtol=1e-4, atol=1e-5)


def test_prompts_and_logits_by_hand(sam):
    # 90 x 120 fills 96 x 128: y shrinks by 3/4, x stays
    padded = PaddedSam(sam, [(90, 120)])
    inside = padded._inside(Prompts(boxes=torch.tensor([[0.0, 0.0, 127.0, 127.0]])), 1)
    assert inside.boxes.tolist() == [[0.0, -0.125, 127.0, 95.125]]
    clicks = Prompts(points=torch.tensor([[[10.0, 63.5]]]), point_labels=torch.ones(1, 1, dtype=torch.int64))
    assert padded._inside(clicks, 1).points.tolist() == [[[10.0, 47.5]]]
    # a logit that grows by 1 per row of the content and is a wall below it
    rows = torch.arange(SIDE // 4, dtype=torch.float32)
    low = torch.where(rows < 24, rows, 1000.0)[None, None, :, None].expand(1, 1, -1, SIDE // 4)
    seen = padded._resized(low, SIDE // 4)
    expected = (rows + 0.5) * 0.75 - 0.5
    torch.testing.assert_close(seen[0, 0, 1:-1, 5], expected[1:-1], rtol=0, atol=1e-4)
    assert seen.max() < 1000.0 / 2  # the wall is out of sight, but for what interpolation draws from the next row


def test_one_size_per_image(sam, resized):
    with pytest.raises(ImageError, match="4 images but 2 sizes"):
        PaddedSam(sam, SIZES[:2]).encode(resized)


@pytest.fixture(scope="module")
def padded_run(root):
    run = make_run(model={"kind": "sam", "backbone": "sam_vit_t", "frame": "padded"}, training={"epochs": 0})
    run_dir = Layout(root).run("segmentation", run.run_id)
    train_run(run, run_dir, root, "cpu")
    return load_segmenter(run_dir)


def test_a_run_in_sams_frame_is_scored_under_every_prompt(root, scoring, padded_run, tmp_path):
    score_segmentation(padded_run, padded_run.run, root, scoring, tmp_path / "a.parquet", tmp_path / "a.zip")
    rows = read_parquet(tmp_path / "a.parquet").to_pylist()
    assert {row["prompt"] for row in rows} == set(ALL)
    assert len(rows) == 3 * 2 * len(ALL)
    pixels = np.load(Layout(root).pixels(HOME, "ph2", SIZE) / "images.npy")[3:]
    found = np.stack(list(chain(*probabilities(padded_run, pixels, [NATIVE] * 3, batch_size=2))))
    with torch.inference_mode():
        alone = PaddedSam(padded_run.model, [NATIVE])
        expected = np.concatenate([finish(alone(to_input(pixels[row : row + 1], "cpu")), SIZE) for row in range(3)])
        plain = finish(padded_run.model(to_input(pixels, "cpu")), SIZE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-3


def test_square_images_fill_both_frames(padded_run):
    assert padded_run.facing([(50, 50), (7, 7)]) is padded_run.model
    assert isinstance(padded_run.facing([(50, 50), (7, 8)]), PaddedSam)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"methods": {"sam_adapter": {"model": {"frame": "padded"}}}}, "does not use frame"),
        ({"methods": {"unet": {"model": {"frame": "padded"}}}}, "does not use frame"),
        ({"methods": {"medsam_zero_shot": {"model": {"frame": "padded"}}}}, "resized without aspect ratio"),
        ({"explain": {"methods": ["sam_h_frozen"]}}, "SAM's frame"),
    ],
)
def test_what_cannot_have_sams_frame_is_refused(overrides, said):
    with pytest.raises(SettingsError, match=said):
        config.load("paper", overrides)


def test_the_papers_sam_has_its_own_frame():
    runs = config.expand(config.load("paper")).values()
    frames = {run.method: run.spec.model.frame for run in runs if run.task == "segmentation"}
    assert {name for name, frame in frames.items() if frame == "padded"} == {
        *("sam_zero_shot", "sam_h_frozen", f"sam_h_frozen{SUFFIX}")
    }
