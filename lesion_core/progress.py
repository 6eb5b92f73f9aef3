"""Progress for people: a bar in a terminal, plain lines with time stamps in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console

Item = TypeVar("Item")
LOG_SECONDS = 10.0


def say(text: str) -> None:
    """One line to stderr, with the time of day, flushed (a log must be readable while the job runs)."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` and show progress: a rich bar on a terminal, elsewhere a line every ten seconds."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from progress.track(items, description=label, total=total, console=Console(stderr=True))
        return
    started = shown = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - shown >= LOG_SECONDS:
            shown = now
            rate = count / (now - started)
            left = "" if total is None else f", about {(total - count) / rate:.0f} s left"
            say(f"{label}: {count}{'' if total is None else f' of {total}'}, {rate:.1f}/s{left}")
    say(f"{label}: {count} done in {time.monotonic() - started:.1f} s")


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
