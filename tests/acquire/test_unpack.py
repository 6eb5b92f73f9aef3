"""Unpacking: what is refused, what is left out, and that nothing half-made remains."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import rarfile
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_core.acquire import registry, unpack
from lesion_core.acquire.download import fetch_dataset
from lesion_core.acquire.http import Patience
from lesion_core.acquire.unpack import unpack_dataset
from lesion_core.errors import ArchiveError
from lesion_core.files import sha256_file

Members = dict[str, bytes]


def make_zip(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2018, 1, 1, 0, 0, 0)), body, compress_type=method)
    return path


def listed(folder: Path, *names: str, dataset: str = "ham10000") -> Path:
    """Writes files.json for ``names`` as the download does."""
    files = []
    for name in names:
        body = (folder / name).read_bytes()
        files.append({"name": name, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
    (folder / "files.json").write_text(json.dumps({"dataset": dataset, "files": files}))
    return folder


def one(tmp_path: Path, members: Members, name: str = "a.zip") -> Path:
    """A download folder with one zip."""
    make_zip(tmp_path / "downloads" / name, members)
    return listed(tmp_path / "downloads", name)


def hashes(record: Path) -> dict[str, str]:
    return json.loads(record.read_text())["outputs"]


def refuse(downloads: Path, out: Path, match: str) -> ArchiveError:
    """unpack_dataset must raise ArchiveError and leave nothing behind."""
    before = sorted(out.parent.rglob("*")) if out.parent.exists() else []
    with pytest.raises(ArchiveError, match=match) as error:
        unpack_dataset("ham10000", downloads, out)
    assert sorted(out.parent.rglob("*")) == before
    assert error.value.remedy
    return error.value


def test_archives_get_folders_of_their_names_and_tables_lie_beside_them(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    make_zip(downloads / "part_1.zip", {"b.jpg": b"bb", "a.jpg": b"a"})
    make_zip(downloads / "masks.zip", {"masks/": b"", "masks/a.png": b"m", "masks/LICENSE.txt": b"l"})
    (downloads / "table.csv").write_bytes(b"x,y\n")
    listed(downloads, "part_1.zip", "masks.zip", "table.csv")
    record = unpack_dataset("ham10000", downloads, tmp_path / "data" / "ham10000")
    found = hashes(record)
    assert sorted(found) == [
        "masks/LICENSE.txt",
        "masks/a.png",
        "part_1/a.jpg",
        "part_1/b.jpg",
        "table.csv",
    ]
    assert found == {path: sha256_file(record.parent / path) for path in found}


def test_same_bytes_again_and_the_old_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "data" / "x"
    first = unpack_dataset("ham10000", one(tmp_path, {"a.jpg": b"a", "b.jpg": b"b"}), out).read_bytes()
    assert unpack_dataset("ham10000", tmp_path / "downloads", out).read_bytes() == first
    # A workflow deletes its declared output before it makes it again.
    (out / "provenance.json").unlink()
    unpack_dataset("ham10000", one(tmp_path, {"c.jpg": b"c"}), out)
    assert not (out / "a" / "a.jpg").exists()
    assert [entry.name for entry in out.parent.iterdir()] == ["x"]


def test_empty_folder_is_used_and_a_strangers_is_not(tmp_path: Path) -> None:
    downloads, out = one(tmp_path, {"a.jpg": b"a"}), tmp_path / "data"
    out.mkdir()
    unpack_dataset("ham10000", downloads, out)
    other = tmp_path / "home"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    refuse(downloads, other, "not unpacked here")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse(downloads, tmp_path / "link", "something else")


def test_remains_of_a_killed_process_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "data" / ".x.unpacking" / "a").mkdir(parents=True)
    (tmp_path / "data" / ".x.unpacking" / "a" / "a.jpg").write_bytes(b"half")
    unpack_dataset("ham10000", one(tmp_path, {"a.jpg": b"whole"}), tmp_path / "data" / "x")
    assert (tmp_path / "data" / "x" / "a" / "a.jpg").read_bytes() == b"whole"
    assert not (tmp_path / "data" / ".x.unpacking").exists()


def test_junk_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = {"a/x.jpg": b"x", "__MACOSX/a/._x.jpg": b"?", "a/.DS_Store": b"?", "a/._y": b"?", "a/Thumbs.db": b"?"}
    manifest = unpack_dataset("ham10000", one(tmp_path, members), tmp_path / "out")
    assert list(hashes(manifest)) == ["a/x.jpg"]
    assert "a.zip: 4 files of macOS or Windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.txt", "leads elsewhere"),
        ("a/../../evil.txt", "leads elsewhere"),
        ("a\\..\\..\\evil.txt", "leads elsewhere"),
        ("/etc/evil.txt", "absolute"),
        ("\\\\host\\evil.txt", "absolute"),
        ("C:\\evil.txt", "absolute"),
        ("./", "leads elsewhere"),
        ("a/line\nbreak.txt", "control"),
    ],
)
def test_member_that_leads_out_is_refused(tmp_path: Path, name: str, why: str) -> None:
    error = refuse(one(tmp_path, {"ok.jpg": b"ok", name: b"evil"}), tmp_path / "data" / "x", why)
    assert error.file == str(tmp_path / "downloads" / "a.zip")
    assert len(error.ids) == 1
    assert not list(tmp_path.rglob("evil*"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "C:", "\\"]), min_size=1, max_size=5))
def test_no_name_leads_out(parts: list[str]) -> None:
    info = zipfile.ZipInfo("/".join(parts) or "x")
    try:
        path = unpack._safe_path(Path("a.zip"), info)
    except ArchiveError:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.parts


@pytest.mark.parametrize(("kind", "why"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "special file")])
def test_link_and_special_file_are_refused(tmp_path: Path, kind: int, why: str) -> None:
    path = tmp_path / "downloads" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = (kind | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    error = refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", why)
    assert error.ids == ("link",)


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    downloads = one(tmp_path, {"a.jpg": b"a"})
    body = bytearray((downloads / "a.zip").read_bytes())
    # The flag stands at byte 6 of the local header and at byte 8 of the directory's entry.
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    (downloads / "a.zip").write_bytes(body)
    refuse(listed(downloads, "a.zip"), tmp_path / "data" / "x", "encrypted")


def test_bomb_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = one(tmp_path, {"zeros.bmp": bytes(4 << 20)})
    unpack_dataset("ham10000", downloads, tmp_path / "small")
    monkeypatch.setattr(unpack, "RATIO_FLOOR_BYTES", 1 << 20)
    refuse(downloads, tmp_path / "data" / "x", "more than 200 times")


def test_more_bytes_or_files_than_the_release_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = tmp_path / "downloads"
    make_zip(downloads / "a.zip", {"a.jpg": b"aaaa", "b.jpg": b"bbbb"})
    make_zip(downloads / "b.zip", {"a.jpg": b"aaaa", "b.jpg": b"bbbb"})
    listed(downloads, "a.zip", "b.zip")
    known = registry.RELEASES["ham10000"]
    for change, why in (({"member_limit": 3}, "more than the 1 allowed"), ({"unpacked_limit": 15}, "unpacks to")):
        monkeypatch.setitem(registry.RELEASES, "ham10000", replace(known, **change))
        refuse(downloads, tmp_path / "data" / "x", why)


def test_size_in_the_directory_that_lies_is_found(tmp_path: Path) -> None:
    downloads = one(tmp_path, {"a.jpg": bytes(100_000)})
    body = bytearray((downloads / "a.zip").read_bytes())
    at = body.index(b"PK\x01\x02") + 24
    body[at : at + 4] = (10).to_bytes(4, "little")
    (downloads / "a.zip").write_bytes(body)
    refuse(listed(downloads, "a.zip"), tmp_path / "data" / "x", "cannot be read")


def test_truncated_zip(tmp_path: Path) -> None:
    downloads = one(tmp_path, {"a.jpg": os.urandom(1000)})
    body = (downloads / "a.zip").read_bytes()
    (downloads / "a.zip").write_bytes(body[: len(body) // 2])
    error = refuse(listed(downloads, "a.zip"), tmp_path / "data" / "x", "no readable zip")
    assert "download again" in error.remedy


def test_crc_error_names_archive_and_member(tmp_path: Path) -> None:
    path = tmp_path / "downloads" / "a.zip"
    make_zip(path, {"good.jpg": b"g" * 50, "bad.jpg": b"b" * 50}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"b" * 50, b"b" * 49 + b"c"))
    error = refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", "CRC")
    assert error.ids == ("bad.jpg",)
    assert error.file == str(path)


def test_garbled_deflate_stream(tmp_path: Path) -> None:
    downloads = one(tmp_path, {"a.jpg": bytes(range(256)) * 50})
    body = bytearray((downloads / "a.zip").read_bytes())
    body[40:60] = b"\xff" * 20
    (downloads / "a.zip").write_bytes(body)
    refuse(listed(downloads, "a.zip"), tmp_path / "data" / "x", "cannot be read")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_garbled_member_is_the_archives_fault(tmp_path: Path, method: int) -> None:
    path = make_zip(tmp_path / "downloads" / "a.zip", {"a.jpg": os.urandom(5000)}, method)
    body = bytearray(path.read_bytes())
    body[60:90] = b"\xff" * 30
    path.write_bytes(body)
    error = refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", "a member cannot be read")
    assert "download again" in error.remedy


def test_an_archive_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "downloads" / "a.zip", {"a.jpg": b"a"})
    body = bytearray(path.read_bytes())
    body[body.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(body)
    refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", "zip file version")


def test_an_archive_without_its_head_is_the_archives_fault(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "downloads" / "a.zip", {"a.jpg": b"a" * 500, "b.jpg": os.urandom(5000)})
    path.write_bytes(path.read_bytes()[2000:])
    assert "download again" in refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", "read").remedy


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "downloads" / "a.zip"
    path.parent.mkdir()
    for second in ("a.jpg", "./a.jpg", "a.jpg/b.jpg"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.jpg", b"1")
            archive.writestr(second, b"2")
        refuse(listed(path.parent, "a.zip"), tmp_path / "data" / "x", "same name")


def test_empty_archive(tmp_path: Path) -> None:
    refuse(one(tmp_path, {}), tmp_path / "data" / "x", "empty")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = one(tmp_path, {"a.jpg": b"aaaa"})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3))
    refuse(downloads, tmp_path / "data" / "x", "are free")


def test_list_must_be_there_and_fit(tmp_path: Path) -> None:
    downloads = one(tmp_path, {"a.jpg": b"a"})
    with pytest.raises(ArchiveError, match="files of ham10000, not of ph2"):
        unpack_dataset("ph2", downloads, tmp_path / "x")
    (downloads / "a.zip").write_bytes(make_zip(tmp_path / "b.zip", {"a.jpg": b"b"}).read_bytes())
    refuse(downloads, tmp_path / "data" / "x", "has changed since")
    (downloads / "files.json").unlink()
    refuse(downloads, tmp_path / "data" / "x", "list of downloaded files is missing")


# PH2 as a .rar: rarfile reads its table of contents and stored members itself, others by an installed unpacker


def rar_block(kind: int, flags: int, body: bytes, data: bytes = b"") -> bytes:
    """One block of a RAR 3 archive: CRC-16 of the header, type, flags, size, the rest, data."""
    header = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header + data


def make_rar(path: Path, members: dict[str, bytes], *, mode: int = stat.S_IFREG | 0o644, method: int = 0x30) -> Path:
    """A RAR 3 archive made on Unix; method 0x30 stores its members, 0x33 claims that they are compressed."""
    blocks = [b"Rar!\x1a\x07\x00", rar_block(0x73, 0, bytes(6))]
    for name, data in members.items():
        fields = (len(data), len(data), 3, zlib.crc32(data), 0x21 << 16, 29, method, len(name.encode()), mode)
        blocks.append(rar_block(0x74, 0x8000, struct.pack("<IIBIIBBHI", *fields) + name.encode(), data))
    blocks.append(rar_block(0x7B, 0x4000, b""))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(blocks))
    return path


PH2 = {"PH2Dataset/PH2_dataset.txt": b"t", "PH2Dataset/i.bmp": b"i"}


def ph2_rar(tmp_path: Path, members: dict[str, bytes] = PH2, **options: int) -> Path:
    path = make_rar(tmp_path / "downloads" / "PH2Dataset.rar", members, **options)
    return listed(path.parent, "PH2Dataset.rar", dataset="ph2")


def test_rar_is_unpacked_like_a_zip(tmp_path: Path) -> None:
    record = unpack_dataset("ph2", ph2_rar(tmp_path), tmp_path / "data" / "ph2")
    assert sorted(hashes(record)) == ["PH2Dataset/PH2_dataset.txt", "PH2Dataset/i.bmp"]
    assert (record.parent / "PH2Dataset" / "i.bmp").read_bytes() == b"i"


def test_compressed_rar_without_an_unpacker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)
    with pytest.raises(ArchiveError, match=r"install unrar.*data\.ph2"):
        unpack_dataset("ph2", ph2_rar(tmp_path, method=0x33), tmp_path / "data" / "ph2")


@pytest.mark.parametrize(
    ("members", "options", "why"),
    [
        ({"../out.bmp": b"x"}, {}, "leads elsewhere"),
        ({"PH2Dataset/link": b"/etc"}, {"mode": stat.S_IFLNK | 0o777}, "symbolic link"),
        ({}, {}, "empty"),
    ],
)
def test_rar_that_is_not_safe(tmp_path: Path, members: dict[str, bytes], options: dict[str, int], why: str) -> None:
    with pytest.raises(ArchiveError, match=why):
        unpack_dataset("ph2", ph2_rar(tmp_path, members, **options), tmp_path / "data" / "ph2")
    assert list((tmp_path / "data").iterdir()) == []


def test_rar_that_is_damaged(tmp_path: Path) -> None:
    downloads = ph2_rar(tmp_path)
    archive = downloads / "PH2Dataset.rar"
    whole = archive.read_bytes()
    for damaged in (whole[:40], whole.replace(b"bmpi", b"bmpx"), b"Rar?" + whole[4:]):
        archive.write_bytes(damaged)
        listed(downloads, "PH2Dataset.rar", dataset="ph2")
        with pytest.raises(ArchiveError, match="delete it and run the download again"):
            unpack_dataset("ph2", downloads, tmp_path / "data" / "ph2")


def test_ph2_folder_from_the_users_setting_to_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "PH2 Dataset images").mkdir(parents=True)
    (folder / "PH2 Dataset images" / "i.bmp").write_bytes(b"i")
    (folder / "PH2_dataset.txt").write_bytes(b"t")
    fetch_dataset("ph2", tmp_path / "d", mirror=None, ph2=str(folder), patience=Patience(0, 1.0))
    found = hashes(unpack_dataset("ph2", tmp_path / "d", tmp_path / "x"))
    assert sorted(found) == ["PH2Dataset/PH2 Dataset images/i.bmp", "PH2Dataset/PH2_dataset.txt"]


# Real images, where they are at hand


@pytest.mark.parametrize(("dataset", "count"), [("isic2018_task3", 1038), ("isic2018_task1", 1765)])
def test_shared_images(dataset: str, count: int, tmp_path: Path) -> None:
    mirror = os.environ.get("LESION_SHARED_DATA", "")
    if not mirror or not Path(mirror).is_dir():
        pytest.skip("LESION_SHARED_DATA names no folder with the images")
    fetch_dataset(dataset, tmp_path / "d", mirror=mirror, ph2=None, patience=Patience(0, 1.0))
    assert len(hashes(unpack_dataset(dataset, tmp_path / "d", tmp_path / "x"))) == count
