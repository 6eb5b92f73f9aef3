"""ISIC 2018 Task 3: images, one-hot labels, lesion groupings of the training set, which is HAM10000."""

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
from lesion_core.settings import OFFICIAL

GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"
CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
LICENCE = "CC BY-NC 4.0"
WEIGHT_0 = "ISIC_0035068"  # isic-challenge-scoring gives this test image no weight


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of the training set, with lesion ids; or of an official part.

    ``ISIC_0035068`` gets no label, so that no score counts it.

    Raises:
        CatalogError: images, labels and groupings do not name the same ids, or a table is not as released.
    """
    _, part = OFFICIAL.get(dataset, (dataset, "training"))
    name = f"ISIC2018_Task3_{part.capitalize()}"
    images_folder = one_path(folder, f"{name}_Input")
    images = files_by_id(images_folder)
    labels_path = one_path(folder, f"{name}_GroundTruth.csv")
    table = read_table(labels_path, ["image", *CLASSES], key="image")
    require_same_ids(images, table, images_folder, labels_path)
    labels = one_hot_labels(table, CLASSES, labels_path)
    groupings: dict[str, dict[str, str]] = {}
    if part == "training":
        groupings_path = one_path(folder, GROUPINGS)
        groupings = read_table(groupings_path, ["image", "lesion_id", "diagnosis_confirm_type"], key="image")
        require_same_ids(images, groupings, images_folder, groupings_path)
    rows = []
    for image_id, path in sorted(images.items()):
        cells = groupings.get(image_id, {})
        rows.append(
            Row(
                dataset=dataset,
                image_id=image_id,
                path=path,
                licence=LICENCE,
                lesion_id=cells.get("lesion_id") or None,
                label=None if image_id == WEIGHT_0 else labels[image_id].lower(),
                dx_type=text_or_none(cells.get("diagnosis_confirm_type", "")),
                part=None if part == "training" else part,
                notes=(("no_weight", "the challenge gives it weight 0"),) if image_id == WEIGHT_0 else (),
            )
        )
    return rows
