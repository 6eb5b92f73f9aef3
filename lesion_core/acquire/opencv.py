"""OpenCV on one thread: our parallelism is over images, and a second pool inside each would only contend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def single_thread() -> Iterator[None]:
    """Set OpenCV to one thread while the block runs, then restore what was set (the setting is process-wide)."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
