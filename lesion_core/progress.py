"""Progress for people: a bar in a terminal, plain lines with time stamps in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description=label, total=total, console=Console(stderr=True))
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
