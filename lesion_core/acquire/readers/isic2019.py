"""ISIC 2019: images, one-hot labels of nine classes, metadata with lesion ids where known."""

from __future__ import annotations

from pathlib import Path

from lesion_core.acquire.readers.rows import (
    Row,
    files_by_id,
    one_hot_labels,
    one_path,
    parse_age,
    parse_sex,
    read_table,
    require_same_ids,
    text_or_none,
)

IMAGES = "ISIC_2019_Training_Input"
LABELS = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
COLUMNS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
# Actinic keratosis is half of HAM10000's akiec. Invasive squamous cell carcinoma and "unknown" are none of
# the seven classes: these images stay in the catalog, for grouping, without a label.
CLASS_OF = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AK": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
    "SCC": None,
    "UNK": None,
}
LICENCE = "CC BY-NC 4.0"


def read(dataset: str, folder: Path) -> list[Row]:
    """Rows of the training set.

    Raises:
        CatalogError: images, labels and metadata do not name the same ids, or a table is not as released.
    """
    images_folder = one_path(folder, IMAGES)
    images = files_by_id(images_folder)
    labels_path, metadata_path = one_path(folder, LABELS), one_path(folder, METADATA)
    table = read_table(labels_path, ["image", *COLUMNS], key="image")
    require_same_ids(images, table, images_folder, labels_path)
    labels = one_hot_labels(table, COLUMNS, labels_path)
    metadata = read_table(
        metadata_path, ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"], key="image"
    )
    require_same_ids(images, metadata, images_folder, metadata_path)
    rows = []
    for image_id, path in sorted(images.items()):
        cells = metadata[image_id]
        label = CLASS_OF[labels[image_id]]
        notes = () if label else (("no_class", f"{labels[image_id]} is none of the seven classes"),)
        rows.append(
            Row(
                dataset=dataset,
                image_id=image_id,
                path=path,
                licence=LICENCE,
                lesion_id=text_or_none(cells["lesion_id"]),
                label=label,
                age=parse_age(cells["age_approx"], image_id, metadata_path),
                sex=parse_sex(cells["sex"], image_id, metadata_path),
                site=text_or_none(cells["anatom_site_general"]),
                notes=notes,
            )
        )
    return rows
