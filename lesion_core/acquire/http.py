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
from email.utils import parsedate_to_datetime
from pathlib import Path

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


def transfer(
    url: str,
    target: Path,
    checks: Checks,
    *,
    retries: int,
    timeout: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Digests:
    """Fetch ``url`` into ``target``; nothing appears under that name before size and checksum fit.

    Args:
        url: http or https address.
        target: the file to make; its folder is made too.
        checks: what the bytes must be.
        retries: attempts after the first that may bring nothing new before the address is given up.
        timeout: seconds without a byte before an attempt counts as broken.
        sleep: waits between attempts.

    Raises:
        SourceError: the address does not give the file (its ``reason`` says why).
        WrongContentError: it gives another content, after one retry from the start.
        DownloadError: the disk is too full, or another process is fetching the same file.
    """
    if not url.startswith(("http://", "https://")):
        raise SourceError("not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    lock = FileLock(target.with_name(f"{target.name}.lock"), timeout=0)
    try:
        with lock:
            try:
                return _fetch_verified(url, target, part, checks, retries, timeout, sleep)
            finally:
                Path(lock.lock_file).unlink()  # while it is held: nothing but the file is left in the folder
    except Timeout as error:
        raise DownloadError(
            "another process is fetching this file", file=part, remedy="wait for it, or end it"
        ) from error


def _fetch_verified(
    url: str, target: Path, part: Path, checks: Checks, retries: int, timeout: float, sleep: Callable[[float], None]
) -> Digests:
    """Two tries from the start at most; an empty part is not left behind."""
    part.touch()
    try:
        problem: str | None = None
        for _ in range(2):
            _complete(url, part, checks, retries, timeout, sleep)
            found = digests(part)
            problem = checks.problem(found)
            if problem is None:
                with open(part, "rb") as handle:
                    os.fsync(handle.fileno())
                os.replace(part, target)
                _validators(part).unlink(missing_ok=True)
                return found
            _discard(part)
            say(f"{target.name}: {problem}; its bytes were deleted")
        raise WrongContentError(f"wrong content, twice from the start: {problem}")
    finally:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()
            _validators(part).unlink(missing_ok=True)


def _complete(
    url: str, part: Path, checks: Checks, retries: int, timeout: float, sleep: Callable[[float], None]
) -> None:
    """Attempts with growing waits until all bytes are there."""
    name = part.name.removesuffix(".part")
    failures, best = 0, part.stat().st_size
    while True:
        try:
            _attempt(url, part, checks, timeout)
            return
        except _Broken as error:
            size = part.stat().st_size
            if size >= best + FRUITFUL_BYTES:
                failures = 0
            best = max(best, size)
            failures += 1
            if failures > retries:
                raise SourceError(f"{error.reason} (gave up after {failures} attempts)") from error
            wait = min(MAX_BACKOFF_SECONDS, 2.0 ** (failures - 1)) if error.wait is None else error.wait
            say(f"{name}: {error.reason}; attempt {failures + 1} of {retries + 1} in {wait:.0f} s")
            sleep(wait)


def _attempt(url: str, part: Path, checks: Checks, timeout: float) -> None:
    """One request, appended to what is there."""
    offset = part.stat().st_size
    kept = _resume_headers(url, part, checks) if offset else None
    if kept is None or (checks.bytes is not None and offset > checks.bytes):
        _discard(part)
        offset, kept = 0, {}
    if checks.bytes is not None and offset == checks.bytes:
        return
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **kept}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, part, offset)
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise SourceError(f"its certificate is not trusted: {error.reason}") from error
        raise _Broken(f"cannot be reached: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"cannot be reached: {error!r}") from error
    with response:
        _receive(response, url, part, checks, offset)


def _refused(error: urllib.error.HTTPError, part: Path, offset: int) -> None:
    """Returns if the answer means "you have it all"; raises otherwise."""
    reason = f"HTTP {error.code} {error.reason}".rstrip()
    if error.code == 416 and offset:
        if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
            return
        _discard(part)
        raise _Broken(f"{reason}: starting over")
    if error.code not in TRANSIENT:
        raise SourceError(reason, error.code)
    wait = _retry_after(error.headers.get("Retry-After"))
    if wait is not None and wait > MAX_RETRY_AFTER_SECONDS:
        raise SourceError(f"{reason}: asks to come back in {wait:.0f} s", error.code)
    raise _Broken(reason, wait)


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


def _receive(response: http.client.HTTPResponse, url: str, part: Path, checks: Checks, offset: int) -> None:
    """Append the body, or start over where the server sends the whole file."""
    name = part.name.removesuffix(".part")
    headers = response.headers
    if headers.get_content_type() == "text/html" and not name.endswith((".html", ".htm")):
        raise SourceError("answers with a web page instead of the file")
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if response.status == 206:
        total = _check_range(headers, part, offset)
    else:
        if offset:
            say(f"{name}: the server sends the whole file again; starting over")
            _discard(part)
        offset = 0
        # The validators describe these bytes, so they are kept before the first of them is.
        state = {"url": url, "etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
        write_json(_validators(part), state)
    if total is not None and checks.bytes is not None and total != checks.bytes and not checks.has_digest:
        raise SourceError(f"offers {total} bytes, the release has {checks.bytes}")
    most = MOST_BYTES if checks.bytes is None else checks.bytes
    if total is not None and total > MOST_BYTES:
        raise SourceError(f"offers {total} bytes, more than the {MOST_BYTES} that a file may have")
    expected = total if checks.bytes is None else checks.bytes
    _require_space(part, None if expected is None else expected - offset)
    size = seen = offset
    since = time.monotonic()
    with byte_progress(name, offset, expected) as show, open(part, "ab") as handle:
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
        _discard(part)
        raise SourceError(f"sends more than the {most} bytes of the release")
    # A file of no bytes is never a release.
    if size < max(1, expected or 0):
        raise _Broken(f"connection ended at {size} of {expected or 'an unknown number of'} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; a broken connection is told apart from a full disk by being raised here."""
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"connection broke: {error!r}") from error


def _resume_headers(url: str, part: Path, checks: Checks) -> dict[str, str] | None:
    """Request headers to go on from the bytes that are there; None where that would not be safe."""
    headers = {"Range": f"bytes={part.stat().st_size}-"}
    try:
        state = read_json(_validators(part))
    except (OSError, ValueError):
        state = {}
    etag, modified = state.get("etag"), state.get("last_modified")
    # A weak tag does not promise equal bytes, so it may not stand in If-Range (RFC 9110, section 13.1.5).
    validator = etag if etag and not etag.startswith("W/") else modified
    if state.get("url") == url and validator:
        return {**headers, "If-Range": validator}
    # Without a validator only a checksum can tell whether the two halves belong together.
    return headers if checks.has_digest else None


def _check_range(headers: http.client.HTTPMessage, part: Path, offset: int) -> int | None:
    """Total size from Content-Range; _Broken if the range is not the one asked for or the file has changed."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    kept = read_json(_validators(part)) if _validators(part).exists() else {}
    changed = kept.get("etag") and headers.get("ETag") and kept["etag"] != headers["ETag"]
    if found is None or int(found[1]) != offset or changed:
        _discard(part)
        raise _Broken("the file changed on the server" if changed else "another range than asked for")
    return None if found[2] == "*" else int(found[2])


def _validators(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    os.truncate(part, 0)
    _validators(part).unlink(missing_ok=True)


def _require_space(part: Path, wanted: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted is not None and wanted > free:
        raise DownloadError(
            f"{size_text(wanted)} more are needed, {size_text(free)} are free on this disk",
            file=part,
            remedy="free some space or let the results lie on another disk; the download will resume",
        )
