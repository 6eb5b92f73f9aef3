"""A user's own dataset: a folder of images, a CSV, and optionally a folder of masks.

The CSV has a column ``image_id`` (the file's name without its suffix) and any of ``lesion_id``, ``label``, ``age``,
``sex``, ``site``. Images that must not be parted (of one lesion, or of one patient) share a ``lesion_id``.
The ``metadata.csv`` of an isic-cli download (its column ``isic_id``) is read too: diagnoses that are one of the seven
classes are labels, images of one lesion, or where none is told of one patient, stay together.
A mask is called like its image, or like its image with ``_segmentation``, ``_lesion`` or ``_mask`` behind it.
"""

from __future__ import annotations

import csv
from pathlib import Path

from lesion_core.acquire.readers.rows import (
    Row,
    files_by_id,
    header_of,
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
ISIC_CLI = "isic_id"  # the first column of isic-cli's metadata.csv
# How the ISIC Archive's diagnoses of the seven classes begin; an invasive squamous cell carcinoma is none of them.
DIAGNOSES = {
    "akiec": ("actinic keratosis", "solar or actinic keratosis", "squamous cell carcinoma in situ"),
    "bcc": ("basal cell carcinoma",),
    "bkl": ("pigmented benign keratosis", "seborrheic keratosis", "solar lentigo", "lichen"),
    "df": ("dermatofibroma",),
    "mel": ("melanoma",),
    "nv": ("nevus",),
    "vasc": ("vascular lesion", "hemangioma", "angiokeratoma", "angioma", "pyogenic granuloma"),
}
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
    isic = _is_of_isic_cli(table_path)
    table = _isic_table(table_path) if isic else read_table(table_path, ["image_id"], OPTIONAL, key="image_id")
    require_same_ids(images, table, images_folder, table_path)
    masks = {} if masks_folder is None else _masks(masks_folder)
    if masks_folder is not None:
        require_images_of_masks(masks, images, masks_folder)
    rows = []
    for image_id, path in sorted(images.items()):
        cells = {name: table[image_id].get(name, "") for name in OPTIONAL}
        label = text_or_none(cells["label"])
        other = table[image_id].get("diagnosis")
        notes = (("no_class", f"{other} is none of the seven classes"),) if other and label is None else ()
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
                licence=table[image_id].get("copyright_license") or custom.licence,
                lesion_id=text_or_none(cells["lesion_id"]),
                label=None if label is None else label.lower(),
                age=parse_age(cells["age"], image_id, table_path),
                sex=parse_sex(cells["sex"], image_id, table_path),
                site=text_or_none(cells["site"]),
                mask_path=masks.get(image_id),
                notes=notes,
            )
        )
    return rows


def _is_of_isic_cli(path: Path) -> bool:
    """What cannot be read is not: reading it as ours tells why."""
    try:
        return ISIC_CLI in header_of(path)
    except (OSError, ValueError, csv.Error):
        return False


def _isic_table(path: Path) -> dict[str, dict[str, str]]:
    """isic-cli's table as ours, and the ``diagnosis`` and ``copyright_license`` of each image."""
    found = {}
    for image_id, cells in read_table(path, [ISIC_CLI], header_of(path), key=ISIC_CLI).items():
        levels = [cells.get(name, "") for name in ("diagnosis", *(f"diagnosis_{level}" for level in (5, 4, 3, 2, 1)))]
        known = (name for text in levels for name, begins in DIAGNOSES.items() if text.lower().startswith(begins))
        found[image_id] = {
            "lesion_id": cells.get("lesion_id") or cells.get("patient_id", ""),
            "label": next(known, ""),
            "age": cells.get("age_approx", ""),
            "sex": cells.get("sex", ""),
            "site": cells.get("anatom_site_general", ""),
            "diagnosis": next(filter(None, levels), ""),
            "copyright_license": cells.get("copyright_license", ""),
        }
    return found


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in list_files(folder):
        ending = next((ending for ending in MASK_ENDINGS if path.stem.lower().endswith(ending)), "")
        image_id = path.stem[: len(path.stem) - len(ending)]
        if image_id in masks:
            raise MaskError("an image has two masks", file=folder, ids=[image_id], remedy="keep one of them")
        masks[image_id] = path
    return masks
