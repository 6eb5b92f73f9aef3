"""What a server may say besides the file: refusals, waits, changed bytes, pages, redirects; and what a person sees."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from download_server import BODY, OTHER, Script, get, script, serve, status, whole

from lesion_core.acquire import http
from lesion_core.acquire.checksums import Checks
from lesion_core.acquire.http import Patience, SourceError, WrongContentError, transfer
from lesion_core.errors import DownloadError


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
            transfer(url, target, Checks(), Patience(0, 5.0))

    url = script.on("/a", status(503), serve())
    transfer(url, target, Checks(), Patience(1, 5.0, meanwhile))
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
    monkeypatch.setattr("lesion_core.progress.LOG_SECONDS", 0.0)
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


def trickle(seconds: float, bytes_each: int, **headers: str):
    """A server that goes on for ``seconds`` with so many bytes every twentieth of one."""

    def answer(handler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            handler.wfile.write(b"x" * bytes_each)
            time.sleep(0.05)

    return answer


def test_a_trickle_is_given_up(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WINDOW_SECONDS", 0.2)
    url = script.on("/a", trickle(5.0, 10, Content_Length="100000"))
    started = time.monotonic()
    with pytest.raises(SourceError, match="less than 1024 bytes a second"):
        transfer(url, tmp_path / "a.zip", Checks(), Patience(1, 5.0, lambda seconds: None))
    assert time.monotonic() - started < 4.0


def test_an_answer_without_an_end_is_cut(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 10_000)
    for url, said in (
        (script.on("/a", trickle(5.0, 4_000)), "sends more than the 10000 bytes"),
        (script.on("/b", whole(b"x" * 20_000)), "offers 20000 bytes, more than the 10000"),
    ):
        with pytest.raises(SourceError, match=said):
            transfer(url, tmp_path / "a.zip", Checks(), Patience(0, 5.0, lambda seconds: None))
        assert list(tmp_path.iterdir()) == []
