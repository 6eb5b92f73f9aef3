"""A real server on loopback that fails in every way we know of, and what the tests of downloads share."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from lesion_core.acquire import registry
from lesion_core.acquire.checksums import Checks, digests
from lesion_core.acquire.download import fetch_dataset
from lesion_core.acquire.http import Patience, transfer
from lesion_core.acquire.registry import Release, RemoteFile

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
    """A server on loopback, told per path what to answer."""
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
    found = transfer(url, target, checks, Patience(retries, 5.0, waits))
    assert found == digests(target)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    return waits.seconds


def plant(monkeypatch: pytest.MonkeyPatch, *addresses: str, **known: object) -> None:
    """Makes the registry's ham10000 one file at ``addresses``."""
    file = RemoteFile("a.zip", addresses, "CC BY-NC 4.0", "someone", **known)
    monkeypatch.setitem(registry.RELEASES, "ham10000", Release("ham10000", (file,)))


def fetch(out: Path, mirror: Path | str | None = None, dataset: str = "ham10000", ph2: Path | None = None) -> dict:
    mirror, given = None if mirror is None else str(mirror), None if ph2 is None else str(ph2)
    listing = fetch_dataset(dataset, out, mirror=mirror, ph2=given, patience=Patience(1, 5.0, lambda seconds: None))
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
