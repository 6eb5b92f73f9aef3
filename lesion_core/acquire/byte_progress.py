"""How far a transfer is: bytes, rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lesion_core.progress import LOG_SECONDS, say


def size_text(count: float) -> str:
    """A byte count for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


@contextmanager
def byte_progress(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function of the bytes so far: a bar with rate and time left, or a log line every ten seconds."""
    began = shown = time.monotonic()
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=total, completed=start)
            yield lambda size: bar.update(task, completed=size)
        return
    size_now = start

    def show(size: int) -> None:
        nonlocal shown, size_now
        size_now, now = size, time.monotonic()
        if now - shown < LOG_SECONDS:
            return
        shown = now
        rate = (size - start) / (now - began)
        left = "" if total is None or rate == 0 else f", about {(total - size) / rate:.0f} s left"
        whole = "" if total is None else f" of {size_text(total)}"
        say(f"{name}: {size_text(size)}{whole}, {size_text(rate)}/s{left}")

    yield show
    seconds = max(time.monotonic() - began, 1e-3)
    say(f"{name}: {size_text(size_now)}, {size_text((size_now - start) / seconds)}/s")
