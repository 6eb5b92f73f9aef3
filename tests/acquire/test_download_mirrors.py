"""Unpacked folders, loose images beside official tables, isic-cli's download; all that is missing in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import releases
from download_server import Script, mirror_folder, plant, script, serve, status

from lesion_core.acquire.download import fetch_dataset
from lesion_core.acquire.http import Patience
from lesion_core.acquire.readers import read_dataset
from lesion_core.acquire.sources import require_sources
from lesion_core.acquire.unpack import unpack_dataset
from lesion_core.errors import DownloadError
from lesion_core.files import read_json
from lesion_core.settings import Custom

HAM = {f"ISIC_000000{number}": (number, f"HAM_{number // 2}", "nv") for number in range(1, 5)}
HOW = {"ph2": None, "patience": Patience(0, 1.0)}


def taken(mirror: Path, work: Path, dataset: str = "ham10000") -> tuple[dict[str, dict], list]:
    """Fetched, unpacked and read: entries of files.json by name, and the rows."""
    listed = read_json(fetch_dataset(dataset, work / "downloads", mirror=str(mirror), **HOW))["files"]
    unpack_dataset(dataset, work / "downloads", work / "data")
    return {file["name"]: file for file in listed}, read_dataset(dataset, work / "data")


def kaggle(folder: Path) -> Path:
    """HAM10000 as Kaggle gives it: image folders, one of them nested, and the table of seven columns."""
    releases.ham10000(folder, HAM)
    for part, images in ((1, ("ISIC_0000001", "ISIC_0000002")), (2, ("ISIC_0000003", "ISIC_0000004"))):
        name = f"HAM10000_images_part_{part}"
        place = folder / name / name if part == 2 else folder / name
        place.mkdir(parents=True)
        for image in images:
            (folder / f"{image}.png").rename(place / f"{image}.png")
    return folder


def test_unpacked_archives_are_taken_hashed_and_pinned(tmp_path: Path) -> None:
    mirror = kaggle(tmp_path / "mirror")
    files, rows = taken(mirror, tmp_path)
    assert [(row.image_id, row.lesion_id, row.mask_path is not None) for row in rows] == [
        (image, lesion, True) for image, (_, lesion, _) in HAM.items()
    ]
    assert {file["verified_by"] for file in files.values()} == {"pinned at first download"}
    assert files["HAM10000_images_part_1.zip"]["source"] == f"mirror: {mirror}/HAM10000_images_part_1"
    assert taken(mirror, tmp_path)[0] == files
    releases.save(mirror / "HAM10000_images_part_1" / "ISIC_0000001.png", releases.synthetic_image(9))
    with pytest.raises(DownloadError, match=r"part_1\.zip\.sha256"):
        taken(mirror, tmp_path)


@pytest.mark.parametrize("place", ["", "images", "ham10000"])
def test_loose_images_beside_the_table_of_dataverse(tmp_path: Path, place: str) -> None:
    mirror = releases.ham10000(tmp_path / "mirror", HAM)
    releases.save(mirror / "ISIC_9999999.png", releases.synthetic_image(0))  # another release's
    (mirror / place).mkdir(exist_ok=True)
    for image in HAM:
        (mirror / f"{image}.png").rename(mirror / place / f"{image}.png")
    table = mirror / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace("localization", "localization,dataset").replace("trunk", "trunk,vidir"))
    files, rows = taken(mirror, tmp_path)
    assert [row.image_id for row in rows] == list(HAM)
    assert "HAM10000_images_part_2.zip" not in files


def test_what_is_missing_is_named_at_once(tmp_path: Path, script: Script, monkeypatch) -> None:
    plant(monkeypatch, script.on("/a.zip", status(404)))
    mirror = mirror_folder(tmp_path, sums=False)
    wanted = {"ham10000": tmp_path / "out", "ph2": tmp_path / "ph2"}
    with pytest.raises(DownloadError, match="2 files can be had from nowhere") as caught:
        require_sources(wanted, mirror=str(mirror), **HOW)
    assert "a.zip" in str(caught.value)
    assert "PH2Dataset.rar" in str(caught.value)
    script.on("/a.zip", serve())
    (mirror / "PH2Dataset").mkdir()
    require_sources(wanted, mirror=str(mirror), **HOW)
    assert not (tmp_path / "out").exists()


def test_isic_cli_download_is_a_dataset_of_ones_own(tmp_path: Path) -> None:
    texts = {"ISIC_1": "Melanoma Invasive", "ISIC_2": "Squamous cell carcinoma, Invasive", "ISIC_3": "Nevus"}
    lines = ["isic_id,attribution,copyright_license,age_approx,diagnosis_1,diagnosis_3,lesion_id,patient_id,sex"]
    for number, (image, text) in enumerate(texts.items(), start=1):
        releases.save(tmp_path / f"{image}.jpg", releases.synthetic_image(number))
        lesion = "IL_1" if number == 1 else ""
        lines.append(f'{image},"Clinic, City",CC-BY,55.0,Malignant,"{text}",{lesion},IP_7,female')
    releases.write_text(tmp_path / "metadata.csv", *lines)
    own = Custom(images=str(tmp_path), csv=str(tmp_path / "metadata.csv"))
    rows = read_dataset("custom", tmp_path, own)
    assert [(row.image_id, row.label, row.lesion_id) for row in rows] == [
        ("ISIC_1", "mel", "IL_1"),
        ("ISIC_2", None, "IP_7"),
        ("ISIC_3", "nv", "IP_7"),
    ]
    assert rows[1].notes[0][0] == "no_class"
    assert {(row.licence, row.age, row.sex) for row in rows} == {("CC-BY", 55.0, "female")}
