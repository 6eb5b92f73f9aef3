"""Histogram specification: parity with scikit-image, hand-worked tables, the median reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import match_histograms

from lesion_core.pixels import histogram


def _image(seed: int, height: int, width: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3)).astype(np.uint8)


@given(
    seed=st.integers(0, 10_000),
    source=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 200), st.integers(1, 56)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 200), st.integers(1, 56)),
)
@settings(max_examples=60, deadline=None)
def test_bit_identical_to_scikit_image(seed: int, source: tuple, target: tuple) -> None:
    image = _image(seed, source[0], source[1], source[2], source[2] + source[3])
    template = _image(seed + 1, target[0], target[1], target[2], target[2] + target[3])
    expected = match_histograms(image, template, channel_axis=-1)
    np.testing.assert_array_equal(histogram.specify_histogram(image, histogram.channel_histograms(template)), expected)


@given(seed=st.integers(0, 10_000), height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_own_normalised_histogram_is_the_identity(seed: int, height: int, width: int) -> None:
    image = _image(seed, height, width, 0, 256)
    counts = histogram.channel_histograms(image)
    np.testing.assert_array_equal(histogram.specify_histogram(image, counts / counts.sum(axis=1, keepdims=True)), image)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_normalised_reference_agrees_with_counts(seed: int) -> None:
    image, template = _image(seed, 33, 21, 0, 256), _image(seed + 1, 40, 50, 30, 220)
    counts = histogram.channel_histograms(template)
    exact = histogram.specify_histogram(image, counts).astype(int)
    normalised = histogram.specify_histogram(image, counts / counts.sum(axis=1, keepdims=True)).astype(int)
    # Only a value within 1e-6 of a whole number may differ, and only upwards.
    assert set(np.unique(normalised - exact)) <= {0, 1}
    assert np.mean(normalised != exact) < 0.05


def test_table_worked_by_hand() -> None:
    source = np.zeros((3, 256), np.int64)
    source[:, [10, 20, 30]] = [1, 1, 2]  # quantiles 1/4, 2/4, 4/4
    reference = np.zeros((3, 256))
    reference[:, [100, 200]] = [0.5, 0.5]  # reaches 1/2 at 100 and 1 at 200
    tables = histogram.specification_tables(source, reference)
    # 1/4 is below the first step: held at 100; 2/4 is the step at 100; 1 is 200.
    assert tables[0, [10, 20, 30]].tolist() == [100, 100, 200]
    source[:, 30], source[:, 40] = 1, 1  # quantiles 1/4, 2/4, 3/4, 1
    assert histogram.specification_tables(source, reference)[1, [10, 20, 30, 40]].tolist() == [100, 100, 150, 200]


def test_tables_rise_and_channels_are_independent() -> None:
    image, template = _image(1, 50, 40, 0, 256), _image(2, 60, 60, 40, 180)
    reference = histogram.channel_histograms(template)
    tables = histogram.specification_tables(histogram.channel_histograms(image), reference)
    assert (np.diff(tables.astype(int), axis=1) >= 0).all()
    other = image.copy()
    other[..., 0] = 7
    changed = histogram.specify_histogram(other, reference)
    np.testing.assert_array_equal(changed[..., 1:], histogram.specify_histogram(image, reference)[..., 1:])


def test_counts_equal_bincount_also_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image(3, 37, 23, 0, 256)
    expected = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    np.testing.assert_array_equal(histogram.channel_histograms(image), expected)
    monkeypatch.setattr(histogram, "EXACT_PIXELS", 100)
    np.testing.assert_array_equal(histogram.channel_histograms(image), expected)
    np.testing.assert_array_equal(histogram.channel_histograms(image[:, ::-1]), expected)


def test_median_histogram_by_hand() -> None:
    counts = np.zeros((3, 3, 256), np.int64)
    counts[0, :, [5, 6]] = 1  # frequencies 1/2, 1/2
    counts[1, :, [6, 7]] = [[3], [1]]  # 3/4, 1/4
    counts[2, :, 6] = 10  # 1
    # medians: level 5: 0 (of 1/2, 0, 0); level 6: 3/4 (of 1/2, 3/4, 1); level 7: 0 -> renormalised to 1 at level 6
    reference = histogram.median_histogram(counts)
    assert reference.dtype == np.float64
    assert reference[:, 6].tolist() == [1.0, 1.0, 1.0]
    even = histogram.median_histogram(counts[:2])  # means of the two: 1/4, 5/8, 1/8, which sum to 1
    np.testing.assert_allclose(even[0, 5:8], [1 / 4, 5 / 8, 1 / 8])
    np.testing.assert_allclose(even.sum(axis=1), 1.0)


def test_an_image_size_does_not_weigh() -> None:
    small, large = np.zeros((1, 3, 256), np.int64), np.zeros((1, 3, 256), np.int64)
    small[:, :, 10], large[:, :, 20] = 1, 1000
    reference = histogram.median_histogram(np.concatenate([small, large]))
    assert reference[0, 10] == reference[0, 20] == 0.5


@pytest.mark.parametrize(
    "reference",
    [np.zeros((3, 256)), np.full((3, 256), np.nan), -np.ones((3, 256)), np.ones((3, 255)), np.ones((256, 3))],
)
def test_impossible_references_are_refused(reference: np.ndarray) -> None:
    with pytest.raises(ValueError, match="histogram"):
        histogram.specification_tables(np.ones((3, 256), np.int64), reference)


def test_impossible_sources_and_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        histogram.specification_tables(np.zeros((3, 256), np.int64), np.ones((3, 256)))
    with pytest.raises(ValueError, match="N >= 1"):
        histogram.median_histogram(np.zeros((0, 3, 256), np.int64))
    with pytest.raises(ValueError, match="without pixels"):
        histogram.median_histogram(np.zeros((2, 3, 256), np.int64))
    disjoint = np.eye(3, 256, dtype=np.int64)[:, None, :].repeat(3, axis=1)
    with pytest.raises(ValueError, match="median histogram is empty"):
        histogram.median_histogram(disjoint)
