"""SAM's own frame: an image's longer side fills the input, the rest of the shorter one is padded.

The pipeline's images are resized to a square. Here they get their proportions back inside SAM alone, as
segment_anything's ResizeLongestSide and ``Sam.preprocess`` have it (Kirillov et al., ICCV 2023): outside, prompts and
masks stay those of the square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lesion_core.errors import ImageError
from lesion_core.models.sam.network import normalise
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter


def content_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(rows, columns) that an image fills of an input of ``size`` pixels: ResizeLongestSide's rule."""
    scale = size / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


class PaddedSam:
    """``encode``, ``decode``, ``decode_all`` and a call as `SamSegmenter` has them, in SAM's own frame.

    Args:
        sam: a SAM without adapters; nothing learns in this frame.
        sizes: (height, width) of each image in its own pixels; one alone stands for every row of a batch.
    """

    def __init__(self, sam: SamSegmenter, sizes: Sequence[tuple[int, int]]) -> None:
        self.sam = sam
        self.contents = [content_size(height, width, sam.image_size) for height, width in sizes]

    @property
    def image_size(self) -> int:
        """S, the side of the input in pixels."""
        return self.sam.image_size

    def __call__(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Lesion logits (B, 1, S, S) of resized images (B, 3, S, S), RGB, 0..255."""
        return self.decode(self.encode(images), prompts)

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings (B, C, S/16, S/16) of resized images (B, 3, S, S) float, RGB, 0..255.

        Blank is what is left after normalisation, so zeros there are SAM's mean colour.

        Raises:
            ImageError: not one size per image, or images of another shape.
        """
        framed = torch.zeros_like(images)
        for row, (image, (height, width)) in enumerate(zip(images, self._contents(len(images)), strict=True)):
            content = functional.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)
            # whole numbers, as in the images that SAM saw
            framed[row, :, :height, :width] = normalise(self.sam.sam, content.round().clamp(0, 255))[0]
        return self.sam.embed(framed)

    def decode(self, embeddings: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Lesion logits (B, 1, S, S) float32, resized; prompts in pixels of the resized images."""
        logits = self.sam.decode(embeddings, self._inside(prompts, len(embeddings)))
        return self._resized(logits, self.image_size)

    def decode_all(self, embeddings: Tensor, prompts: Prompts | None = None) -> tuple[Tensor, Tensor]:
        """All four masks (B, 4, S/4, S/4) float32, resized, and their estimated IoU (B, 4)."""
        logits, iou = self.sam.decode_all(embeddings, self._inside(prompts, len(embeddings)))
        return self._resized(logits, logits.shape[-1]), iou

    def _contents(self, count: int) -> list[tuple[int, int]]:
        contents = self.contents * count if len(self.contents) == 1 else self.contents
        if len(contents) != count:
            raise ImageError(f"{count} images but {len(contents)} sizes", remedy="give one size per image")
        return contents

    def _shares(self, count: int, like: Tensor) -> Tensor:
        """(B, 2) of the input that contents fill, (x, y)."""
        shares = [(width / self.image_size, height / self.image_size) for height, width in self._contents(count)]
        return torch.tensor(shares, dtype=torch.float32, device=like.device)

    def _inside(self, prompts: Prompts | None, count: int) -> Prompts | None:
        """The prompts where they lie in SAM's frame; coordinates are pixel indexes, centres lie 0.5 further."""
        if prompts is None or len(prompts) != count:
            return prompts  # another number of them is refused below
        boxes, points = prompts.boxes, prompts.points
        if boxes is not None:
            boxes = (boxes.float() + 0.5) * self._shares(count, boxes).repeat(1, 2) - 0.5
        if points is not None:
            points = (points.float() + 0.5) * self._shares(count, points)[:, None] - 0.5
        return Prompts(boxes=boxes, points=points, point_labels=prompts.point_labels)

    def _resized(self, logits: Tensor, side: int) -> Tensor:
        """(B, M, side, side) of low-resolution logits (B, M, s, s): segment_anything's own way out of its frame."""
        out = self.sam.sam.postprocess_masks
        rows = zip(logits.split(1), self._contents(len(logits)), strict=True)
        # one by one: at 1024 pixels the masks of one image in full take 16 MB
        return torch.cat([out(row, content, (side, side)) for row, content in rows])
