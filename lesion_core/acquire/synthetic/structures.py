"""Dermoscopic structures, added to a lesion's maps in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lesion_core.acquire.synthetic.noise import field, honeycomb, smoothstep

if TYPE_CHECKING:
    from lesion_core.acquire.synthetic.lesion import Lesion

EXTENT = 1.9  # half side of a lesion's own square canvas; a lesion of area pi has a mean radius of 1
Maps = dict[str, np.ndarray]


def scatter(
    rng: np.random.Generator, side: int, count: int, size: tuple[float, float], flatten: float = 0.35
) -> np.ndarray:
    """``count`` filled ellipses of ``size`` (half axes, lesion units) anywhere on the canvas, float32 0..1."""
    canvas = np.zeros((side, side), np.uint8)
    unit = side / (2 * EXTENT)
    centres = rng.uniform(-1.4, 1.4, (count, 2))
    sizes = rng.uniform(*size, (count, 1)) * np.exp(rng.uniform(-flatten, flatten, (count, 2)))
    turns = rng.uniform(0, 180, count)
    tones = rng.integers(120, 256, count)
    for (cx, cy), (a, b), turn, tone in zip(centres, sizes, turns, tones, strict=True):
        centre = (int(((cx + EXTENT) * unit) * 16), int(((cy + EXTENT) * unit) * 16))
        axes = (max(8, int(a * unit * 16)), max(8, int(b * unit * 16)))
        cv2.ellipse(canvas, centre, axes, turn, 0, 360, int(tone), -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas, (0, 0), 0.6 + 0.006 * unit).astype(np.float32) / 255


def branches(
    rng: np.random.Generator, side: int, trees: int, length: float, width: float, forks: int = 3
) -> np.ndarray:
    """Branching, tapering, winding lines (vessels), float32 (side, side) 0..1."""
    canvas = np.zeros((side, side), np.uint8)
    unit = side / (2 * EXTENT)
    for _ in range(trees):
        start = rng.uniform(-1.0, 1.0, 2)
        work = [(start, rng.uniform(0, 2 * np.pi), length * rng.uniform(0.6, 1.3), width, 0)]
        while work:
            point, heading, reach, thick, depth = work.pop()
            steps = 9
            turns = heading + np.cumsum(rng.normal(0, 0.28, steps))
            path = point + np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * (reach / steps)
            path = np.vstack([point, path])
            pixels = ((path + EXTENT) * unit * 16).astype(np.int32)
            cv2.polylines(canvas, [pixels], False, 255, max(1, round(thick * unit)), cv2.LINE_AA, 4)
            if depth < forks:
                for at in rng.choice(np.arange(2, steps), 2 if depth < 2 else 1, replace=False):
                    side_turn = turns[at - 1] + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
                    work.append((path[at], side_turn, reach * 0.6, thick * 0.65, depth + 1))
    return cv2.GaussianBlur(canvas, (0, 0), 0.7).astype(np.float32) / 255


@dataclass(frozen=True)
class _Site:
    """Where structures go: canvas coordinates, the contour's level, the lesion's cover, and its interior."""

    label: str
    value: dict[str, float]
    x: np.ndarray
    y: np.ndarray
    level: np.ndarray
    cover: np.ndarray
    inner: np.ndarray


def add_structures(
    maps: Maps,
    lesion: Lesion,
    x: np.ndarray,
    y: np.ndarray,
    level: np.ndarray,
    cover: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Add every structure whose strength in ``lesion.values`` is above 0 to ``maps``, in place.

    Args:
        maps: melanin, blood, veil, white, relief; float32 (n, n) each.
        lesion: names the class and the strengths.
        x, y: canvas coordinates, -EXTENT..EXTENT; level: below 0 inside the contour; cover: 0..1.
        rng: the lesion's own generator.
    """
    site = _Site(lesion.label, lesion.values, x, y, level, cover, smoothstep(level, 0.0, -0.35))
    for add in (_pigment, _depth, _vascular, _surface):
        add(maps, site, rng)


def _pigment(maps: Maps, site: _Site, rng: np.random.Generator) -> None:
    """Net, ridges, globules and dots: melanin in shapes."""
    value, shape = site.value, site.level.shape
    side = shape[0]
    if value["network"]:
        warp_x, warp_y = (0.35 * field(rng, shape, 10, 2) for _ in range(2))
        mesh = honeycomb(site.x, site.y, rng.uniform(4.5, 12.0), warp_x, warp_y)
        region = smoothstep(field(rng, shape, 4), -1.0, 0.4)
        change = np.float32(value["network"] * rng.uniform(0.35, 0.95)) * region
        maps["melanin"] *= 1 + change * (mesh - 0.45)
        if site.label == "df":
            maps["melanin"] *= smoothstep(site.level, -1.0, -0.4) * 0.8 + 0.3
    if value["cobble"]:
        ridge = field(rng, shape, rng.uniform(14, 30), 2, 0.5, rng.choice([1.0, 1.0, 2.5]))
        line = np.exp(-((ridge / 0.35) ** 2))
        maps["melanin"] *= 1 + np.float32(value["cobble"]) * (1.1 * line - 0.4)
        maps["relief"] -= np.float32(0.06 * value["cobble"]) * line * site.cover
    if value["globules"]:
        clumps = scatter(rng, side, int(rng.integers(25, 140)), (0.025, 0.06))
        if rng.random() < 0.4:
            clumps = clumps * smoothstep(site.level, -0.55, -0.15)
        near = smoothstep(site.level, 0.12, -0.05)
        maps["melanin"] += np.float32(value["globules"] * (0.25 + 0.5 * value["melanin"])) * clumps * near
    if value["dots"]:
        black = scatter(rng, side, int(rng.integers(15, 90)), (0.012, 0.03))
        maps["melanin"] += np.float32(0.9 * value["dots"]) * black * smoothstep(site.level, 0.08, -0.05)


def _depth(maps: Maps, site: _Site, rng: np.random.Generator) -> None:
    """Clearing, regression, blue-white veil and blue-grey nests: pigment lost, or seen through tissue."""
    value, shape = site.value, site.level.shape
    side = shape[0]
    if value["clearing"]:
        hole = smoothstep(site.level + 0.25 * field(rng, shape, 6, 2), -0.35, -0.75)
        keep = 1 - np.float32(0.8 * value["clearing"]) * hole
        maps["melanin"] *= keep
        maps["blood"] *= keep
    if value["regression"]:
        area = smoothstep(field(rng, shape, 5, 3) + 0.6 * depth_bias(site.level), 0.3, 1.1) * site.cover
        maps["melanin"] *= 1 - np.float32(0.75 * value["regression"]) * area
        maps["white"] += np.float32(0.35 * value["regression"]) * area
        pepper = scatter(rng, side, 60, (0.01, 0.025))
        maps["veil"] += np.float32(0.5 * value["regression"]) * pepper * area
    if value["veil"]:
        area = smoothstep(field(rng, shape, 4, 4, 0.55) + depth_bias(site.level), -0.1, 2.0) * site.inner
        maps["veil"] += np.float32(rng.uniform(0.4, 0.9) * value["veil"]) * area
        maps["melanin"] += np.float32(0.5 * value["veil"]) * area
    if value["nests"]:
        blobs = scatter(rng, side, int(rng.integers(4, 30)), (0.04, 0.17), 0.5)
        blobs *= smoothstep(site.level, 0.1, -0.1) * np.clip(0.7 + 0.35 * field(rng, shape, 16, 3), 0.1, 1.3)
        maps["veil"] += np.float32(0.6 * value["nests"]) * blobs
        maps["melanin"] += np.float32(0.9 * value["nests"]) * blobs


def _vascular(maps: Maps, site: _Site, rng: np.random.Generator) -> None:
    """Lacunae, vessels and crusts."""
    value, shape = site.value, site.level.shape
    side = shape[0]
    if value["lacunae"]:
        lakes = scatter(rng, side, int(rng.integers(15, 60)), (0.09, 0.26))
        maps["blood"] *= 0.6 + np.float32(0.7 * value["lacunae"]) * lakes
        purple = rng.uniform(0, 0.5)
        maps["melanin"] += np.float32(purple) * lakes * site.cover
        maps["veil"] += np.float32(0.5 * purple) * lakes * site.cover
    if value["vessels"]:
        lines = branches(rng, side, int(rng.integers(2, 7)), rng.uniform(0.4, 1.0), rng.uniform(0.018, 0.045))
        maps["blood"] += np.float32(0.8 * value["vessels"]) * lines * smoothstep(site.level, 0.2, -0.1)
    if value["dotted_vessels"]:
        red = scatter(rng, side, int(rng.integers(50, 200)), (0.014, 0.03))
        maps["blood"] += np.float32(0.7 * value["dotted_vessels"]) * red * site.cover
    if value["crust"]:
        patch = smoothstep(field(rng, shape, 9, 4, 0.6), 0.8, 2.0) * site.inner
        maps["blood"] += np.float32(1.0 * value["crust"]) * patch
        maps["melanin"] += np.float32(rng.uniform(0.2, 1.2) * value["crust"]) * patch
        maps["relief"] += 0.15 * patch


def _surface(maps: Maps, site: _Site, rng: np.random.Generator) -> None:
    """Cysts, plugs, follicles, scale, the white centre of a dermatofibroma, and glints."""
    value, shape = site.value, site.level.shape
    side = shape[0]
    if value["cysts"]:
        pearls = scatter(rng, side, int(rng.integers(6, 45)), (0.018, 0.05))
        maps["white"] += np.float32(0.75 * value["cysts"]) * pearls * site.cover
    if value["comedos"]:
        plugs = scatter(rng, side, int(rng.integers(6, 35)), (0.025, 0.07))
        maps["melanin"] += np.float32(0.9 * value["comedos"]) * plugs * site.inner
    if value["follicles"]:
        spots = scatter(rng, side, int(rng.integers(80, 260)), (0.028, 0.05))
        maps["white"] += np.float32(0.55 * value["follicles"]) * spots * site.cover
    if value["scale"]:
        flakes = smoothstep(field(rng, shape, 24, 3, 0.8), 0.5, 1.6)
        patches = smoothstep(field(rng, shape, 6, 2), -0.2, 0.8)
        maps["white"] += np.float32(0.75 * value["scale"]) * flakes * patches * site.cover
        maps["relief"] += np.float32(0.12 * value["scale"]) * flakes * patches * site.cover
    if value["centre"]:
        shift = rng.uniform(-0.2, 0.2, 2)
        size = rng.uniform(0.3, 0.65)
        away = np.sqrt((site.x - shift[0]) ** 2 + (site.y - shift[1]) ** 2) / size + 0.22 * field(rng, shape, 7, 3)
        patch = smoothstep(away, 1.15, 0.5) * site.cover
        maps["melanin"] *= 1 - np.float32(0.8 * value["centre"]) * patch
        maps["white"] += np.float32(rng.uniform(0.15, 0.5) * value["centre"]) * patch
        lines = np.exp(-((field(rng, shape, 20, 1, 1.0, 3.0) / 0.25) ** 2))
        maps["white"] += np.float32(0.25 * value["centre"]) * lines * patch
    if value["spots"]:
        glints = scatter(rng, side, int(rng.integers(4, 30)), (0.006, 0.02), 1.0)
        maps["white"] += np.float32(0.9 * value["spots"]) * glints * site.cover


def depth_bias(level: np.ndarray) -> np.ndarray:
    """How far inside, 0 at the border and 1 at the centre."""
    return np.clip(-level, 0, 1)
