"""One file from one address: breaks, resuming, wrong lengths, silence."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from download_server import BODY, OTHER, SHA256, Handler, Script, get, script, serve, status, whole

from lesion_core.acquire.checksums import Checks
from lesion_core.acquire.http import Patience, SourceError, transfer


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
    monkeypatch.setattr("lesion_core.acquire.http.FRUITFUL_BYTES", 10_000)
    url = script.on("/a", serve(stop_after=20_000))
    get(url, tmp_path / "a.zip", retries=1)
    assert len(script.asked) == 15
    assert script.sent == len(BODY)


def test_breaks_count_while_a_server_without_ranges_starts_over(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_core.acquire.http.FRUITFUL_BYTES", 10_000)
    with pytest.raises(SourceError, match="gave up"):
        get(script.on("/a", whole(stop_after=20_000)), tmp_path / "a.zip", retries=3)
    assert len(script.asked) == 4


def test_bytes_lost_and_fetched_again_are_no_progress(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesion_core.acquire.http.FRUITFUL_BYTES", 10_000)
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
    found = transfer(url, tmp_path / "a", Checks(), Patience(1, 0.3, lambda seconds: done.set()))
    assert found.sha256 == SHA256
    assert script.ranges == [None, "bytes=1000-"]


def test_empty_answer_is_no_file(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="connection ended at 0"):
        get(script.on("/a", whole(b"")), tmp_path / "a.zip", Checks(), retries=0)
    assert list(tmp_path.iterdir()) == []
