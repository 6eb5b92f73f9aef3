"""Otsu's threshold as a segmenter: the baseline that learns nothing."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from lesion_core.errors import ImageError
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.trainable import Segmenter

# sigmoid(+-10) is 1 or 0 to five decimals: a threshold has no degrees, so any probability cut finds the same mask.
LOGIT = 10.0


class OtsuSegmenter(Segmenter):
    """Gaussian blur, Otsu's threshold (IEEE SMC 1979) in blue, darker side, largest component, holes filled.

    Melanin and haemoglobin absorb most in blue, and skin least.
    """

    logit: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Lets a caller find the device, as with the models that have parameters.
        self.register_buffer("logit", torch.tensor(LOGIT), persistent=False)
        self.fix_trainable()

    def forward(self, images: Tensor, prompts: Prompts | None = None) -> Tensor:
        """(B, 3, S, S) float, 0..255, RGB -> (B, 1, S, S) float32, +10 in the lesion and -10 outside.

        Raises:
            ImageError: a prompt is given (a threshold takes none), or images of another shape.
        """
        if prompts is not None:
            raise ImageError("Otsu's method takes no prompts", remedy='score it with prompt "none" only')
        if images.ndim != 4 or images.shape[1] != 3:
            raise ImageError(f"Otsu's method takes (B, 3, H, W) images, not {tuple(images.shape)}")
        pixels = images.detach().clamp(0, 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
        masks = np.stack([otsu_mask(image) for image in pixels])
        lesion = torch.from_numpy(masks).to(self.logit.device).unsqueeze(1)
        return torch.where(lesion, self.logit, -self.logit)


def otsu_mask(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) bool; all False for an image of one value."""
    values = cv2.GaussianBlur(np.ascontiguousarray(image[..., 2]), (5, 5), 0)
    if values.min() == values.max():
        return np.zeros(values.shape, dtype=bool)
    _, dark = cv2.threshold(values, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    if count < 2:
        return np.zeros(values.shape, dtype=bool)
    largest = (labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(largest, outlines, -1, 1, thickness=cv2.FILLED).astype(bool)
