"""Made dermoscopy images with exact masks: for the smoke profile, for tests and for pretraining."""

from __future__ import annotations

from lesion_core.acquire.synthetic.archives import write_mirror
from lesion_core.acquire.synthetic.draw import draw, draw_batch, synthetic_image
from lesion_core.acquire.synthetic.lesion import Lesion, make_lesion

__all__ = ["Lesion", "draw", "draw_batch", "make_lesion", "synthetic_image", "write_mirror"]
