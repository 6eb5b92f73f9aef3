"""Tiny releases on disk, laid out as the official ones: builders for the tests of readers, catalog and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TASK3_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
ISIC2019_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
PH2_HEADER = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | "
    "Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)
PH2_LEGEND = "\n\nLegends for Clinical Diagnosis: \n   0 - Common Nevus;\n   2 - Melanoma.\n"


def synthetic_image(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Different noise for every seed, uint8 (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_mask(path: Path, height: int = 24, width: int = 32) -> Path:
    values = np.zeros((height, width), np.uint8)
    values[height // 4 : height // 2, width // 4 : width // 2] = 255
    return save(path, values)


def one_hot(classes: tuple[str, ...], label: str) -> str:
    return ",".join("1.0" if name == label else "0.0" for name in classes)


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def task1(folder: Path, ids: dict[str, int]) -> Path:
    """ISIC 2018 Task 1: id -> seed of its image."""
    for image_id, seed in ids.items():
        save(folder / "ISIC2018_Task1-2_Training_Input" / f"{image_id}.png", synthetic_image(seed))
        write_mask(folder / "ISIC2018_Task1_Training_GroundTruth" / f"{image_id}_segmentation.png")
    write_text(folder / "ISIC2018_Task1-2_Training_Input" / "ATTRIBUTION.txt", "see there")
    return folder


def task3(folder: Path, rows: dict[str, tuple[int, str, str]]) -> Path:
    """ISIC 2018 Task 3: id -> (seed, lesion id, class)."""
    for image_id, (seed, _, _) in rows.items():
        save(folder / "ISIC2018_Task3_Training_Input" / f"{image_id}.png", synthetic_image(seed))
    write_text(
        folder / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv",
        ",".join(("image", *TASK3_CLASSES)),
        *(f"{image_id},{one_hot(TASK3_CLASSES, label)}" for image_id, (_, _, label) in rows.items()),
    )
    write_text(
        folder / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        *(f"{image_id},{lesion},histopathology" for image_id, (_, lesion, _) in rows.items()),
    )
    return folder


def isic2019(folder: Path, rows: dict[str, tuple[int, str, str]]) -> Path:
    """ISIC 2019: id -> (seed, lesion id or "", class)."""
    for image_id, (seed, _, _) in rows.items():
        save(folder / "ISIC_2019_Training_Input" / f"{image_id}.png", synthetic_image(seed))
    write_text(
        folder / "ISIC_2019_Training_GroundTruth.csv",
        ",".join(("image", *ISIC2019_CLASSES)),
        *(f"{image_id},{one_hot(ISIC2019_CLASSES, label)}" for image_id, (_, _, label) in rows.items()),
    )
    write_text(
        folder / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        *(f"{image_id},55.0,anterior torso,{lesion},female" for image_id, (_, lesion, _) in rows.items()),
    )
    return folder


def ham10000(folder: Path, rows: dict[str, tuple[int, str, str]], masks: bool = True) -> Path:
    """HAM10000: id -> (seed, lesion id, class)."""
    for image_id, (seed, _, _) in rows.items():
        save(folder / f"{image_id}.png", synthetic_image(seed))
        if masks:
            write_mask(folder / "HAM10000_segmentations_lesion_tschandl" / f"{image_id}_segmentation.png")
    write_text(
        folder / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        *(f"{lesion},{image_id},{label},histo,45.0,male,trunk" for image_id, (_, lesion, label) in rows.items()),
    )
    return folder


def ph2(folder: Path, rows: dict[str, tuple[int, int]]) -> Path:
    """PH2: case -> (seed, clinical diagnosis 0, 1 or 2)."""
    top = folder / "PH2Dataset"
    for case, (seed, _) in rows.items():
        save(top / "PH2 Dataset images" / case / f"{case}_Dermoscopic_Image" / f"{case}.bmp", synthetic_image(seed))
        write_mask(top / "PH2 Dataset images" / case / f"{case}_lesion" / f"{case}_lesion.bmp")
    lines = [
        f"|| {case} ||                        ||    {diagnosis} ||  0 |  T | A | A | A |  A ||   2  3 ||"
        for case, (_, diagnosis) in rows.items()
    ]
    write_text(top / "PH2_dataset.txt", PH2_HEADER, *lines, PH2_LEGEND)
    return folder
