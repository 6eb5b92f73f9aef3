"""ISIC 2016 and 2017 Part 1 and ISIC 2018 Task 1: images and lesion masks, no labels."""

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
    require_masks_of_images,
    require_same_ids,
)
from lesion_core.errors import CatalogError, MaskError
from lesion_core.settings import OFFICIAL

MASK_ENDING = "_segmentation"
SUPERPIXELS = "_superpixels"  # ISIC 2017 keeps a superpixel map beside each image

# dataset -> (part, images, masks, table of ages and sexes if there is one), one line per part of the release
PARTS: dict[str, tuple[tuple[str, str, str, str | None], ...]] = {
    "isic2016": (
        ("training", "ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth", None),
        ("test", "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", None),
    ),
    "isic2017": (
        (
            "training",
            "ISIC-2017_Training_Data",
            "ISIC-2017_Training_Part1_GroundTruth",
            "ISIC-2017_Training_Data_metadata.csv",
        ),
        (
            "validation",
            "ISIC-2017_Validation_Data",
            "ISIC-2017_Validation_Part1_GroundTruth",
            "ISIC-2017_Validation_Data_metadata.csv",
        ),
        (
            "test",
            "ISIC-2017_Test_v2_Data",
            "ISIC-2017_Test_v2_Part1_GroundTruth",
            "ISIC-2017_Test_v2_Data_metadata.csv",
        ),
    ),
    "isic2018_task1": (
        ("training", "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", None),
        ("validation", "ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", None),
        ("test", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", None),
    ),
}
LICENCES = {"isic2016": "CC0 1.0", "isic2017": "CC0 1.0", "isic2018_task1": "CC BY-NC 4.0"}


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of all parts that were unpacked, of which the training part must be there; or of an official part alone.

    Raises:
        CatalogError: the part that must be there is not, an id in two parts, or a metadata table that does not fit.
        MaskError: a mask without its image or an image without its mask.
    """
    rows: dict[str, Row] = {}
    whole, own = OFFICIAL.get(dataset, (dataset, ""))
    parts = [part for part in PARTS[whole] if part[0] == own or not own]
    if not (folder / parts[0][1]).is_dir():
        raise CatalogError(
            f"the folder {parts[0][1]} is missing", file=folder, remedy="download and unpack the release again"
        )
    for part, images_name, masks_name, table_name in parts:
        images_folder, masks_folder = folder / images_name, folder / masks_name
        if not images_folder.is_dir() and not masks_folder.is_dir():
            continue
        for row in _read_part(dataset, LICENCES[whole], part, images_folder, masks_folder, table_name):
            if row.image_id in rows:
                raise CatalogError(
                    "an image stands in two parts of the release",
                    file=images_folder,
                    ids=[row.image_id],
                    remedy="download and unpack the release again",
                )
            rows[row.image_id] = row
    return list(rows.values())


def _read_part(
    dataset: str, licence: str, part: str, images_folder: Path, masks_folder: Path, table_name: str | None
) -> list[Row]:
    for needed in (images_folder, masks_folder):
        if not needed.is_dir():
            raise MaskError(
                "a part has images without masks or masks without images",
                file=needed,
                remedy="download and unpack both archives of the part",
            )
    images = {
        image_id: path for image_id, path in files_by_id(images_folder).items() if not image_id.endswith(SUPERPIXELS)
    }
    masks = files_by_id(masks_folder, MASK_ENDING, MaskError)
    require_images_of_masks(masks, images, masks_folder)
    require_masks_of_images(images, masks, masks_folder)
    ages: dict[str, float | None] = {}
    sexes: dict[str, str | None] = {}
    if table_name is not None and (images_folder / table_name).is_file():
        table_path = one_path(images_folder, table_name)
        table = read_table(table_path, ["image_id", "age_approximate", "sex"], key="image_id")
        require_same_ids(images, table, images_folder, table_path)
        for image_id, cells in table.items():
            ages[image_id] = parse_age(cells["age_approximate"], image_id, table_path)
            sexes[image_id] = parse_sex(cells["sex"], image_id, table_path)
    return [
        Row(
            dataset=dataset,
            image_id=image_id,
            path=path,
            licence=licence,
            age=ages.get(image_id),
            sex=sexes.get(image_id),
            mask_path=masks[image_id],
            part=part,
        )
        for image_id, path in sorted(images.items())
    ]
