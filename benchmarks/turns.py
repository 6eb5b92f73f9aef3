"""Candidates timed in turns within one process, so that a change of the machine's load hits all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Seconds:
    """What the rounds of one candidate took; the fastest round had least company on the machine."""

    median: float
    fastest: float


def in_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, Seconds]:
    """Seconds of each candidate; each runs once per round, after one round unmeasured.

    Core seconds, since they hardly depend on what else the machine does; for candidates of several threads take
    ``time.perf_counter``.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for lap in range(rounds + 1):
        for name, work in candidates.items():
            start = clock()
            work()
            if lap:
                taken[name].append(clock() - start)
    return {name: Seconds(statistics.median(seconds), min(seconds)) for name, seconds in taken.items()}


def machine() -> str:
    """Processors and load, which every ratio should be read with."""
    processors = len(os.sched_getaffinity(0))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{processors} processors; load average {load} (1, 5, 15 minutes)"


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"\n## {title}\n")
    print("| " + " | ".join(headings) + " |")
    print("|---" + "|---:" * (len(headings) - 1) + "|", flush=True)
    add_rows(rows)


def add_rows(rows: Sequence[Sequence[object]]) -> None:
    """Print further rows of the table that ``show`` began."""
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def goal(ratio: float, wanted: float) -> str:
    """A ratio beside what it should reach."""
    return f"{ratio:.2f} (goal {wanted:g}: {'reached' if ratio >= wanted else 'not reached'})"


def both(seconds: Seconds, items: int = 1) -> str:
    """Milliseconds per item, of the median round and of the fastest."""
    return f"{1e3 * seconds.median / items:.2f} ({1e3 * seconds.fastest / items:.2f})"


def faster(slow: Seconds, fast: Seconds, wanted: float | None = None) -> str:
    """How many times faster, by the median rounds beside its goal, and by the fastest rounds."""
    ratio = slow.median / fast.median
    told = f"{ratio:.2f}" if wanted is None else goal(ratio, wanted)
    return f"{told}; {slow.fastest / fast.fastest:.2f}"
