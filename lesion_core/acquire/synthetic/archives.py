"""A made mirror: the official archives' names and inner layouts, filled with synthetic images."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from lesion_core import settings
from lesion_core.acquire.images import encode_image
from lesion_core.acquire.synthetic import ph2
from lesion_core.acquire.synthetic.cohort import Shot, make_cohort
from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.files import atomic_path, sha256_file, write_bytes, write_text
from lesion_core.progress import track
from lesion_core.seeding import generator

JPEG_QUALITY = 92
ZIP_DATE = (2018, 1, 1, 0, 0, 0)
TASK3_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
CONFIRM_TEXT = {
    "histo": "histopathology",
    "follow_up": "serial imaging showing no change",
    "consensus": "single image expert consensus",
    "confocal": "confocal microscopy with consensus dermoscopy",
}
ATTRIBUTION = b"Made by lesion_core.acquire.synthetic: no image of a person.\n"
LICENSE = b"CC0 1.0: these synthetic images are dedicated to the public domain.\n"

Members = list[tuple[str, bytes]]
Pictures = Mapping[str, tuple[bytes, bytes]]


def write_mirror(settings: settings.Synthetic, out: Path) -> None:
    """Write HAM10000, ISIC 2018 Task 1 and Task 3, and PH2 archives of synthetic images into ``out``.

    The same settings give the same bytes. Each file is written atomically; SHA256SUMS comes last and covers
    all others, so its presence says that the mirror is whole.

    Raises:
        SettingsError: more images are asked for than there are ids.
    """
    out = Path(out)
    cohort = make_cohort(settings)
    shots = {shot.image_id: shot for shot in (*cohort.ham, *cohort.task1, *cohort.task1_test, *cohort.task3_test)}
    pictures: dict[str, tuple[bytes, bytes]] = {}
    for image_id in track(sorted(shots), "making images"):
        pictures[image_id] = _encode(settings, shots[image_id])

    written = [
        *_write_ham(out, cohort.ham, pictures),
        *_write_task1(out, "Training", cohort.task1, pictures),
        *_write_task3(out, "Training", cohort.task3, pictures),
        *_write_groupings(out, cohort.task3),
        *(_write_task1(out, "Test", cohort.task1_test, pictures) if cohort.task1_test else ()),
        *(_write_task3(out, "Test", cohort.task3_test, pictures) if cohort.task3_test else ()),
        _write_ph2(out, settings),
    ]
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in sorted(written))
    write_text(out / "SHA256SUMS", sums)


def _encode(chosen: settings.Synthetic, shot: Shot) -> tuple[bytes, bytes]:
    """JPEG bytes and mask PNG bytes (0 and 255) of one image."""
    rng = generator(chosen.seed, "photograph", shot.number)
    image, mask = synthetic_image(shot.case.lesion, rng, _size(rng, chosen.size))
    jpeg = encode_image(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    return jpeg, encode_image(mask.astype(np.uint8) * 255, ".png", cv2.IMWRITE_PNG_COMPRESSION, 6)


def _size(rng: np.random.Generator, side: int) -> tuple[int, int]:
    """Height and width: mostly 4:3 like HAM10000's 600 x 450, some 3:2 or square, of three scales."""
    aspect = (0.75, 0.75, 0.75, 2 / 3, 1.0)[rng.integers(5)]
    width = round(side * (1.0, 1.0, 0.85, 1.2)[rng.integers(4)])
    return round(width * aspect), width


def _write_ham(out: Path, shots: Sequence[Shot], pictures: Pictures) -> list[Path]:
    half = (len(shots) + 1) // 2
    paths = []
    for part, chosen in ((1, shots[:half]), (2, shots[half:])):
        members = [(f"{shot.image_id}.jpg", pictures[shot.image_id][0]) for shot in chosen]
        paths.append(_write_zip(out / f"HAM10000_images_part_{part}.zip", members))
    paths.append(_write_zip(*_masks(out, "HAM10000_segmentations_lesion_tschandl", shots, pictures)))
    rows = [
        (
            shot.case.lesion_id,
            shot.image_id,
            shot.case.lesion.label,
            shot.case.dx_type,
            shot.case.age,
            shot.case.sex,
            shot.case.site,
        )
        for shot in shots
    ]
    header = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
    metadata = out / "HAM10000_metadata.csv"
    write_bytes(metadata, _csv_bytes(header, rows))
    return [*paths, metadata]


def _write_task1(out: Path, part: str, shots: Sequence[Shot], pictures: Pictures) -> list[Path]:
    inputs = _images(out, f"ISIC2018_Task1-2_{part}_Input", shots, pictures)
    path, members = _masks(out, f"ISIC2018_Task1_{part}_GroundTruth", shots, pictures)
    return [_write_zip(*inputs), _write_zip(path, members + _terms(path.stem))]


def _write_task3(out: Path, part: str, shots: Sequence[Shot], pictures: Pictures) -> list[Path]:
    name = f"ISIC2018_Task3_{part}_GroundTruth"
    rows = [
        (shot.image_id, *("1.0" if shot.case.lesion.label.upper() == column else "0.0" for column in TASK3_COLUMNS))
        for shot in shots
    ]
    truth = [(f"{name}/{name}.csv", _csv_bytes(("image", *TASK3_COLUMNS), rows)), *_terms(name)]
    images = _images(out, f"ISIC2018_Task3_{part}_Input", shots, pictures)
    return [_write_zip(*images), _write_zip(out / f"{name}.zip", truth)]


def _write_groupings(out: Path, shots: Sequence[Shot]) -> list[Path]:
    groups = out / "ISIC2018_Task3_Training_LesionGroupings.csv"
    confirmed = [(shot.image_id, shot.case.lesion_id, CONFIRM_TEXT[shot.case.dx_type]) for shot in shots]
    write_bytes(groups, _csv_bytes(("image", "lesion_id", "diagnosis_confirm_type"), confirmed))
    return [groups]


def _write_ph2(out: Path, chosen: settings.Synthetic) -> Path:
    cases = ph2.make_cases(chosen.seed, chosen.ph2)
    folder = "PH2Dataset/PH2 Dataset images"
    members: Members = []
    first = min(case.name for case in cases)
    for case in track(cases, "making PH2"):
        image, mask = ph2.draw_case(chosen.seed, case, chosen.size)
        name = case.name
        members.append((f"{folder}/{name}/{name}_Dermoscopic_Image/{name}.bmp", encode_image(image, ".bmp")))
        # The release keeps one mask as 24-bit colour and all others as 1-bit bitmaps.
        grey = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
        packed = encode_image(grey, ".bmp") if name == first else ph2.one_bit_bitmap(mask)
        members.append((f"{folder}/{name}/{name}_lesion/{name}_lesion.bmp", packed))
    members.append(("PH2Dataset/PH2_dataset.txt", ph2.table_text(cases).encode("ascii")))
    return _write_zip(out / "PH2Dataset.zip", members)


def _images(out: Path, name: str, shots: Sequence[Shot], pictures: Pictures) -> tuple[Path, Members]:
    members = [(f"{name}/{shot.image_id}.jpg", pictures[shot.image_id][0]) for shot in shots]
    return out / f"{name}.zip", members + _terms(name)


def _masks(out: Path, name: str, shots: Sequence[Shot], pictures: Pictures) -> tuple[Path, Members]:
    members = [(f"{name}/{shot.image_id}_segmentation.png", pictures[shot.image_id][1]) for shot in shots]
    return out / f"{name}.zip", members


def _terms(folder: str) -> Members:
    return [(f"{folder}/ATTRIBUTION.txt", ATTRIBUTION), (f"{folder}/LICENSE.txt", LICENSE)]


def _csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("ascii")


def _write_zip(path: Path, members: Members) -> Path:
    """Write members sorted by name, with one fixed date, so that equal content gives equal bytes."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, content in sorted(members):
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            packed = name.endswith((".jpg", ".png"))
            entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=None if packed else 6)
    return path
