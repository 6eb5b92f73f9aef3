"""A dataset from several sources: a mirror first, official addresses in order, pins."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from download_server import BODY, MD5, OTHER, SHA256, Script, fetch, mirror_folder, plant, script, serve, status, whole
from typer.testing import CliRunner

from lesion_core.acquire import registry
from lesion_core.acquire.download import fetch_weights, pinned
from lesion_core.acquire.http import Patience
from lesion_core.acquire.registry import RemoteFile, Weights
from lesion_core.cli import app
from lesion_core.errors import DownloadError, SettingsError
from lesion_core.files import sha256_file


def test_second_address_after_the_first_refuses(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = script.on("/second", serve())
    plant(monkeypatch, script.on("/first", status(403)), second, md5=MD5)
    file = fetch(tmp_path / "out")
    assert file["source"] == second
    assert file["verified_by"] == "official md5"


def test_same_list_from_a_second_call_without_a_request(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, script.on("/a", serve()), sha256=SHA256)
    out = tmp_path / "out"
    fetch(out)
    first = (out / "files.json").read_bytes()
    (out / "files.json").unlink()
    fetch(out)
    assert (out / "files.json").read_bytes() == first
    assert len(script.asked) == 1


def test_damaged_file_is_fetched_again(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, script.on("/a", serve()), sha256=SHA256)
    out = tmp_path / "out"
    fetch(out)
    (out / "a.zip").write_bytes(OTHER)
    assert fetch(out)["sha256"] == SHA256
    assert len(script.asked) == 2


def test_all_sources_are_named_in_the_error(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, script.on("/one", status(404)), script.on("/two", serve(OTHER)), sha256=SHA256)
    mirror = mirror_folder(tmp_path, sums=True)
    with pytest.raises(DownloadError) as error:
        fetch(tmp_path / "out", mirror)
    for text in (f"{mirror}/a.zip: no such file", "/one: HTTP 404", "/two: wrong content", "set mirror"):
        assert text in str(error.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(("size", "called"), [(None, ""), (len(BODY), "official size, ")])
def test_unknown_checksum_is_pinned_and_a_change_refused(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, called: str
) -> None:
    plant(monkeypatch, script.on("/a", serve()), bytes=size)
    out = tmp_path / "out"
    first = fetch(out)
    assert first["verified_by"] == f"{called}pinned at first download"
    assert (out / "a.zip.sha256").read_text() == f"{SHA256}  a.zip\n"
    assert fetch(out) == first
    assert len(script.asked) == 1
    (out / "a.zip").unlink()
    script.on("/a", serve(OTHER))
    with pytest.raises(DownloadError, match=r"a\.zip\.sha256"):
        fetch(out)
    assert not (out / "a.zip").exists()
    assert not (out / "files.json").exists()


def test_broken_pin_is_refused(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, script.on("/a", serve()))
    (tmp_path / "a.zip.sha256").write_text("\n")
    with pytest.raises(DownloadError, match="no SHA-256"):
        fetch(tmp_path)


def test_mirror_folder_is_verified_against_its_own_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, sha256=SHA256, bytes=len(BODY))
    mirror = mirror_folder(tmp_path, sums=True, a_zip=OTHER[:1000])
    out = tmp_path / "out"
    file = fetch(out, mirror)
    assert file["verified_by"] == "mirror SHA256SUMS"
    assert file["source"] == f"mirror: {mirror}/a.zip"
    assert (out / "a.zip").read_bytes() == OTHER[:1000]
    assert not (out / "a.zip").is_symlink()
    assert not (out / "a.zip.sha256").exists()


@pytest.mark.parametrize("sums", [True, False])
def test_mirror_may_hold_a_file_under_its_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sums: bool
) -> None:
    plant(monkeypatch, sha256=SHA256, also=("a",))
    mirror = mirror_folder(tmp_path, sums=sums, a_zip=BODY)
    (mirror / "a.zip").rename(mirror / "a")
    if sums:
        (mirror / "SHA256SUMS").write_text(f"{SHA256}  a\n")
    file = fetch(tmp_path / "out", mirror)
    assert (file["name"], file["source"]) == ("a.zip", f"mirror: {mirror}/a")
    assert file["verified_by"] == ("mirror SHA256SUMS" if sums else "official sha256")
    assert (tmp_path / "out" / "a.zip").read_bytes() == BODY


def test_link_in_a_mirror_gives_a_real_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, sha256=SHA256)
    mirror = mirror_folder(tmp_path, sums=False)
    (tmp_path / "elsewhere").write_bytes(BODY)
    (mirror / "a.zip").symlink_to(tmp_path / "elsewhere")
    fetch(tmp_path / "out", mirror)
    assert not (tmp_path / "out" / "a.zip").is_symlink()


def test_copy_where_hard_links_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    plant(monkeypatch, sha256=SHA256)
    monkeypatch.setattr(os, "link", refuse)
    fetch(tmp_path / "out", mirror_folder(tmp_path, sums=False, a_zip=BODY))
    assert (tmp_path / "out" / "a.zip").stat().st_nlink == 1


@pytest.mark.parametrize("sums", [True, False])
def test_wrong_file_in_a_mirror_is_refused_and_not_replaced_by_the_official_one(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sums: bool
) -> None:
    plant(monkeypatch, script.on("/a", serve()), sha256=SHA256)
    mirror = mirror_folder(tmp_path, sums=sums, a_zip=BODY)
    (mirror / "a.zip").write_bytes(OTHER)
    with pytest.raises(DownloadError, match="SHA256SUMS"):
        fetch(tmp_path / "out", mirror)
    assert script.asked == []
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_the_mirror_lacks_comes_from_the_official_address(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, script.on("/a", serve()), sha256=SHA256)
    assert fetch(tmp_path / "out", mirror_folder(tmp_path, sums=True))["verified_by"] == "official sha256"


def test_mirror_address_with_and_without_sums(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, sha256=SHA256)
    script.on("/m/a.zip", serve(OTHER))
    with pytest.raises(DownloadError, match="needs a SHA256SUMS"):
        fetch(tmp_path / "one", f"{script.base}/m/")
    script.on("/m/SHA256SUMS", whole(f"{hashlib.sha256(OTHER).hexdigest()} *a.zip\n".encode()))
    file = fetch(tmp_path / "two", f"{script.base}/m/")
    assert file["verified_by"] == "mirror SHA256SUMS"
    assert file["source"] == f"mirror: {script.base}/m/a.zip"
    assert file["sha256"] == hashlib.sha256(OTHER).hexdigest()


def test_mirror_that_does_not_answer_is_an_error(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, script.on("/a", serve()), sha256=SHA256)
    script.on("/m/SHA256SUMS", status(503))
    with pytest.raises(DownloadError, match="does not answer"):
        fetch(tmp_path / "out", f"{script.base}/m")
    with pytest.raises(DownloadError, match="no folder"):
        fetch(tmp_path / "out", tmp_path / "nowhere")


def test_unreadable_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, sha256=SHA256)
    mirror = mirror_folder(tmp_path, sums=False, a_zip=BODY)
    (mirror / "SHA256SUMS").write_text(f"# sums\n\n{MD5}  a.zip\n")
    with pytest.raises(DownloadError, match="line 3"):
        fetch(tmp_path / "out", mirror)


def test_weights_are_verified(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile("b.pth", (script.on("/b", serve()),), "Apache-2.0", "someone", md5=MD5)
    monkeypatch.setitem(registry.WEIGHTS, "medsam", Weights("medsam", file, "?", "?"))
    path = fetch_weights("medsam", tmp_path / "w", mirror=None, patience=Patience(0, 5.0))
    assert path == tmp_path / "w" / "b.pth"
    assert sha256_file(path) == SHA256


def test_names_without_a_download(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="custom"):
        fetch(tmp_path, dataset="custom")
    with pytest.raises(SettingsError):
        fetch(tmp_path, dataset="isic2042")
    with pytest.raises(SettingsError):
        fetch_weights("sam", tmp_path, mirror=None, patience=Patience(0, 1.0))


def test_pins_are_shown(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, script.on("/a", serve()))
    fetch(tmp_path / "downloads" / "ham10000")
    assert pinned(tmp_path) == [f"{SHA256}  downloads/ham10000/a.zip"]
    said = CliRunner().invoke(app, ["download", "--pins", "--root", str(tmp_path)])
    assert said.output == f"{SHA256}  downloads/ham10000/a.zip\n"
