"""One file over HTTP: resumed after breaks, verified, and renamed into place only when it is right.

Beside the target lie ``<name>.part`` (bytes so far) and ``<name>.part.json`` (the address and the server's
validators), until the file is complete; both stay after a failure, so that the next call goes on from there.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lesion_core.acquire.checksums import Checks, Digests, digests
from lesion_core.errors import DownloadError
from lesion_core.files import CHUNK_BYTES, read_json, write_json
from lesion_core.progress import byte_progress, say, size_text

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
MAX_BACKOFF_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 600.0
# An attempt that brought at least this much more than any before it starts the count of attempts anew.
FRUITFUL_BYTES = 8 << 20
MOST_BYTES = 64 << 30  # of a file of unknown size; the largest official one has 11 GB
LEAST_RATE = 1 << 10  # bytes a second, over each WINDOW_SECONDS
WINDOW_SECONDS = 60.0
USER_AGENT = "lesion-core"


class SourceError(Exception):
    """This address cannot give the file; another one may. ``status`` is the HTTP status, if there was one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        self.reason = reason
        self.status = status
        super().__init__(reason)


class WrongContentError(SourceError):
    """The address gives other bytes than it should, twice from the start."""


class _Broken(Exception):
    """This attempt failed; the same address may still give the file."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason = reason
        self.wait = wait
        super().__init__(reason)


@dataclass(frozen=True)
class Patience:
    """How long an address is given.

    Attributes:
        retries: attempts after the first that may bring nothing new before it is given up.
        timeout: seconds without a byte before an attempt counts as broken.
        sleep: waits between attempts.
    """

    retries: int
    timeout: float
    sleep: Callable[[float], None] = time.sleep


def transfer(url: str, target: Path, checks: Checks, patience: Patience) -> Digests:
    """Fetch ``url`` into ``target``; nothing appears under that name before size and checksum fit.

    Args:
        url: http or https address.
        target: the file to make; its folder is made too.
        checks: what the bytes must be.

    Raises:
        SourceError: the address does not give the file (its ``reason`` says why).
        WrongContentError: it gives another content, after one retry from the start.
        DownloadError: the disk is too full, or another process is fetching the same file.
    """
    if not url.startswith(("http://", "https://")):
        raise SourceError("not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    download = _Download(url, target, checks, patience)
    lock = FileLock(target.with_name(f"{target.name}.lock"), timeout=0)
    try:
        with lock:
            try:
                return download.run()
            finally:
                Path(lock.lock_file).unlink()  # while it is held: nothing but the file is left in the folder
    except Timeout as error:
        raise DownloadError(
            "another process is fetching this file", file=download.part, remedy="wait for it, or end it"
        ) from error


class _Download:
    """One file from one address: see `transfer`."""

    def __init__(self, url: str, target: Path, checks: Checks, patience: Patience) -> None:
        self.url, self.target, self.checks, self.patience = url, target, checks, patience
        self.name = target.name
        self.part = target.with_name(f"{target.name}.part")
        self.validators = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size

    def run(self) -> Digests:
        """Two tries from the start at most; an empty part is not left behind."""
        self.part.touch()
        try:
            problem: str | None = None
            for _ in range(2):
                self._complete()
                found = digests(self.part)
                problem = self.checks.problem(found)
                if problem is None:
                    with open(self.part, "rb") as handle:
                        os.fsync(handle.fileno())
                    os.replace(self.part, self.target)
                    self.validators.unlink(missing_ok=True)
                    return found
                self._discard()
                say(f"{self.name}: {problem}; its bytes were deleted")
            raise WrongContentError(f"wrong content, twice from the start: {problem}")
        finally:
            if self.part.exists() and self.size == 0:
                self.part.unlink()
                self.validators.unlink(missing_ok=True)

    def _complete(self) -> None:
        """Attempts with growing waits until all bytes are there."""
        failures, best, retries = 0, self.size, self.patience.retries
        while True:
            try:
                return self._attempt()
            except _Broken as error:
                if self.size >= best + FRUITFUL_BYTES:
                    failures = 0
                best = max(best, self.size)
                failures += 1
                if failures > retries:
                    raise SourceError(f"{error.reason} (gave up after {failures} attempts)") from error
                wait = min(MAX_BACKOFF_SECONDS, 2.0 ** (failures - 1)) if error.wait is None else error.wait
                say(f"{self.name}: {error.reason}; attempt {failures + 1} of {retries + 1} in {wait:.0f} s")
                self.patience.sleep(wait)

    def _attempt(self) -> None:
        """One request, appended to what is there."""
        whole = self.checks.bytes
        kept = self._resume_headers() if self.size else None
        if kept is None or (whole is not None and self.size > whole):
            self._discard()
            kept = {}
        offset = self.size
        if offset == whole:
            return
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **kept}
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self.patience.timeout)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, offset)
            return
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise SourceError(f"its certificate is not trusted: {error.reason}") from error
            raise _Broken(f"cannot be reached: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"cannot be reached: {error!r}") from error
        with response:
            self._receive(response, offset)

    def _refused(self, error: urllib.error.HTTPError, offset: int) -> None:
        """Returns if the answer means "you have it all"; raises otherwise."""
        reason = f"HTTP {error.code} {error.reason}".rstrip()
        if error.code == 416 and offset:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                return
            self._discard()
            raise _Broken(f"{reason}: starting over")
        if error.code not in TRANSIENT:
            raise SourceError(reason, error.code)
        wait = _retry_after(error.headers.get("Retry-After"))
        if wait is not None and wait > MAX_RETRY_AFTER_SECONDS:
            raise SourceError(f"{reason}: asks to come back in {wait:.0f} s", error.code)
        raise _Broken(reason, wait)

    def _receive(self, response: http.client.HTTPResponse, offset: int) -> None:
        """Append the body, or start over where the server sends the whole file."""
        checks, headers = self.checks, response.headers
        if headers.get_content_type() == "text/html" and not self.name.endswith((".html", ".htm")):
            raise SourceError("answers with a web page instead of the file")
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if response.status == 206:
            total = self._check_range(headers, offset)
        else:
            if offset:
                say(f"{self.name}: the server sends the whole file again; starting over")
                self._discard()
            offset = 0
            # The validators describe these bytes, so they are kept before the first of them is.
            state = {"url": self.url, "etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
            write_json(self.validators, state)
        if total is not None and checks.bytes is not None and total != checks.bytes and not checks.has_digest:
            raise SourceError(f"offers {total} bytes, the release has {checks.bytes}")
        if total is not None and total > MOST_BYTES:
            raise SourceError(f"offers {total} bytes, more than the {MOST_BYTES} that a file may have")
        most = MOST_BYTES if checks.bytes is None else checks.bytes
        expected = total if checks.bytes is None else checks.bytes
        self._require_space(None if expected is None else expected - offset)
        size = seen = offset
        since = time.monotonic()
        with byte_progress(self.name, offset, expected) as show, open(self.part, "ab") as handle:
            while chunk := _read(response):
                handle.write(chunk)
                size += len(chunk)
                show(size)
                if size > most:
                    break
                if (passed := time.monotonic() - since) > WINDOW_SECONDS:
                    if size - seen < LEAST_RATE * passed:
                        raise _Broken(f"brings less than {LEAST_RATE} bytes a second")
                    seen, since = size, time.monotonic()
        if size > most:
            self._discard()
            raise SourceError(f"sends more than the {most} bytes of the release")
        # A file of no bytes is never a release.
        if size < max(1, expected or 0):
            raise _Broken(f"connection ended at {size} of {expected or 'an unknown number of'} bytes")

    def _state(self) -> dict[str, Any]:
        """The address that the bytes came from, and its validators; empty where that is not known."""
        try:
            return read_json(self.validators)
        except (OSError, ValueError):
            return {}

    def _resume_headers(self) -> dict[str, str] | None:
        """Request headers to go on from the bytes that are there; None where that would not be safe."""
        headers, state = {"Range": f"bytes={self.size}-"}, self._state()
        etag, modified = state.get("etag"), state.get("last_modified")
        # A weak tag does not promise equal bytes, so it may not stand in If-Range (RFC 9110, section 13.1.5).
        validator = etag if etag and not etag.startswith("W/") else modified
        if state.get("url") == self.url and validator:
            return {**headers, "If-Range": validator}
        # Without a validator only a checksum can tell whether the two halves belong together.
        return headers if self.checks.has_digest else None

    def _check_range(self, headers: http.client.HTTPMessage, offset: int) -> int | None:
        """Total size from Content-Range; _Broken if the range is not the one asked for or the file has changed."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        etag = self._state().get("etag")
        changed = etag and headers.get("ETag") and etag != headers["ETag"]
        if found is None or int(found[1]) != offset or changed:
            self._discard()
            raise _Broken("the file changed on the server" if changed else "another range than asked for")
        return None if found[2] == "*" else int(found[2])

    def _discard(self) -> None:
        os.truncate(self.part, 0)
        self.validators.unlink(missing_ok=True)

    def _require_space(self, wanted: int | None) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if wanted is not None and wanted > free:
            raise DownloadError(
                f"{size_text(wanted)} more are needed, {size_text(free)} are free on this disk",
                file=self.part,
                remedy="free some space or let the results lie on another disk; the download will resume",
            )


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; a broken connection is told apart from a full disk by being raised here."""
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"connection broke: {error!r}") from error


def _retry_after(value: str | None) -> float | None:
    """Seconds asked for by a Retry-After header: a number or a date; None if there is none to read."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value.strip())
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
