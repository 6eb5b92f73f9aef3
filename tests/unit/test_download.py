"""Downloads against a real server on loopback that fails in every way we know of."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lesion_core.data import registry
from lesion_core.data.checksums import Checks, digests
from lesion_core.data.download import fetch_dataset, fetch_weights
from lesion_core.data.http import SourceError, WrongContentError, transfer
from lesion_core.data.registry import Release, RemoteFile, Weights
from lesion_core.errors import DownloadError, SettingsError

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
OTHER = BODY[::-1]
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
Answer = Callable[["Handler"], None]


@dataclass
class Script:
    """What the server answers per path, and what it was asked."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    sent: int = 0
    base: str = ""

    def on(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return self.base + path

    @property
    def ranges(self) -> list[str | None]:
        return [wanted for _, wanted, _ in self.asked]


class Handler(http.server.BaseHTTPRequestHandler):
    script: Script

    def do_GET(self) -> None:
        script = self.server.script
        script.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        answers = script.answers.get(self.path, [status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)
        self.close_connection = True

    def give(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.server.script.sent += len(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    script: Script

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.give(code, b"no", **headers)


def serve(body: bytes = BODY, *, etag: str = '"one"', stop_after: int | None = None) -> Answer:
    """An honest server with ranges; ``stop_after`` hangs up after so many bytes of the body."""

    def answer(handler: Handler) -> None:
        start = 0
        wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        if wanted and condition in (None, etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            handler.give(416, b"", Content_Range=f"bytes */{len(body)}")
            return
        rest = body[start:]
        # The declared length stays whole while the bytes stop short.
        headers = {"Content-Length": str(len(rest))}
        if etag:
            headers["ETag"] = etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.give(206 if start else 200, rest[:stop_after], **headers)

    return answer


def whole(body: bytes = BODY, length: int | None = None, stop_after: int | None = None, **headers: str) -> Answer:
    """A server that knows no ranges; ``length`` is what it says, right or wrong."""

    def answer(handler: Handler) -> None:
        said = {"Content-Length": str(len(body) if length is None else length)}
        handler.give(200, body[:stop_after], **said, **headers)

    return answer


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server(("127.0.0.1", 0), Handler)
    server.script = Script(base=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.script
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Waits:
    """Stands in for time.sleep."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def get(url: str, target: Path, checks: Checks | None = None, retries: int = 2) -> list[float]:
    """``transfer`` with recorded waits; returns those."""
    waits = Waits()
    checks = Checks(len(BODY), MD5, SHA256) if checks is None else checks
    found = transfer(url, target, checks, retries=retries, timeout=5.0, sleep=waits)
    assert found == digests(target)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    return waits.seconds


# One file, one address


def test_plain_transfer(script: Script, tmp_path: Path) -> None:
    assert get(script.on("/a", serve()), tmp_path / "a.zip") == []
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert script.ranges == [None]


def test_resumes_after_breaks_with_range_and_sends_nothing_twice(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", serve(stop_after=100_000), serve(stop_after=50_000), serve())
    assert get(url, tmp_path / "a.zip") == [1.0, 2.0]
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert script.asked[1:] == [("/a", "bytes=100000-", '"one"'), ("/a", "bytes=150000-", '"one"')]
    assert script.sent == len(BODY)


def test_part_survives_the_process_and_the_next_call_resumes(script: Script, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    url = script.on("/a", serve(stop_after=100_000), status(404))
    with pytest.raises(SourceError, match="404"):
        get(url, target)
    assert not target.exists()
    assert (tmp_path / "a.zip.part").stat().st_size == 100_000
    script.on("/a", serve())
    get(url, target)
    assert script.ranges[-1] == "bytes=100000-"
    assert target.read_bytes() == BODY


def test_changed_file_is_not_glued_to_the_old_half(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", serve(OTHER, etag='"old"', stop_after=100_000), serve(BODY, etag='"new"'))
    get(url, tmp_path / "a.zip", Checks())
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_no_validator_and_no_checksum_starts_over(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", serve(etag="", stop_after=100_000), serve(etag=""))
    get(url, tmp_path / "a.zip", Checks(bytes=len(BODY)))
    assert script.ranges == [None, None]


def test_no_validator_but_a_checksum_resumes(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", serve(etag="", stop_after=100_000), serve(etag=""))
    get(url, tmp_path / "a.zip")
    assert script.ranges == [None, "bytes=100000-"]


def test_server_without_ranges_starts_over(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", whole(stop_after=100_000, ETag='"one"'), whole(ETag='"one"'))
    get(url, tmp_path / "a.zip")
    assert script.ranges == [None, "bytes=100000-"]
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_range_of_another_start_is_dropped(script: Script, tmp_path: Path) -> None:
    def shifted(handler: Handler) -> None:
        handler.give(206, BODY[5:], Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")

    url = script.on("/a", serve(stop_after=100_000), shifted, serve())
    get(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("checks", [Checks(len(BODY), None, SHA256), Checks(sha256=SHA256)])
def test_length_said_too_long_is_no_obstacle_when_the_bytes_are_right(
    script: Script, tmp_path: Path, checks: Checks
) -> None:
    def complete(handler: Handler) -> None:
        handler.give(416, b"", Content_Range=f"bytes */{len(BODY)}")

    url = script.on("/a", whole(length=len(BODY) + 999), complete)
    get(url, tmp_path / "a.zip", checks)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_length_said_too_short_is_completed_by_a_range(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", whole(length=1000, ETag='"one"'), serve())
    get(url, tmp_path / "a.zip")
    assert script.ranges == [None, "bytes=1000-"]


def test_length_other_than_the_release_is_refused_where_no_checksum_is_known(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", whole(length=len(BODY) + 999))
    with pytest.raises(SourceError, match="the release has 300000"):
        get(url, tmp_path / "a.zip", Checks(bytes=len(BODY)))
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_the_release_are_not_read_on(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", whole(BODY * 20))
    with pytest.raises(SourceError, match="more than"):
        get(url, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_connection_that_always_breaks_ends_after_the_retries(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", whole(stop_after=10))
    with pytest.raises(SourceError, match="after 4 attempts"):
        get(url, tmp_path / "a.zip", retries=3)
    assert len(script.asked) == 4
    assert not (tmp_path / "a.zip").exists()


def test_many_breaks_do_not_count_while_the_file_grows(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_core.data.http.FRUITFUL_BYTES", 10_000)
    url = script.on("/a", serve(stop_after=20_000))
    get(url, tmp_path / "a.zip", retries=1)
    assert len(script.asked) == 15
    assert script.sent == len(BODY)


def test_breaks_count_while_a_server_without_ranges_starts_over(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_core.data.http.FRUITFUL_BYTES", 10_000)
    with pytest.raises(SourceError, match="gave up"):
        get(script.on("/a", whole(stop_after=20_000)), tmp_path / "a.zip", retries=3)
    assert len(script.asked) == 4


def test_bytes_lost_and_fetched_again_are_no_progress(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_core.data.http.FRUITFUL_BYTES", 10_000)
    url = script.on("/a", *[serve(stop_after=20_000), status(416)] * 4, status(404))
    with pytest.raises(SourceError, match="gave up after 4 attempts"):
        get(url, tmp_path / "a.zip", retries=3)


def test_silent_server_counts_as_broken(script: Script, tmp_path: Path) -> None:
    done = threading.Event()

    def stall(handler: Handler) -> None:
        handler.give(200, BODY[:1000], Content_Length=str(len(BODY)), ETag='"one"')
        handler.wfile.flush()
        done.wait(5.0)

    url = script.on("/a", stall, serve())
    found = transfer(url, tmp_path / "a", Checks(), retries=1, timeout=0.3, sleep=lambda seconds: done.set())
    assert found.sha256 == SHA256
    assert script.ranges == [None, "bytes=1000-"]


def test_empty_answer_is_no_file(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="connection ended at 0"):
        get(script.on("/a", whole(b"")), tmp_path / "a.zip", Checks(), retries=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusal_is_not_retried(script: Script, tmp_path: Path, code: int) -> None:
    with pytest.raises(SourceError, match=str(code)):
        get(script.on("/a", status(code)), tmp_path / "a.zip")
    assert len(script.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_retry_after_is_honoured_and_backoff_doubles(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", status(429, Retry_After="7"), status(503), status(503), status(503), serve())
    assert get(url, tmp_path / "a.zip", retries=4) == [7.0, 2.0, 4.0, 8.0]


def test_retry_after_as_a_date(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", status(503, Retry_After=formatdate(time.time() + 30, usegmt=True)), serve())
    (wait,) = get(url, tmp_path / "a.zip")
    assert 25.0 < wait <= 30.0


def test_retry_after_of_hours_gives_the_address_up(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="come back in 7200 s"):
        get(script.on("/a", status(503, Retry_After="7200")), tmp_path / "a.zip")


def test_backoff_is_bounded(script: Script, tmp_path: Path) -> None:
    url = script.on("/a", *[status(500)] * 8, serve())
    assert max(get(url, tmp_path / "a.zip", retries=8)) == 60.0


def test_changed_bytes_are_fetched_once_more_and_then_refused(script: Script, tmp_path: Path) -> None:
    get(script.on("/a", serve(OTHER), serve(BODY)), tmp_path / "one" / "a.zip")
    assert len(script.asked) == 2
    with pytest.raises(WrongContentError, match="SHA-256 is"):
        get(script.on("/b", serve(OTHER)), tmp_path / "b.zip")
    assert len(script.asked) == 4
    assert not (tmp_path / "b.zip").exists()
    assert not (tmp_path / "b.zip.part").exists()


def test_web_page_is_no_archive(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="web page"):
        get(script.on("/a", whole(b"<html>log in</html>", Content_Type="text/html")), tmp_path / "a.zip", Checks())


def test_redirect_keeps_the_range(script: Script, tmp_path: Path) -> None:
    script.on("/there", serve(stop_after=100_000), serve())
    url = script.on("/here", status(302, Location="/there"))
    get(url, tmp_path / "a.zip")
    assert script.sent - 2 * len(b"no") == len(BODY)


def test_unreachable_host(tmp_path: Path, script: Script) -> None:
    with pytest.raises(SourceError, match="cannot be reached"):
        get("http://127.0.0.1:1/a", tmp_path / "a.zip", retries=1)
    with pytest.raises(SourceError, match="not an http"):
        get("file:///etc/hostname", tmp_path / "a.zip")


def test_two_processes_do_not_write_one_part(script: Script, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"

    def meanwhile(seconds: float) -> None:
        with pytest.raises(DownloadError, match="another process"):
            transfer(url, target, Checks(), retries=0, timeout=5.0)

    url = script.on("/a", status(503), serve())
    transfer(url, target, Checks(), retries=1, timeout=5.0, sleep=meanwhile)
    assert target.read_bytes() == BODY


def test_full_disk_is_said_before_the_first_byte(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DownloadError, match="free some space"):
        get(script.on("/a", serve()), tmp_path / "a.zip")


def test_log_lines_tell_rate_and_time_left(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lesion_core.data.byte_progress.LOG_SECONDS", 0.0)
    get(script.on("/a", serve()), tmp_path / "a.zip")
    text = capsys.readouterr().err
    assert "of 300.0 kB" in text
    assert "/s" in text
    assert "s left" in text


def test_bar_in_a_terminal(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    get(script.on("/a", serve()), tmp_path / "a.zip")
    assert "a.zip" in capsys.readouterr().err


# A dataset, several sources


def plant(monkeypatch: pytest.MonkeyPatch, *addresses: str, **known: object) -> None:
    """Makes the registry's ham10000 one file at ``addresses``."""
    file = RemoteFile("a.zip", addresses, "CC BY-NC 4.0", "someone", **known)
    monkeypatch.setitem(registry.RELEASES, "ham10000", Release("ham10000", (file,)))


def fetch(out: Path, mirror: Path | str | None = None, dataset: str = "ham10000", ph2: Path | None = None) -> dict:
    mirror, given = None if mirror is None else str(mirror), None if ph2 is None else str(ph2)
    listing = fetch_dataset(dataset, out, mirror=mirror, ph2=given, retries=1, timeout=5.0, sleep=lambda seconds: None)
    content = json.loads(listing.read_text())
    assert content["dataset"] == dataset
    (file,) = content["files"]
    assert list(file) == sorted(("name", "bytes", "sha256", "source", "verified_by", "licence"))
    assert digests(out / file["name"]).sha256 == file["sha256"]
    return file


def mirror_folder(tmp_path: Path, sums: bool, **files: bytes) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    lines = []
    for name, body in files.items():
        name = name.replace("_", ".")
        (folder / name).write_bytes(body)
        lines.append(f"{hashlib.sha256(body).hexdigest()}  {name}\n")
    if sums:
        (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


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


def test_weights_with_a_receipt(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile("b.pth", (script.on("/b", serve()),), "Apache-2.0", "someone", md5=MD5)
    monkeypatch.setitem(registry.WEIGHTS, "medsam", Weights("medsam", file, "?"))
    path = fetch_weights("medsam", tmp_path / "w", mirror=None, retries=0, timeout=5.0)
    assert path == tmp_path / "w" / "b.pth"
    receipt = json.loads((tmp_path / "w" / "b.pth.receipt.json").read_text())
    assert receipt["sha256"] == SHA256
    assert receipt["verified_by"] == "official md5"


def test_names_without_a_download(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="custom"):
        fetch(tmp_path, dataset="custom")
    with pytest.raises(SettingsError):
        fetch(tmp_path, dataset="isic2042")
    with pytest.raises(SettingsError):
        fetch_weights("sam", tmp_path, mirror=None, retries=0, timeout=1.0)


# PH2


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
