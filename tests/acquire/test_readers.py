"""Readers of the releases: what they yield, and that nothing that does not fit passes."""

from __future__ import annotations

import pytest
import releases

from lesion_core.acquire.readers import joining_id, read_dataset
from lesion_core.acquire.readers.ph2 import read_labels
from lesion_core.errors import CatalogError, MaskError
from lesion_core.settings import Custom

HAM = {"ISIC_0000001": (1, "HAM_1", "nv"), "ISIC_0000002": (2, "HAM_1", "nv"), "ISIC_0000003": (3, "HAM_2", "mel")}
TASK3 = {"ISIC_0000001": (1, "HAM_1", "NV"), "ISIC_0000008": (4, "HAM_9", "VASC")}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_ham10000_rows(tmp_path):
    folder = releases.ham10000(tmp_path, HAM)
    (folder / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0000002_segmentation.png").unlink()
    edit(folder / "HAM10000_metadata.csv", "ISIC_0000003,mel,histo,45.0,male,trunk", "ISIC_0000003,mel,histo,,unknown,")
    rows = read_dataset("ham10000", folder)
    assert [row.image_id for row in rows] == sorted(HAM)
    assert [row.lesion_id for row in rows] == ["HAM_1", "HAM_1", "HAM_2"]
    assert [row.mask_path is None for row in rows] == [False, True, False]
    assert (rows[0].label, rows[0].age, rows[0].sex, rows[0].site) == ("nv", 45.0, "male", "trunk")
    assert (rows[2].label, rows[2].age, rows[2].sex, rows[2].site) == ("mel", None, None, None)
    assert rows[0].licence == "CC BY-NC 4.0"


def test_ham10000_accepts_part_folders_and_the_source_column(tmp_path):
    folder = releases.ham10000(tmp_path, HAM)
    (folder / "HAM10000_images_part_1").mkdir()
    (folder / "ISIC_0000001.png").rename(folder / "HAM10000_images_part_1" / "ISIC_0000001.png")
    text = (folder / "HAM10000_metadata.csv").read_text().replace("localization", "localization,dataset")
    (folder / "HAM10000_metadata.csv").write_text(text.replace("trunk", "trunk,vidir_modern"))
    assert len(read_dataset("ham10000", folder)) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("localization", "place", "missing columns"),
        ("localization", "localization,extra", "unknown columns"),
        ("ISIC_0000002,nv", "ISIC_0000001,nv", "several rows"),
        ("ISIC_0000002,nv", "ISIC_0000009,nv", "images without a row"),
        ("ISIC_0000002,nv", "ISIC_0000002,wart", "none of the seven classes"),
        ("45.0", "-3", "no age"),
        ("45.0", "450", "no age"),
        ("male", "mail", "neither male nor female"),
        ("HAM_2,", ",", "without a lesion_id"),
        ("histo,", "", "too few or too many cells"),
        ("trunk", "trunk,x", "too few or too many cells"),
    ],
)
def test_ham10000_faults(tmp_path, old, new, message):
    folder = releases.ham10000(tmp_path, HAM)
    edit(folder / "HAM10000_metadata.csv", old, new)
    with pytest.raises(CatalogError, match=message) as caught:
        read_dataset("ham10000", folder)
    assert caught.value.file is not None
    assert caught.value.ids
    assert caught.value.remedy


def test_labels_without_image_and_masks_without_image(tmp_path):
    folder = releases.ham10000(tmp_path, HAM)
    (folder / "ISIC_0000003.png").unlink()
    with pytest.raises(CatalogError, match="rows without an image") as caught:
        read_dataset("ham10000", folder)
    assert caught.value.ids == ("ISIC_0000003",)
    folder = releases.ham10000(tmp_path / "again", HAM)
    releases.write_mask(folder / "HAM10000_segmentations_lesion_tschandl" / "ISIC_7777777_segmentation.png")
    with pytest.raises(MaskError, match="masks without an image") as caught:
        read_dataset("ham10000", folder)
    assert caught.value.ids == ("ISIC_7777777",)


def test_task1_rows_and_faults(tmp_path):
    folder = releases.task1(tmp_path, {"ISIC_0000005": 5, "ISIC_0000004": 4})
    rows = read_dataset("isic2018_task1", folder)
    assert [row.image_id for row in rows] == ["ISIC_0000004", "ISIC_0000005"]
    assert all(row.mask_path is not None and row.label is None and row.lesion_id is None for row in rows)
    masks = folder / "ISIC2018_Task1_Training_GroundTruth"
    (masks / "ISIC_0000004_segmentation.png").rename(masks / "ISIC_0000004_attribute.png")
    with pytest.raises(MaskError, match="name does not end"):
        read_dataset("isic2018_task1", folder)
    (masks / "ISIC_0000004_attribute.png").unlink()
    with pytest.raises(MaskError, match="images without a mask") as caught:
        read_dataset("isic2018_task1", folder)
    assert caught.value.ids == ("ISIC_0000004",)


def test_isic2016_and_2017_layouts(tmp_path):
    for part in ("Training", "Test"):
        releases.save(
            tmp_path / f"ISBI2016_ISIC_Part1_{part}_Data" / f"ISIC_{part}.jpg", releases.synthetic_image(len(part))
        )
        releases.write_mask(tmp_path / f"ISBI2016_ISIC_Part1_{part}_GroundTruth" / f"ISIC_{part}_Segmentation.png")
    assert [row.image_id for row in read_dataset("isic2016", tmp_path)] == ["ISIC_Test", "ISIC_Training"]
    data = tmp_path / "ISIC-2017_Training_Data"
    releases.save(data / "ISIC_0000000.jpg", releases.synthetic_image(1))
    releases.save(data / "ISIC_0000000_superpixels.png", releases.synthetic_image(2))
    releases.write_text(
        data / "ISIC-2017_Training_Data_metadata.csv", "image_id,age_approximate,sex", "ISIC_0000000,unknown,female"
    )
    releases.write_mask(tmp_path / "ISIC-2017_Training_Part1_GroundTruth" / "ISIC_0000000_segmentation.png")
    rows = read_dataset("isic2017", tmp_path)
    assert [(row.image_id, row.age, row.sex) for row in rows] == [("ISIC_0000000", None, "female")]


def test_task3_rows_and_faults(tmp_path):
    folder = releases.task3(tmp_path, TASK3)
    rows = read_dataset("isic2018_task3", folder)
    assert [(row.image_id, row.lesion_id, row.label) for row in rows] == [
        ("ISIC_0000001", "HAM_1", "nv"),
        ("ISIC_0000008", "HAM_9", "vasc"),
    ]
    labels = folder / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    good = labels.read_text()
    for old, new in (("0.0,1.0,0.0", "1.0,1.0,0.0"), ("0.0,1.0,0.0", "0.0,0.0,0.0"), ("0.0,1.0,0.0", "0.5,0.5,0.0")):
        labels.write_text(good.replace(old, new, 1))
        with pytest.raises(CatalogError, match="exactly one class") as caught:
            read_dataset("isic2018_task3", folder)
        assert caught.value.ids == ("ISIC_0000001",)
    labels.write_text(good)
    edit(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", "ISIC_0000008", "ISIC_0035069")
    with pytest.raises(CatalogError, match="images without a row"):
        read_dataset("isic2018_task3", folder)


def test_isic2019_rows(tmp_path):
    rows = {
        "ISIC_0000001_downsampled": (1, "MSK4_1", "AK"),
        "ISIC_0000002": (2, "", "SCC"),
    }
    read = read_dataset("isic2019", releases.isic2019(tmp_path, rows))
    assert [(row.lesion_id, row.label, row.age, row.sex, row.site) for row in read] == [
        ("MSK4_1", "akiec", 55.0, "female", "anterior torso"),
        (None, None, 55.0, "female", "anterior torso"),
    ]
    assert read[1].notes[0][0] == "no_class"
    assert joining_id(read[0].image_id) == "ISIC_0000001"


def test_ph2_rows_and_faults(tmp_path):
    folder = releases.ph2(tmp_path, {"IMD002": (1, 0), "IMD003": (2, 1), "IMD058": (3, 2)})
    rows = read_dataset("ph2", folder)
    assert [(row.image_id, row.label) for row in rows] == [("IMD002", "nv"), ("IMD003", "nv"), ("IMD058", "mel")]
    table = folder / "PH2Dataset" / "PH2_dataset.txt"
    good = table.read_text()
    faults = {
        "not a case": ("||    2 ||", "||    3 ||"),
        "header": ("Clinical Diagnosis ||", "Clinic ||"),
        "two rows": ("IMD003", "IMD002"),
        "no header, case or legend": ("\n\n", "\nIMD777 | 0\n"),
        "images without a row": ("|| IMD058", "\n  0 - "),
        "rows without an image": ("|| IMD058", "|| IMD059"),
    }
    for message, (old, new) in faults.items():
        assert old in good
        table.write_text(good.replace(old, new, 1))
        if message == "rows without an image":
            (folder / "PH2Dataset" / "PH2 Dataset images" / "IMD058").rename(tmp_path / "aside")
        with pytest.raises(CatalogError, match=message):
            read_dataset("ph2", folder)
    table.write_text(PH2_EMPTY)
    with pytest.raises(CatalogError, match="no cases"):
        read_labels(table)


PH2_EMPTY = releases.PH2_HEADER + releases.PH2_LEGEND


def test_custom_dataset(tmp_path):
    for image_id in ("a", "b"):
        releases.save(tmp_path / "images" / f"{image_id}.png", releases.synthetic_image(ord(image_id)))
    releases.write_mask(tmp_path / "masks" / "a_mask.png")
    table = releases.write_text(tmp_path / "t.csv", "image_id,label,lesion_id", "a,MEL,p1", "b,,p1")
    custom = Custom(images=str(tmp_path / "images"), csv=str(table), masks=str(tmp_path / "masks"), licence="mine")
    rows = read_dataset("custom", tmp_path, custom)
    assert [(row.label, row.lesion_id, row.age, row.licence) for row in rows] == [
        ("mel", "p1", None, "mine"),
        (None, "p1", None, "mine"),
    ]
    assert rows[0].mask_path is not None
    assert rows[1].mask_path is None
    edit(table, "label", "diagnosis")
    with pytest.raises(CatalogError, match="unknown columns"):
        read_dataset("custom", tmp_path, custom)
    releases.save(tmp_path / "images" / "a.bmp", releases.synthetic_image(1))
    with pytest.raises(CatalogError, match="same id"):
        read_dataset("custom", tmp_path, custom)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(CatalogError, match="folder is missing"):
        read_dataset("ph2", tmp_path / "absent")
    for dataset in ("isic2018_task1", "isic2018_task3", "isic2019", "ham10000", "ph2"):
        with pytest.raises(CatalogError):
            read_dataset(dataset, tmp_path)
    with pytest.raises(CatalogError, match="not described"):
        read_dataset("custom", tmp_path)
