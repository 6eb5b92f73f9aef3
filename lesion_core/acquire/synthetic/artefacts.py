"""What lies between the lesion and the picture: hair, gel, ink, rulers, frames, lens and sensor."""

from __future__ import annotations

import cv2
import numpy as np

from lesion_core.acquire.synthetic.noise import field


def hair(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw dark or light hairs over a float32 (H, W, 3) image, in place."""
    height, width = image.shape[:2]
    scale = max(height, width)
    count = int(rng.choice([rng.integers(1, 6), rng.integers(5, 18), rng.integers(15, 55)], p=[0.55, 0.35, 0.1]))
    light = rng.random() < 0.2
    colour = np.array([225, 210, 190]) if light else np.array([60, 38, 30]) * rng.uniform(0.3, 1.8)
    main = rng.uniform(0, np.pi)
    spread = rng.uniform(0.2, 1.3)
    layer = np.zeros((height, width), np.uint8)
    steps = np.linspace(0, 1, 14)[:, None]
    for _ in range(count):
        turn = main + spread * rng.standard_normal()
        along = np.array([np.cos(turn), np.sin(turn)])
        across = np.array([-along[1], along[0]])
        middle = rng.uniform(0, 1, 2) * (width, height)
        reach = scale * rng.uniform(0.12, 0.75)
        bend = reach * 0.7 * rng.standard_normal()
        swing = rng.uniform(-3, 3)
        sideways = bend * (1.5 * (steps - 0.3) ** 2 + swing * (steps - 0.5) ** 3)
        path = middle + along * (2 * steps - 1) * reach + across * sideways
        points = (path * 16).astype(np.int32)
        thick = scale / 256 * rng.uniform(0.4, 1.9)
        tone = int(rng.integers(90, 256))
        for i in range(0, len(points) - 1, 4):
            taper = 1 - 0.5 * i / len(points)
            cv2.polylines(layer, [points[i : i + 5]], False, tone, max(1, round(thick * taper)), cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(layer, (0, 0), 0.55)
    cover = soft.astype(np.float32)[..., None] * np.float32(rng.uniform(0.6, 0.95) / 255)
    image += cover * (colour.astype(np.float32) - image)


def bubbles(rng: np.random.Generator, image: np.ndarray) -> None:
    """Bubbles in the immersion gel: bright rims with a darker half, in place."""
    height, width = image.shape[:2]
    scale = max(height, width)
    light = np.zeros((height, width), np.uint8)
    dark = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        radius = max(2, int(scale * rng.uniform(0.008, 0.06)))
        axes = (radius, max(2, int(radius * rng.uniform(0.7, 1.0))))
        start = float(rng.uniform(0, 360))
        cv2.ellipse(light, centre, axes, 0, start, start + float(rng.uniform(120, 360)), 255, 1, cv2.LINE_AA)
        cv2.ellipse(dark, centre, axes, 0, start + 180, start + 360, 200, 1, cv2.LINE_AA)
    blurred = cv2.GaussianBlur(light, (0, 0), 0.7).astype(np.float32) / 255
    shade = cv2.GaussianBlur(dark, (0, 0), 1.2).astype(np.float32) / 255
    image *= 1 - 0.35 * shade[..., None]
    image += (0.8 * blurred)[..., None] * (250 - image)


def glints(rng: np.random.Generator, image: np.ndarray) -> None:
    """Specular reflections: short bright squiggles and points, in place."""
    height, width = image.shape[:2]
    scale = max(height, width)
    layer = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.choice([3, 8, 20, 50]))):
        start = rng.uniform(0, 1, 2) * (width, height)
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.4, 5))
        path = start + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * scale * rng.exponential(0.003)
        cv2.polylines(layer, [(path * 16).astype(np.int32)], False, int(rng.integers(60, 230)), 1, cv2.LINE_AA, 4)
    image += (layer.astype(np.float32) / 255 * 0.8)[..., None] * (252 - image)


def ruler(rng: np.random.Generator, image: np.ndarray) -> None:
    """Tick marks of a scale along one side, in place."""
    height, width = image.shape[:2]
    scale = max(height, width)
    step = scale * rng.uniform(0.025, 0.06)
    offset = rng.uniform(0.03, 0.12)
    layer = np.zeros((height, width), np.uint8)
    upright = rng.random() < 0.5
    far = rng.random() < 0.5
    edge = (width if upright else height) * ((1 - offset) if far else offset)
    for i in range(int((height if upright else width) / step)):
        length = scale * (0.035 if i % 5 == 0 else 0.018)
        at = (i + 0.5) * step
        ends = ((edge, at), (edge + length, at)) if upright else ((at, edge), (at, edge + length))
        first, second = (tuple(int(v * 16) for v in end) for end in ends)
        cv2.line(layer, first, second, 255, max(1, round(scale / 300)), cv2.LINE_AA, 4)
    tone = 30.0 if rng.random() < 0.7 else 235.0
    image += (layer.astype(np.float32) / 255 * 0.85)[..., None] * (tone - image)


def ink(rng: np.random.Generator, image: np.ndarray) -> None:
    """Surgical marker or a coloured patch near a side, in place."""
    height, width = image.shape[:2]
    scale = max(height, width)
    layer = np.zeros((height, width), np.uint8)
    colour = np.array([(85, 60, 150), (60, 70, 160), (190, 170, 60), (50, 130, 110), (230, 120, 40)][rng.integers(5)])
    side = rng.integers(4)
    corner = np.array([(0, 0), (1, 0), (0, 1), (1, 1)][side]) * (width, height)
    if rng.random() < 0.35:
        cv2.circle(layer, tuple(int(v) for v in corner), int(scale * rng.uniform(0.1, 0.28)), 255, -1, cv2.LINE_AA)
    else:
        for _ in range(int(rng.integers(1, 4))):
            start = corner + (np.array([width, height]) / 2 - corner) * rng.uniform(0.05, 0.4)
            turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, 8))
            path = start + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * scale * 0.04
            thick = max(1, round(scale * rng.uniform(0.008, 0.03)))
            cv2.polylines(layer, [(path * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4)
    cover = cv2.GaussianBlur(layer, (0, 0), scale / 256 * rng.uniform(0.5, 2.5)).astype(np.float32) / 255
    broken = np.clip(0.75 + 0.35 * field(rng, (height, width), 40, 2), 0, 1) * rng.uniform(0.3, 0.85)
    image += (cover * broken.astype(np.float32))[..., None] * (colour.astype(np.float32) - image)


def light(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Illumination, float32 (H, W) around 1: a gradient and a fall-off towards the corners."""
    height, width = shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    turn = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.12)
    falloff = rng.uniform(0, 0.22) * (rng.random() < 0.7)
    shift = rng.uniform(-0.2, 0.2, 2)
    gradient = slope * (np.cos(turn) * x + np.sin(turn) * y)
    corners = falloff * ((x - shift[0]) ** 2 + (y - shift[1]) ** 2 - 0.6)
    return (1 + gradient - corners).astype(np.float32)


def frame(rng: np.random.Generator, image: np.ndarray, circle: bool) -> None:
    """A round black frame (the dermoscope's tube) or dark corners, in place."""
    from lesion_core.acquire.synthetic.noise import smoothstep

    height, width = image.shape[:2]
    aspect = width / height
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(aspect)
    reach = float(np.hypot(1, aspect))
    radius = rng.uniform(0.68, 0.92) * reach if circle else rng.uniform(0.84, 0.98) * reach
    shift = rng.uniform(-0.06, 0.06, 2)
    away = np.sqrt((x - shift[0]) ** 2 + (y - shift[1]) ** 2)
    width_of_edge = rng.uniform(0.02, 0.3) if circle else rng.uniform(0.1, 0.4)
    dark = smoothstep(away, radius - width_of_edge, radius + 0.02)[..., None]
    tone = rng.uniform(2, 45)
    image += dark * (tone * np.array([1.0, 0.95, 0.95], np.float32) - image)


def sensor(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur, tone curve, noise and compression: float32 (H, W, 3) 0..255 to uint8."""
    height, width = image.shape[:2]
    blur = rng.choice([0.0, rng.uniform(0.3, 0.8), rng.uniform(0.8, 1.8)], p=[0.25, 0.55, 0.2])
    sigma = max(height, width) / 256 * float(blur)
    if sigma > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    contrast = rng.uniform(0.92, 1.1)
    image = (image - 140) * np.float32(contrast) + np.float32(140 + rng.uniform(-12, 12))
    grey = image.mean(2, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.82, 1.12))
    if rng.random() < 0.25:
        amount = np.float32(rng.uniform(0.2, 0.8))
        image = image + amount * (image - cv2.GaussianBlur(image, (0, 0), 1.5))
    noise = rng.uniform(0.3, 2.5)
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(noise)
    image = image + grain[..., None]
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(45, 96))
        _, packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(pixels)
