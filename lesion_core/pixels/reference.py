"""The reference histogram, which all images are given (paper A, section 3.1), and colour distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.acquire.parallel import in_threads
from lesion_core.catalog.entries import dataset_entries, read_catalog
from lesion_core.errors import RunError, SplitError
from lesion_core.files import atomic_path, write_json
from lesion_core.pixels import histogram
from lesion_core.pixels.harmonize import prepare_image, read_original
from lesion_core.progress import say
from lesion_core.settings import Harmonization

SAMPLED_SIDE = 256  # pixels are taken in steps that leave at least so many along the shorter side
WHEN = ("before", "after")


def reference_histogram(
    catalog: Path, splits_dir: Path, root: Path, out: Path, settings: Harmonization, *, workers: int | None = None
) -> np.ndarray:
    """Make the reference: per channel, the median of the normalised histograms of training images.

    Images are those of ``settings.reference_from``, prepared at ``settings.reference_size`` as for harmonization, so
    that the reference depends on declared settings alone. One image in several datasets counts once.

    Args:
        catalog: images.parquet.
        splits_dir: holds <dataset>.csv for each dataset of the catalog.
        root: paths in the catalog are relative to it.
        out: reference.npy, float64 (3, 256), rows sum to 1; written atomically.
        settings: ``reference_from``, ``reference_size``, and see ``prepare_image``.
        workers: threads; None takes the processors this process may use.

    Returns:
        What was written to ``out``.

    Raises:
        SplitError: splits and catalog disagree, or there is no training image.
        ImageError: an image cannot be read.
    """
    measured, _ = _measured(settings.reference_from, catalog, splits_dir, root, settings, workers)
    reference = histogram.median_histogram(np.stack([counts for _, counts in measured.values()]))
    with atomic_path(out) as partial:
        np.save(partial, reference)
    return reference


def write_colours(
    catalog: Path,
    splits_dir: Path,
    root: Path,
    reference: np.ndarray | None,
    out: Path,
    settings: Harmonization,
    *,
    workers: int | None = None,
) -> None:
    """Write colours.json: distances between the datasets' training images, as released and as harmonized.

    Args as of ``reference_histogram``; ``reference`` is None where none is specified. Errors alike.
    """
    datasets = sorted({entry["dataset"] for entry in read_catalog(catalog)})
    measured, members = _measured(datasets, catalog, splits_dir, root, settings, workers)
    profiles = {name: _profile([measured[sha] for sha in shas], reference) for name, shas in members.items() if shas}
    write_json(out, colour_distances(profiles))


Measured = dict[str, tuple[np.ndarray, np.ndarray]]


def _measured(
    datasets: Sequence[str], catalog: Path, splits_dir: Path, root: Path, settings: Harmonization, workers: int | None
) -> tuple[Measured, dict[str, list[str]]]:
    """SHA-256 of each training image -> colours as released, counts as prepared; and the images of each dataset."""
    paths: dict[str, tuple[Path, str]] = {}
    members: dict[str, list[str]] = {}
    for dataset in sorted(datasets):
        training = [entry for entry in dataset_entries(dataset, catalog, splits_dir) if entry["split"] == "train"]
        members[dataset] = [entry["sha256"] for entry in training]
        for entry in training:
            paths.setdefault(entry["sha256"], (root / entry["path"], dataset))
    if not paths:
        raise SplitError("no training image, so no reference histogram", file=splits_dir)
    size = settings.reference_size

    def measure(place: tuple[Path, str]) -> tuple[np.ndarray, np.ndarray]:
        path, dataset = place
        original = read_original(path, size, settings)
        counts = histogram.channel_histograms(prepare_image(original, size, settings, [dataset]))
        return colour_frequencies(original).astype(np.float32), counts.astype(np.int32)

    found = in_threads(measure, list(paths.values()), "histograms", workers)
    return dict(zip(paths, found, strict=True)), members


def _profile(measured: list[tuple[np.ndarray, np.ndarray]], reference: np.ndarray | None) -> np.ndarray:
    """Mean colour frequencies of images before and after harmonization, float64 (2, 3, 256)."""
    total = np.zeros((2, histogram.CHANNELS, histogram.LEVELS))
    for before, counts in measured:
        after = counts / counts.sum(axis=1, keepdims=True)
        total[0] += before
        # A look-up table moves whole bins, so the harmonized histogram needs no harmonized image.
        total[1] += after if reference is None else mapped(after, histogram.specification_tables(counts, reference))
    return total / len(measured)


def colour_frequencies(image: np.ndarray) -> np.ndarray:
    """Share of each level in each channel, from a regular grid of pixels.

    Args:
        image: uint8 (H, W, 3) RGB.

    Returns:
        float64 (3, 256); rows sum to 1.
    """
    step = max(1, min(image.shape[:2]) // SAMPLED_SIDE)
    counts = histogram.channel_histograms(np.ascontiguousarray(image[::step, ::step]))
    return counts / counts.sum(axis=1, keepdims=True)


def mapped(frequencies: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Frequencies after each level was looked up in its table.

    Args:
        frequencies: float (3, 256).
        tables: uint8 (3, 256), as ``histogram.specification_tables`` gives them.

    Returns:
        float64 (3, 256) with the same sums.
    """
    pairs = zip(tables, frequencies, strict=True)
    return np.stack([np.bincount(table, weights=row, minlength=histogram.LEVELS) for table, row in pairs])


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two colour distributions, mean over the channels, in grey levels.

    Per channel it is the mean amount by which levels must be moved to make one distribution the other.

    Args:
        first: float (3, 256); rows sum to 1.
        second: the same.
    """
    return float(np.abs(np.cumsum(first - second, axis=1)).sum(axis=1).mean())


def colour_distances(profiles: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compare all pairs of datasets.

    Args:
        profiles: dataset -> float64 (2, 3, 256), mean colour frequencies of its images before and after.

    Returns:
        unit; pairs: one {first, second, before, after} per pair, sorted, in grey levels; mean: {before, after}, None
        without a pair; profiles, rounded to 1e-6.
    """
    pairs: list[dict[str, Any]] = []
    for first, second in combinations(sorted(profiles), 2):
        apart = {when: distance(profiles[first][k], profiles[second][k]) for k, when in enumerate(WHEN)}
        say(f"colour distance {first} - {second}: {apart['before']:.2f} -> {apart['after']:.2f} grey levels")
        pairs.append({"first": first, "second": second, **{when: round(apart[when], 4) for when in WHEN}})
    return {
        "unit": "grey levels (Wasserstein-1, mean over red, green and blue)",
        "pairs": pairs,
        "mean": {when: round(float(np.mean([pair[when] for pair in pairs])), 4) if pairs else None for when in WHEN},
        "profiles": {
            name: {when: np.round(profile[k], 6).tolist() for k, when in enumerate(WHEN)}
            for name, profile in sorted(profiles.items())
        },
    }


def read_reference(path: Path) -> np.ndarray:
    """Read reference.npy: float64 (3, 256), rows sum to 1.

    Raises:
        RunError: the file is missing or holds something else.
    """
    try:
        reference = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        remedy = "run the harmonization first, or again"
        raise RunError(f"the reference histogram cannot be read ({error})", file=path, remedy=remedy) from error
    if reference.shape != (3, histogram.LEVELS) or not np.allclose(reference.sum(axis=1), 1.0):
        raise RunError("expected a (3, 256) histogram whose rows sum to 1", file=path, remedy="make it again")
    return reference
