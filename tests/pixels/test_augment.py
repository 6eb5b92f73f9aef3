"""Augmentation: identity, keyed randomness, alignment of image and mask, parity with plain libraries."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from benchmarks.plain_augmentation import plain_chain
from lesion_core.acquire.opencv import single_thread
from lesion_core.acquire.parallel import in_threads
from lesion_core.errors import SettingsError
from lesion_core.pixels.augment import Augmenter, Warp, displacement
from lesion_core.seeding import generator
from lesion_core.settings import load as config
from lesion_core.settings.augmentation import TRANSFORMS

GEOMETRY = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "rotation_degrees": 30.0,
    "affine": 0.1,
    "translation": 0.05,
    "elastic_alpha": 8.0,
}
COLOUR = [
    {"transform": "RandomBrightnessContrast", "brightness_limit": 0.1, "contrast_limit": 0.1, "p": 1.0},
    {"transform": "ColorJitter", "brightness": 0.0, "contrast": 0.0, "saturation": 0.2, "hue": 0.0, "p": 1.0},
]
NOISE = {"transform": "GaussNoise", "std_range": [0.0173, 0.0173], "p": 1.0}
WARP = {"transform": "Warp", **GEOMETRY}
EVERY = [WARP, *COLOUR, NOISE]


def _warp(**changes: float) -> Augmenter:
    return Augmenter([{"transform": "Warp", **changes}])


def _lesion(size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A dark ellipse off the centre of pink skin, and its mask."""
    rows, columns = np.mgrid[:size, :size] / size
    mask = ((columns - 0.45) / 0.25) ** 2 + ((rows - 0.55) / 0.18) ** 2 <= 1
    skin = np.stack([205 + 20 * rows, 150 + 15 * columns, 140 + 10 * rows], axis=-1)
    image = np.where(mask[..., None], [120.0, 70.0, 60.0], skin)
    return image.astype(np.uint8), mask.astype(np.uint8) * 255


@pytest.mark.parametrize("pipeline", [[], [{"transform": "Warp"}]])
def test_nothing_switched_on_is_the_identity(pipeline: list) -> None:
    image, mask = _lesion(64)
    for seed in range(5):
        moved, moved_mask = Augmenter(pipeline)(image, mask, seed)
        np.testing.assert_array_equal(moved, image)
        np.testing.assert_array_equal(moved_mask, mask)


def test_equal_keys_give_equal_samples_and_others_do_not() -> None:
    image, mask = _lesion(96)
    before = image.copy(), mask.copy()
    augment = Augmenter(EVERY)
    first = augment(image, mask, 0, "augment", 3, 7)
    other = augment(image, mask, 0, "augment", 3, 8)
    for again in (augment, Augmenter(EVERY)):
        for one, two in zip(first, again(image, mask, 0, "augment", 3, 7), strict=True):
            np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).mean() > 0.5
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    assert (first[0].dtype, first[0].shape) == (np.uint8, image.shape)
    assert (first[1].dtype, first[1].shape) == (np.uint8, mask.shape)


SOME = [{"transform": "Blur"}, {"transform": "D4"}, {"transform": "CLAHE"}]
NEEDED = {
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 5},
    "OneOf": {"transforms": SOME},
    "OneOrOther": {"transforms": SOME[:2]},
    "RandomOrder": {"transforms": SOME, "n": 2},
    "SelectiveChannelTransform": {"transforms": SOME[:1]},
    "Sequential": {"transforms": SOME},
    "SomeOf": {"transforms": SOME, "n": 2},
}
RESIZING = ("Crop", "Resize", "MaxSize", "RandomScale", "Pad")


@pytest.mark.filterwarnings("ignore")  # some are deprecated
@pytest.mark.parametrize("name", [name for name in TRANSFORMS if not any(part in name for part in RESIZING)])
def test_every_transforms_changes_depend_on_the_keys_alone(name: str) -> None:
    """None keeps a state of its own or draws from a global one."""
    augment = Augmenter([{"transform": name, "p": 1.0, **NEEDED.get(name, {})}])
    image, mask = _lesion(64)
    first = augment(image, mask, 1)
    augment(image, mask, 2)
    for one, two in zip(first, augment(image, mask, 1), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"transform": "Warp", "flip_horizontal": 1.5}, "Warp refuses .*less than or equal to 1"),
        ({"transform": "Blur", "blur_limit": "much"}, "Blur refuses"),
        ({"transform": "OneOf", "transforms": [{"transform": "Blur", "p": "often"}]}, "Blur refuses"),
    ],
)
def test_a_wrong_value_is_refused_when_the_pipeline_is_built(entry: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=rf"(?s){said}"):
        Augmenter([entry])


def test_what_changes_the_size_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"\(64, 64, 3\) into uint8 \(32, 32, 3\)"):
        Augmenter([{"transform": "CenterCrop", "height": 32, "width": 32, "p": 1.0}])(*_lesion(64), 1)


def test_no_socket_is_opened_by_the_import() -> None:
    watch = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.__new__':\n"
        "        sys.exit(event)\n"
        "sys.addaudithook(refuse)\n"
        "import lesion_core.pixels.augment\n"
        "assert 'albumentations' in sys.modules\n"
    )
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "0"}
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_mask_does_not_change_the_image_and_colour_does_not_change_the_mask() -> None:
    image, mask = _lesion(96)
    changed, moved = Augmenter(EVERY)(image, mask, 5)
    np.testing.assert_array_equal(changed, Augmenter(EVERY)(image, np.zeros_like(mask), 5)[0])
    np.testing.assert_array_equal(moved, Augmenter([WARP])(image, mask, 5)[1])


@pytest.mark.parametrize(
    ("horizontal", "vertical", "axes"), [(1.0, 0.0, (1,)), (0.0, 1.0, (0,)), (1.0, 1.0, (0, 1)), (0.0, 0.0, ())]
)
def test_flips_are_exact_alone_and_within_the_map(horizontal: float, vertical: float, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (32, 32, 3), np.uint8), rng.integers(0, 256, (32, 32), np.uint8)
    for extra in ({}, {"elastic_alpha": 1e-9}):  # the second goes through the interpolation
        moved, moved_mask = _warp(flip_horizontal=horizontal, flip_vertical=vertical, **extra)(image, mask, 1)
        np.testing.assert_array_equal(moved, np.flip(image, axes))
        np.testing.assert_array_equal(moved_mask, np.flip(mask, axes))


ALIGNED = Augmenter([WARP])


@given(st.integers(0, 10_000))
@hypothesis_settings(max_examples=30, deadline=None)
def test_image_and_mask_stay_aligned_on_a_grid(seed: int) -> None:
    grid = np.zeros((128, 128), np.uint8)
    grid[::8] = grid[:, ::8] = 255
    grid[20:50, 70:110] = 255  # no symmetry left
    image = np.repeat(grid[..., None], 3, axis=2)
    moved, mask = ALIGNED(image, grid, seed)
    for channel in range(3):
        # OpenCV rounds one and three channels by different code: a level, never a shift.
        assert np.abs(moved[..., channel].astype(int) - mask).max() <= 1


def test_a_shifted_mask_would_be_noticed() -> None:
    grid = np.zeros((128, 128), np.uint8)
    grid[::8] = grid[:, ::8] = 255
    moved, mask = _warp(**GEOMETRY)(np.repeat(grid[..., None], 3, 2), grid, 1)
    assert np.abs(moved[..., 0].astype(int) - np.roll(mask, 1, axis=1)).max() > 100


def test_the_affine_map_equals_scipys_interpolation() -> None:
    image, mask = _lesion(80)
    image = ndimage.gaussian_filter(image, (2, 2, 0))
    changes = {**GEOMETRY, "elastic_alpha": 0.0, "flip_horizontal": 1.0}
    moved, _ = _warp(**changes)(image, mask, 11)
    matrix = Warp(**changes).source_matrix(80, 80, generator(11).random(9))
    rows, columns = np.mgrid[:80, :80]
    x, y = np.tensordot(matrix, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    for channel in range(3):
        expected = ndimage.map_coordinates(image[..., channel].astype(float), [y, x], order=1, mode="mirror")
        # OpenCV keeps 5 bits of the position's fraction.
        assert np.abs(moved[..., channel] - expected).max() < 2.5


def test_source_matrix_by_hand() -> None:
    draws = np.array([0.9, 0.9, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    quarter = Warp(rotation_degrees=90.0).source_matrix(5, 5, draws)
    np.testing.assert_allclose(quarter @ [0, 0, 1], [4, 0], atol=1e-12)  # a corner goes to the next corner
    np.testing.assert_allclose(quarter @ [2, 2, 1], [2, 2], atol=1e-12)
    draws[2], draws[7], draws[8] = 0.5, 1.0, 0.0
    shifted = Warp(translation=0.1).source_matrix(10, 20, draws)
    np.testing.assert_allclose(shifted, [[1, 0, 2], [0, 1, -1]], atol=1e-12)  # x by 10 % of 20, y by -10 % of 10


def test_elastic_displacement_is_bounded_and_scales_with_the_size() -> None:
    for size in (64, 256):
        ramp = np.repeat(np.arange(size, dtype=np.uint8)[None], size, axis=0)
        image = np.repeat(ramp[..., None], 3, axis=2)
        moved, _ = _warp(elastic_alpha=8.0)(image, ramp, 2)
        inner = slice(size // 8, -size // 8)
        shift = np.abs(moved[inner, inner, 0].astype(int) - image[inner, inner, 0])
        assert 0.2 * 8 * size / 256 < shift.max() <= 1.5 * 8 * size / 256 + 1  # bicubic may overshoot the nodes


def test_noise_has_the_spread_that_params_yaml_says_and_is_not_repeated() -> None:
    image = np.full((128, 128, 3), 128, np.uint8)
    pipeline = config.load("paper").methods["unet"].augmentation
    assert NOISE in pipeline
    augment = Augmenter([NOISE])
    noise = [augment(image, image[..., 0], key)[0].astype(float) - 128 for key in range(4)]
    for one in noise:
        assert one.mean() == pytest.approx(0, abs=0.15)
        assert one.std() == pytest.approx(4.0, rel=0.02)
        assert abs(np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]) < 0.02
        assert abs(np.corrcoef(one[..., 0].ravel(), one[..., 1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_distribution_is_that_of_a_plain_albumentations_chain() -> None:
    chain, augment = plain_chain(EVERY, 96), Augmenter(EVERY)
    image, mask = _lesion(96)
    ours, theirs = [], []
    with single_thread():
        for number in range(200):
            ours.append(_summary(*augment(image, mask, number)))
            result = chain(image=image, mask=mask)
            theirs.append(_summary(result["image"], result["mask"]))
    ours, theirs = np.array(ours), np.array(theirs)
    error = np.sqrt(ours.var(axis=0) / len(ours) + theirs.var(axis=0) / len(theirs))
    difference = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
    # Equal means within 4 standard errors, or 2 % where the elastic fields differ in detail.
    assert (difference < np.maximum(4 * error, 0.02 * np.abs(theirs.mean(axis=0)))).all(), (
        ours.mean(0),
        theirs.mean(0),
    )
    ratio = ours.std(axis=0) / theirs.std(axis=0)
    assert ((ratio > 0.7) & (ratio < 1.4)).all(), ratio


def test_the_plain_chains_elastic_field_is_as_large_and_as_smooth_as_ours() -> None:
    size, reach, lag = 256, 6.0, 16
    chain = plain_chain([{**WARP, "elastic_alpha": reach}], size)
    elastic = next(step for step in chain.transforms if type(step).__name__ == "ElasticTransform")
    columns = np.arange(size, dtype=np.float32)
    found = {}
    for name in ("ours", "theirs"):
        fields = []
        for number in range(80):
            if name == "ours":
                nodes = generator(number).random((5, 5, 2), dtype=np.float32)
                fields.append(displacement((2 * nodes - 1) * np.float32(reach), size, size)[..., 0])
            else:
                maps = elastic.get_params_dependent_on_data({"shape": (size, size, 3)}, {})
                fields.append(maps["map_x"] - columns)
        fields = np.stack(fields)[:, size // 4 : -size // 4, size // 4 : -size // 4]
        spread = (fields**2).mean()
        found[name] = (spread**0.5, (fields[..., lag:] * fields[..., :-lag]).mean() / spread)
    assert found["ours"][0] == pytest.approx(found["theirs"][0], rel=0.12)
    assert found["ours"][1] == pytest.approx(found["theirs"][1], abs=0.04)


def _summary(image: np.ndarray, mask: np.ndarray) -> list[float]:
    """Mean and spread of each channel, area and centre of the mask."""
    area = float((mask >= 128).mean())
    rows, columns = np.nonzero(mask >= 128)
    return [*image.mean(axis=(0, 1)), *image.std(axis=(0, 1)), area, rows.mean(), columns.mean()]


@pytest.mark.parametrize("workers", [2, 5])
def test_samples_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    image, mask = _lesion(64)
    augment = Augmenter(EVERY)

    def sample(row: int) -> tuple[np.ndarray, np.ndarray]:
        return augment(image, mask, 0, "augment", 1, row)

    alone = [sample(row) for row in range(30)]
    for (pixels, outline), (expected, expected_outline) in zip(
        in_threads(sample, range(30), "augmenting", workers), alone, strict=True
    ):
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(outline, expected_outline)
