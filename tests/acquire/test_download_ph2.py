"""PH2, which a user supplies: folder, zip or rar."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from download_server import BODY, fetch, mirror_folder

from lesion_core.errors import DownloadError


def ph2_folder(folder: Path) -> Path:
    (folder / "PH2 Dataset images" / "IMD002").mkdir(parents=True)
    (folder / "PH2 Dataset images" / "IMD002" / "IMD002.bmp").write_bytes(BODY)
    (folder / "PH2_dataset.txt").write_text("|| Name ||\n")
    return folder


def test_ph2_without_a_file_tells_how_to_get_it(tmp_path: Path) -> None:
    for mirror in (None, mirror_folder(tmp_path, sums=True)):
        with pytest.raises(DownloadError, match=r"data\.ph2"):
            fetch(tmp_path / "out", mirror, dataset="ph2")


def test_ph2_folder_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    folder = ph2_folder(tmp_path / "given" / "PH2Dataset")
    first = fetch(tmp_path / "a", dataset="ph2", ph2=folder)
    os.utime(folder / "PH2_dataset.txt", (0, 0))
    second = fetch(tmp_path / "b", dataset="ph2", ph2=folder.parent)
    assert first["sha256"] == second["sha256"]
    assert first["name"] == "PH2Dataset.zip"
    with zipfile.ZipFile(tmp_path / "a" / "PH2Dataset.zip") as archive:
        assert archive.namelist() == [
            "PH2Dataset/PH2 Dataset images/IMD002/IMD002.bmp",
            "PH2Dataset/PH2_dataset.txt",
        ]
    assert not list((tmp_path / "a").glob(".*"))
    (folder / "PH2_dataset.txt").write_text("|| changed ||\n")
    with pytest.raises(DownloadError, match=r"PH2Dataset\.zip\.sha256"):
        fetch(tmp_path / "a", dataset="ph2", ph2=folder)


def test_ph2_archive_of_any_name(tmp_path: Path) -> None:
    for given, name in (("mine.zip", "PH2Dataset.zip"), ("mine.RAR", "PH2Dataset.rar")):
        (tmp_path / given).write_bytes(BODY)
        assert fetch(tmp_path / given[:6] / name, dataset="ph2", ph2=tmp_path / given)["name"] == name


@pytest.mark.parametrize(("kind", "name"), [("zip", "PH2Dataset.zip"), ("rar", "PH2Dataset.rar")])
def test_ph2_from_a_mirror(tmp_path: Path, kind: str, name: str) -> None:
    mirror = mirror_folder(tmp_path, sums=True, **{f"PH2Dataset_{kind}": BODY})
    file = fetch(tmp_path / "out", mirror, dataset="ph2")
    assert file["name"] == name
    assert file["verified_by"] == "mirror SHA256SUMS"


def test_ph2_folder_in_a_mirror(tmp_path: Path) -> None:
    mirror = mirror_folder(tmp_path, sums=False)
    ph2_folder(mirror / "PH2Dataset")
    file = fetch(tmp_path / "out", mirror, dataset="ph2")
    assert file["source"] == f"mirror: {mirror}/PH2Dataset"
    assert file["verified_by"] == "pinned at first download"


def test_what_is_not_ph2_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar").write_bytes(BODY)
    linked = ph2_folder(tmp_path / "linked")
    (linked / "more").symlink_to(tmp_path / "empty")
    for given, text in (("empty", "neither"), ("a.tar", r"\.rar"), ("none.zip", "no such"), ("linked", "links")):
        with pytest.raises(DownloadError, match=text):
            fetch(tmp_path / "out", dataset="ph2", ph2=tmp_path / given)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
