"""Synthetic images: repeatable, well masked, of learnable classes, and packed as the official archives are."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lesion_core.acquire import synthetic
from lesion_core.acquire.synthetic import cohort, ph2
from lesion_core.errors import SettingsError
from lesion_core.seeding import generator
from lesion_core.settings import CLASSES, Synthetic

CHOSEN = Synthetic(
    seed=7,
    size=64,
    isic2018_task1=20,
    ham10000_lesions=45,
    images_per_lesion=1.4,
    isic2018_task3=30,
    ph2=10,
)
IMAGE_ID = r"ISIC_\d{7}"
TERMS = ["ATTRIBUTION.txt", "LICENSE.txt"]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mirror")
    synthetic.write_mirror(CHOSEN, out)
    return out


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def read(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("ascii"))))


def decode(content: bytes, flag: int = -1) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(content, np.uint8), flag)


# Images


@pytest.mark.parametrize("label", CLASSES)
def test_masks_are_whole_regions_of_sensible_area(label: str) -> None:
    import cv2

    for i in range(25):
        image, mask = synthetic.draw(generator("test", label, i), label, (48, 64))
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (48, 64)
        assert mask.dtype == bool
        assert 0.004 < mask.mean() < 0.97
        count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        assert count == 2
        assert image.std() > 3


@pytest.mark.parametrize("size", [32, 33, (40, 96), (96, 40), 256])
def test_any_size_is_drawn(size: int | tuple[int, int]) -> None:
    image, mask = synthetic.draw(generator("size"), "mel", size)
    expected = (size, size) if isinstance(size, int) else size
    assert image.shape[:2] == mask.shape == expected
    assert mask.any()


def test_area_follows_the_lesion_and_shape_the_resolution() -> None:
    lesion = synthetic.make_lesion(generator("area"), "nv")
    _, small = synthetic.synthetic_image(lesion, generator("same"), 96)
    _, large = synthetic.synthetic_image(lesion, generator("same"), 192)
    halved = large.reshape(96, 2, 96, 2).mean((1, 3)) >= 0.5
    assert (small & halved).sum() / (small | halved).sum() > 0.9


def test_draw_is_repeatable_and_devices_differ() -> None:
    first, second = (synthetic.draw(generator("again"), "bkl", 48) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    colours = [
        np.mean([synthetic.draw(generator("device", i), "nv", 32, device)[0].mean((0, 1)) for i in range(8)], 0)
        for device in (1, 5)
    ]
    # Device 1 is red, device 5 cream: the difference of red and green tells them apart.
    assert colours[0][0] - colours[0][1] > colours[1][0] - colours[1][1] + 20


def test_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError):
        synthetic.draw(generator(0), "wart", 32)


def test_batch_is_keyed_per_index() -> None:
    images, masks, labels = synthetic.draw_batch(3, [5, 11, 2], 48)
    assert images.shape == (3, 48, 48, 3)
    assert masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1}
    alone = synthetic.draw_batch(3, [11], 48)
    assert np.array_equal(images[1], alone[0][0])
    assert np.array_equal(masks[1], alone[1][0])
    assert labels[1] == alone[2][0]
    assert not np.array_equal(images[1], synthetic.draw_batch(4, [11], 48)[0][0])


def test_lesions_stand_out_in_colour_but_not_trivially() -> None:
    """Inside and outside differ in most images, yet one global threshold does not solve the task."""
    import cv2

    dice = []
    for i in range(60):
        image, mask = synthetic.draw(generator("otsu", i), CLASSES[i % 7], 64)
        _, dark = cv2.threshold(255 - image[..., 1], 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        dice.append(2 * (dark.astype(bool) & mask).sum() / (dark.sum() + mask.sum()))
    assert 0.45 < np.mean(dice) < 0.9
    assert np.quantile(dice, 0.1) < 0.6


# Classes


def features(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour and texture of the lesion against its skin, and its shape."""
    import cv2

    logs = np.log(image.astype(np.float32) + 8)
    skin = np.median(logs[~mask], axis=0)
    inner = logs[mask] - skin
    fine = image[..., 1].astype(np.float32)
    detail = np.abs(fine - cv2.GaussianBlur(fine, (0, 0), 1.5))[mask]
    outline = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
    compact = cv2.arcLength(outline, True) / np.sqrt(mask.sum())
    shape = [np.log(mask.mean()), compact, detail.mean(), detail.std()]
    return np.concatenate([inner.mean(0), inner.std(0), np.quantile(inner, [0.05, 0.5, 0.95], 0).ravel(), shape])


@pytest.fixture(scope="module")
def described() -> tuple[np.ndarray, np.ndarray]:
    rows, labels = [], []
    for i in range(420):
        label = CLASSES[i % 7]
        image, mask = synthetic.draw(generator("classes", i), label, 80)
        rows.append(features(image, mask))
        labels.append(i % 7)
    return np.array(rows), np.array(labels)


def held_out_accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    model.fit(rows[:280], labels[:280])
    return float((model.predict(rows[280:]) == labels[280:]).mean())


def test_classes_can_be_told_apart_but_overlap(described: tuple[np.ndarray, np.ndarray]) -> None:
    accuracy = held_out_accuracy(*described)
    assert 0.36 < accuracy < 0.9  # chance is 1/7


def test_images_of_one_lesion_resemble_each_other() -> None:
    """Two images of a lesion are nearer in description than images of two lesions of its class."""
    same, other = [], []
    for i in range(24):
        pair = []
        lesion = synthetic.make_lesion(generator("pair", i), "mel")
        for shot in range(2):
            image, mask = synthetic.synthetic_image(lesion, generator("pair", i, shot), 80, device=0)
            pair.append(features(image, mask))
        same.append(pair)
    same = np.array(same)
    scale = same.reshape(-1, same.shape[-1]).std(0)
    near = np.abs(same[:, 0] - same[:, 1]) / scale
    other = np.abs(same[:, 0] - np.roll(same[:, 1], 1, axis=0)) / scale
    assert near.mean() < 0.6 * other.mean()
    assert (near.mean(1) > 0).all()


# Mirror


def test_equal_settings_give_equal_bytes(mirror: Path, tmp_path: Path) -> None:
    synthetic.write_mirror(CHOSEN, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in mirror.iterdir())
    for path in mirror.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_file_names_and_checksums(mirror: Path) -> None:
    expected = {
        "HAM10000_images_part_1.zip",
        "HAM10000_images_part_2.zip",
        "HAM10000_metadata.csv",
        "HAM10000_segmentations_lesion_tschandl.zip",
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
        "ISIC2018_Task3_Training_GroundTruth.zip",
        "ISIC2018_Task3_Training_Input.zip",
        "ISIC2018_Task3_Training_LesionGroupings.csv",
        "PH2Dataset.zip",
    }
    assert {path.name for path in mirror.iterdir()} == expected | {"SHA256SUMS"}
    lines = (mirror / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == sorted(expected)
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((mirror / name).read_bytes()).hexdigest() == digest


def test_inner_layouts(mirror: Path) -> None:
    patterns = {
        "HAM10000_images_part_1.zip": rf"{IMAGE_ID}\.jpg",
        "HAM10000_images_part_2.zip": rf"{IMAGE_ID}\.jpg",
        "HAM10000_segmentations_lesion_tschandl.zip": (
            rf"HAM10000_segmentations_lesion_tschandl/{IMAGE_ID}_segmentation\.png"
        ),
        "ISIC2018_Task1-2_Training_Input.zip": rf"ISIC2018_Task1-2_Training_Input/{IMAGE_ID}\.jpg",
        "ISIC2018_Task1_Training_GroundTruth.zip": (
            rf"ISIC2018_Task1_Training_GroundTruth/{IMAGE_ID}_segmentation\.png"
        ),
        "ISIC2018_Task3_Training_Input.zip": rf"ISIC2018_Task3_Training_Input/{IMAGE_ID}\.jpg",
        "ISIC2018_Task3_Training_GroundTruth.zip": (
            r"ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth\.csv"
        ),
    }
    for name, pattern in patterns.items():
        inside = names(mirror / name)
        assert inside == sorted(inside)
        extra = [one for one in inside if not re.fullmatch(pattern, one)]
        folder = name.removesuffix(".zip")
        assert extra == ([f"{folder}/{one}" for one in TERMS] if name.startswith("ISIC") else [])
        assert len(inside) > len(extra)


def test_ham_metadata_fits_its_images(mirror: Path) -> None:
    rows = table((mirror / "HAM10000_metadata.csv").read_bytes())
    assert list(rows[0]) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    ids = [row["image_id"] for row in rows]
    parts = [names(mirror / f"HAM10000_images_part_{part}.zip") for part in (1, 2)]
    assert [name.removesuffix(".jpg") for name in parts[0] + parts[1]] == ids == sorted(ids)
    masks = names(mirror / "HAM10000_segmentations_lesion_tschandl.zip")
    assert [Path(name).name.removesuffix("_segmentation.png") for name in masks] == ids
    assert len(rows) == round(45 * 1.4)
    lesions: dict[str, set[str]] = {}
    for row in rows:
        assert re.fullmatch(r"HAM_\d{7}", row["lesion_id"])
        assert row["sex"] in {"male", "female", "unknown"}
        assert row["dx_type"] in {"histo", "follow_up", "consensus", "confocal"}
        assert row["age"] == "" or float(row["age"]) % 5 == 0
        lesions.setdefault(row["dx"], set()).add(row["lesion_id"])
    assert set(lesions) == set(CLASSES)
    assert all(len(ids) >= 6 for ids in lesions.values())


def test_masks_fit_their_images(mirror: Path) -> None:
    sizes = set()
    for name in names(mirror / "ISIC2018_Task1_Training_GroundTruth.zip"):
        if name.endswith(".txt"):
            continue
        mask = decode(read(mirror / "ISIC2018_Task1_Training_GroundTruth.zip", name))
        image_name = f"ISIC2018_Task1-2_Training_Input/{Path(name).name.replace('_segmentation.png', '.jpg')}"
        image = decode(read(mirror / "ISIC2018_Task1-2_Training_Input.zip", image_name))
        assert mask.ndim == 2
        assert mask.shape == image.shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        sizes.add(mask.shape)
    assert len(sizes) > 2


def test_task1_leaks_by_id_and_by_lesion(mirror: Path) -> None:
    """Some Task 1 images stand in HAM10000 with the same bytes, some show its lesions under other ids."""
    ham = {shot.image_id for shot in cohort.make_cohort(CHOSEN).ham}
    lesions = {shot.case.lesion_id for shot in cohort.make_cohort(CHOSEN).ham}
    task1 = cohort.make_cohort(CHOSEN).task1
    assert len(task1) == CHOSEN.isic2018_task1 == len({shot.image_id for shot in task1})
    shared = [shot.image_id for shot in task1 if shot.image_id in ham]
    siblings = [shot for shot in task1 if shot.image_id not in ham and shot.case.lesion_id in lesions]
    assert shared
    assert siblings
    assert len(shared) + len(siblings) < len(task1) / 2
    for image_id in shared:
        part = 1 if f"{image_id}.jpg" in names(mirror / "HAM10000_images_part_1.zip") else 2
        first = read(mirror / f"HAM10000_images_part_{part}.zip", f"{image_id}.jpg")
        second = read(mirror / "ISIC2018_Task1-2_Training_Input.zip", f"ISIC2018_Task1-2_Training_Input/{image_id}.jpg")
        assert first == second


def test_task3_is_a_subset_of_ham(mirror: Path) -> None:
    name = "ISIC2018_Task3_Training_GroundTruth"
    rows = table(read(mirror / f"{name}.zip", f"{name}/{name}.csv"))
    assert list(rows[0]) == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    truth = {row["image_id"]: row for row in table((mirror / "HAM10000_metadata.csv").read_bytes())}
    groups = table((mirror / "ISIC2018_Task3_Training_LesionGroupings.csv").read_bytes())
    assert list(groups[0]) == ["image", "lesion_id", "diagnosis_confirm_type"]
    assert len(rows) == len(groups) == CHOSEN.isic2018_task3
    for row, group in zip(rows, groups, strict=True):
        hot = [column for column in list(row)[1:] if row[column] == "1.0"]
        assert hot == [truth[row["image"]]["dx"].upper()]
        assert sum(float(row[column]) for column in list(row)[1:]) == 1
        assert group["image"] == row["image"]
        assert group["lesion_id"] == truth[row["image"]]["lesion_id"]


def test_ph2_text_and_bitmaps(mirror: Path) -> None:
    inside = names(mirror / "PH2Dataset.zip")
    text = read(mirror / "PH2Dataset.zip", "PH2Dataset/PH2_dataset.txt").decode("ascii")
    lines = text.split("\n")
    assert lines[0] == (
        "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules |"
        " Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
    )
    rows = [line for line in lines if line.startswith("|| IMD")]
    assert {len(line) for line in [lines[0], *rows]} == {176}
    assert text.endswith("   6 - Black.")
    cells = [[cell.strip() for cell in row.replace("||", "|").strip("|").split("|")] for row in rows]
    assert [row[2] for row in cells] == sorted(["0", "1", "0", "1", "2"] * 2)
    assert len(inside) == 2 * len(rows) + 1 == 21
    depths = []
    for row in cells:
        assert len(row) == 10
        name = row[0]
        base = f"PH2Dataset/PH2 Dataset images/{name}"
        image = decode(read(mirror / "PH2Dataset.zip", f"{base}/{name}_Dermoscopic_Image/{name}.bmp"))
        packed = read(mirror / "PH2Dataset.zip", f"{base}/{name}_lesion/{name}_lesion.bmp")
        depths.append(packed[28])
        mask = decode(packed, 0)
        assert image.shape[:2] == mask.shape
        assert set(np.unique(mask)) == {0, 255}
    assert sorted(depths) == [1] * 9 + [24]


def test_one_bit_bitmap_is_read_back_by_another_library() -> None:
    mask = generator("bitmap").random((13, 45)) < 0.5
    assert np.array_equal(decode(ph2.one_bit_bitmap(mask), 0) > 0, mask)


def test_class_counts() -> None:
    assert sum(cohort.class_counts(45)) == 45
    assert min(cohort.class_counts(45)) == 6
    large = cohort.class_counts(10015)
    assert sum(large) == 10015
    assert np.abs(np.array(large) - cohort.FREQUENCIES).max() <= 7
    assert sum(cohort.class_counts(3)) == 3


def test_too_many_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ids"):
        synthetic.write_mirror(CHOSEN.model_copy(update={"isic2018_task1": 11000}), tmp_path)
    with pytest.raises(SettingsError, match="PH2"):
        ph2.make_cases(0, 438)
    assert not any(tmp_path.iterdir())
