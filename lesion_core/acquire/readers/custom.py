"""A user's own dataset: a folder of images, a CSV, and optionally a folder of masks.

The CSV has a column ``image_id`` (the file's name without its suffix) and any of ``lesion_id``, ``label``, ``age``,
``sex``, ``site``. Images that must not be parted (of one lesion, or of one patient) share a ``lesion_id``.
A mask is called like its image, or like its image with ``_segmentation``, ``_lesion`` or ``_mask`` behind it.
"""

from __future__ import annotations

from pathlib import Path

from lesion_core.acquire.readers.rows import (
    Row,
    files_by_id,
    list_files,
    parse_age,
    parse_sex,
    read_table,
    require_images_of_masks,
    require_same_ids,
    text_or_none,
)
from lesion_core.errors import CatalogError, MaskError
from lesion_core.settings import CLASSES, Custom

OPTIONAL = ("lesion_id", "label", "age", "sex", "site")
MASK_ENDINGS = ("_segmentation", "_lesion", "_mask")


def read(dataset: str, custom: Custom) -> list[Row]:
    """Rows of a user's dataset; ``custom`` names its folders and its table.

    Raises:
        CatalogError: a folder or the table is missing, a column or class is unknown, ids do not match.
        MaskError: a mask without its image, or two masks of one image.
    """
    images_folder, table_path = Path(custom.images).expanduser(), Path(custom.csv).expanduser()
    masks_folder = None if custom.masks is None else Path(custom.masks).expanduser()
    for needed in (images_folder, masks_folder):
        if needed is not None and not needed.is_dir():
            raise CatalogError("there is no such folder", file=needed, remedy="correct data.custom")
    images = files_by_id(images_folder)
    table = read_table(table_path, ["image_id"], OPTIONAL, key="image_id")
    require_same_ids(images, table, images_folder, table_path)
    masks = {} if masks_folder is None else _masks(masks_folder)
    if masks_folder is not None:
        require_images_of_masks(masks, images, masks_folder)
    rows = []
    for image_id, path in sorted(images.items()):
        cells = {name: table[image_id].get(name, "") for name in OPTIONAL}
        label = text_or_none(cells["label"])
        if label is not None and label.lower() not in CLASSES:
            raise CatalogError(
                f"{label!r} is none of the seven classes",
                file=table_path,
                ids=[image_id],
                remedy=f"label must be empty or one of {', '.join(CLASSES)}",
            )
        rows.append(
            Row(
                dataset=dataset,
                image_id=image_id,
                path=path,
                licence=custom.licence,
                lesion_id=text_or_none(cells["lesion_id"]),
                label=None if label is None else label.lower(),
                age=parse_age(cells["age"], image_id, table_path),
                sex=parse_sex(cells["sex"], image_id, table_path),
                site=text_or_none(cells["site"]),
                mask_path=masks.get(image_id),
            )
        )
    return rows


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in list_files(folder):
        ending = next((ending for ending in MASK_ENDINGS if path.stem.lower().endswith(ending)), "")
        image_id = path.stem[: len(path.stem) - len(ending)]
        if image_id in masks:
            raise MaskError("an image has two masks", file=folder, ids=[image_id], remedy="keep one of them")
        masks[image_id] = path
    return masks
