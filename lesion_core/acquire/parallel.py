"""Work on many images at once: decoding, resizing and look-ups release the interpreter's lock, so threads do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lesion_core.acquire.opencv import single_thread
from lesion_core.progress import track
from lesion_core.seeding import granted_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], label: str, workers: int | None = None
) -> Iterator[Result]:
    """``work`` on every item, results in the order of ``items``.

    Args:
        work: must not depend on the order of calls.
        items: what is worked on.
        label: of the progress bar.
        workers: threads; None takes those that this process may use, 1 works in this thread.
    """
    if workers == 1:
        yield from track(map(work, items), label, len(items))
        return
    pool = ThreadPoolExecutor(workers or granted_threads())
    try:
        with single_thread():
            yield from track(pool.map(work, items), label, len(items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
