"""The reference histogram: the appearance that all images are given (paper A, section 3.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesion_core.acquire.parallel import in_threads
from lesion_core.catalog.entries import dataset_entries, read_catalog
from lesion_core.errors import RunError, SplitError
from lesion_core.files import atomic_path
from lesion_core.pixels import histogram
from lesion_core.pixels.colour_distance import colour_frequencies, mapped, write_colour_distances
from lesion_core.pixels.harmonize import prepare_image, read_original
from lesion_core.settings import Harmonization


def reference_histogram(
    catalog: Path,
    splits_dir: Path,
    root: Path,
    out: Path,
    out_colours: Path,
    settings: Harmonization,
    *,
    workers: int | None = None,
) -> np.ndarray:
    """Make the reference: per channel, the median of the normalised histograms of all training images.

    Images are prepared at ``settings.reference_size`` as for harmonization, so that the reference depends on declared
    settings alone. One image in several datasets counts once. Beside it the
    colour distances between the datasets' training images are written, as released and as harmonized.

    Args:
        catalog: images.parquet.
        splits_dir: holds <dataset>.csv for each dataset of the catalog.
        root: paths in the catalog are relative to it.
        out: reference.npy, float64 (3, 256), rows sum to 1; written atomically.
        out_colours: colours.json, see ``colour_distance.write_colour_distances``; written atomically.
        settings: ``reference_size``, and see ``prepare_image``.
        workers: threads; None takes the processors this process may use.

    Returns:
        What was written to ``out``.

    Raises:
        SplitError: splits and catalog disagree, or there is no training image.
        ImageError: an image cannot be read.
    """
    paths: dict[str, tuple[Path, str]] = {}
    members: dict[str, list[str]] = {}
    for dataset in sorted({entry["dataset"] for entry in read_catalog(catalog)}):
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

    measured = dict(zip(paths, in_threads(measure, list(paths.values()), "reference histogram", workers), strict=True))
    reference = histogram.median_histogram(np.stack([counts for _, counts in measured.values()]))
    with atomic_path(out) as partial:
        np.save(partial, reference)
    wanted = reference if settings.histogram == "specification" else None
    write_colour_distances(
        {dataset: _profile([measured[sha] for sha in shas], wanted) for dataset, shas in members.items() if shas},
        out_colours,
    )
    return reference


def _profile(measured: list[tuple[np.ndarray, np.ndarray]], reference: np.ndarray | None) -> np.ndarray:
    """Mean colour frequencies of images before and after harmonization, float64 (2, 3, 256)."""
    total = np.zeros((2, histogram.CHANNELS, histogram.LEVELS))
    for before, counts in measured:
        after = counts / counts.sum(axis=1, keepdims=True)
        total[0] += before
        # A look-up table moves whole bins, so the harmonized histogram needs no harmonized image.
        total[1] += after if reference is None else mapped(after, histogram.specification_tables(counts, reference))
    return total / len(measured)


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
