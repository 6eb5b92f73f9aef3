"""ISIC 2018 Task 3: images, one-hot labels, lesion groupings. Its training set is HAM10000."""

from __future__ import annotations

from pathlib import Path

from lesion_core.acquire.readers.rows import (
    Row,
    files_by_id,
    one_hot_labels,
    one_path,
    read_table,
    require_same_ids,
    text_or_none,
)

IMAGES = "ISIC2018_Task3_Training_Input"
LABELS = "ISIC2018_Task3_Training_GroundTruth.csv"
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
LICENCE = "CC BY-NC 4.0"


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of the training set, with lesion ids.

    Raises:
        CatalogError: images, labels and groupings do not name the same ids, or a table is not as released.
    """
    images_folder = one_path(folder, IMAGES)
    images = files_by_id(images_folder)
    labels_path = one_path(folder, LABELS)
    table = read_table(labels_path, ["image", *CLASSES], key="image")
    require_same_ids(images, table, images_folder, labels_path)
    labels = one_hot_labels(table, CLASSES, labels_path)
    groupings_path = one_path(folder, GROUPINGS)
    groupings = read_table(groupings_path, ["image", "lesion_id", "diagnosis_confirm_type"], key="image")
    require_same_ids(images, groupings, images_folder, groupings_path)
    return [
        Row(
            dataset=dataset,
            image_id=image_id,
            path=path,
            licence=LICENCE,
            lesion_id=groupings[image_id]["lesion_id"] or None,
            label=labels[image_id].lower(),
            dx_type=text_or_none(groupings[image_id]["diagnosis_confirm_type"]),
        )
        for image_id, path in sorted(images.items())
    ]
