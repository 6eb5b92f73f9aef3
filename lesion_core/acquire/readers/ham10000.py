"""HAM10000: images, metadata with lesion ids, and the masks that P. Tschandl published later."""

from __future__ import annotations

from pathlib import Path

from lesion_core.acquire.readers.rows import (
    Row,
    files_by_id,
    one_path,
    parse_age,
    parse_sex,
    read_table,
    require_images_of_masks,
    require_same_ids,
    text_or_none,
)
from lesion_core.errors import CatalogError, MaskError
from lesion_core.settings import CLASSES

METADATA = "HAM10000_metadata.csv"
MASKS = "HAM10000_segmentations_lesion_tschandl"
MASK_ENDING = "_segmentation"
IMAGE_FOLDERS = ("", "HAM10000_images_part_1", "HAM10000_images_part_2")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
SOURCE = "dataset"  # a column of version 4: which clinic and camera
LICENCE = "CC BY-NC 4.0"


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of all images; ``mask_path`` where a mask is published.

    Raises:
        CatalogError: images and metadata do not name the same ids, or a row is not as released.
        MaskError: a mask without its image.
    """
    images: dict[str, Path] = {}
    for name in IMAGE_FOLDERS:
        if not (folder / name).is_dir():
            continue
        found = files_by_id(folder / name)
        twice = sorted(images.keys() & found.keys())
        if twice:
            raise CatalogError("images that lie in two folders", file=folder, ids=twice, remedy="keep one")
        images.update(found)
    metadata_path = one_path(folder, METADATA)
    metadata = read_table(metadata_path, COLUMNS, [SOURCE], key="image_id")
    require_same_ids(images, metadata, folder, metadata_path)
    unknown = [image_id for image_id, cells in metadata.items() if cells["dx"].lower() not in CLASSES]
    if unknown:
        raise CatalogError(
            "diagnoses that are none of the seven classes",
            file=metadata_path,
            ids=unknown,
            remedy=f"dx must be one of {', '.join(CLASSES)}",
        )
    homeless = [image_id for image_id, cells in metadata.items() if not cells["lesion_id"]]
    if homeless:
        raise CatalogError("rows without a lesion_id", file=metadata_path, ids=homeless, remedy="add the lesion ids")
    masks: dict[str, Path] = {}
    if (folder / MASKS).is_dir():
        masks = files_by_id(folder / MASKS, MASK_ENDING, MaskError)
        require_images_of_masks(masks, images, folder / MASKS)
    return [
        Row(
            dataset=dataset,
            image_id=image_id,
            path=path,
            licence=LICENCE,
            lesion_id=metadata[image_id]["lesion_id"],
            label=metadata[image_id]["dx"].lower(),
            age=parse_age(metadata[image_id]["age"], image_id, metadata_path),
            sex=parse_sex(metadata[image_id]["sex"], image_id, metadata_path),
            site=text_or_none(metadata[image_id]["localization"]),
            dx_type=text_or_none(metadata[image_id]["dx_type"]),
            mask_path=masks.get(image_id),
        )
        for image_id, path in sorted(images.items())
    ]
