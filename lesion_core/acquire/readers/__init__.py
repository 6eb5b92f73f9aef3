"""One reader per release: from an unpacked folder to typed rows."""

from __future__ import annotations

from pathlib import Path

from lesion_core import settings
from lesion_core.acquire.readers import custom as custom_reader
from lesion_core.acquire.readers import ham10000, isic2018_task3, isic2019, isic_segmentation, ph2
from lesion_core.acquire.readers.rows import Row, joining_id
from lesion_core.errors import CatalogError

READERS = {
    "isic2016": isic_segmentation.read,
    "isic2017": isic_segmentation.read,
    "isic2018_task1": isic_segmentation.read,
    "isic2018_task3": isic2018_task3.read,
    "isic2019": isic2019.read,
    "ham10000": ham10000.read,
    "ph2": ph2.read,
}
__all__ = ["READERS", "Row", "joining_id", "read_dataset"]


def read_dataset(dataset: str, folder: Path, custom: settings.Custom | None = None) -> list[Row]:
    """Rows of a dataset, sorted by image_id.

    Args:
        dataset: a name of settings.DATASETS.
        folder: where its archives were unpacked side by side; not used for ``custom``.
        custom: where the user's own dataset lies; needed for ``custom`` alone.

    Raises:
        CatalogError, MaskError: the folder does not hold what the release should.
    """
    release, _ = settings.OFFICIAL.get(dataset, (dataset, ""))
    if dataset == "custom":
        if custom is None:
            raise CatalogError("the custom dataset is not described", remedy="set data.custom")
        rows = custom_reader.read(dataset, custom)
    elif release not in READERS:
        raise CatalogError(f"no reader for {dataset!r}", remedy=f"use one of {', '.join(READERS)} or custom")
    elif not folder.is_dir():
        raise CatalogError("the dataset's folder is missing", file=folder, remedy="run the unpack stage first")
    else:
        rows = READERS[release](dataset, folder)
    if not rows:
        raise CatalogError("the dataset has no images", file=folder, remedy="download and unpack the release again")
    return sorted(rows, key=lambda row: row.image_id)
