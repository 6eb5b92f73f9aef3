"""A lesion as parameters, and its pigment, blood and structure as maps in its own coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lesion_core.acquire.synthetic.noise import field
from lesion_core.acquire.synthetic.recipes import RECIPES, STRUCTURES
from lesion_core.acquire.synthetic.structures import EXTENT, add_structures
from lesion_core.seeding import generator

ANGLES = 720
MINIMUM_CONTRAST = 0.16


@dataclass(frozen=True)
class Lesion:
    """One lesion. Everything that stays the same between its images.

    Attributes:
        label: one of ``settings.CLASSES``.
        seed: key of the lesion's own random fields.
        area: fraction of the image it covers at zoom 1, 0.02..0.75.
        values: strengths by name (see ``recipes``); structures that are absent are 0.
        radii: contour as radius per angle, float32 (720,); the enclosed area is pi before warping.
        lobes: further round parts, float32 (n, 3): x, y, radius.
    """

    label: str
    seed: int
    area: float
    values: dict[str, float]
    radii: np.ndarray
    lobes: np.ndarray


@dataclass(frozen=True)
class LesionMaps:
    """Maps of one lesion on its canvas, each float32 (n, n); absorptions are >= 0, covers lie in 0..1."""

    melanin: np.ndarray
    blood: np.ndarray
    veil: np.ndarray
    white: np.ndarray
    relief: np.ndarray
    inside: np.ndarray


def make_lesion(rng: np.random.Generator, label: str) -> Lesion:
    """A new lesion of class ``label``; KeyError for another class."""
    recipe = RECIPES[label]
    values = {name: float(rng.uniform(low, high)) for name, (low, high) in recipe.ranges.items()}
    for name in STRUCTURES:
        chance = recipe.chances.get(name, 0.02)
        strength = float(rng.uniform(0.4, 1.0))
        values[name] = strength if rng.random() < chance else 0.0
    if rng.random() < recipe.faint:
        values["melanin"] *= 0.4
        values["blood"] *= 0.5
    contrast = 0.7 * values["melanin"] + 0.6 * values["blood"]
    if contrast < MINIMUM_CONTRAST:
        values["blood" if recipe.red else "melanin"] += (MINIMUM_CONTRAST - contrast) / 0.65
    area = float(np.clip(recipe.area * np.exp(recipe.area_spread * rng.standard_normal()), 0.02, 0.72))

    theta = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    wave = np.zeros(ANGLES)
    for order in range(2, 12):
        size = values["irregularity"] * order**-1.35 * rng.standard_normal() * 1.3
        wave += size * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    stretch = values["elongation"]
    turn = rng.uniform(0, np.pi)
    ellipse = 1.0 / np.sqrt((np.cos(theta - turn) ** 2) / stretch + (np.sin(theta - turn) ** 2) * stretch)
    radii = ellipse * np.exp(0.8 * np.clip(wave, -0.7, 0.5))
    if values["streaks"] > 0:
        spikes = np.interp(theta, np.linspace(0, 2 * np.pi, 140), rng.standard_normal(140).clip(0, 2))
        sector = np.exp(1.5 * np.cos(theta - rng.uniform(0, 2 * np.pi)) - 1.0)
        radii = radii * (1 + 0.05 * values["streaks"] * spikes * np.minimum(sector, 1.2))
    radii /= np.sqrt(np.mean(radii**2))
    radii = np.minimum(radii, 1.6)

    count = int(rng.integers(1, 3)) if rng.random() < recipe.lobed else 0
    angle, reach = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 0.95, count)
    lobes = np.stack([reach * np.cos(angle), reach * np.sin(angle), rng.uniform(0.3, 0.6, count)], 1)
    return Lesion(
        label=label,
        seed=int(rng.integers(1 << 62)),
        area=area,
        values=values,
        radii=radii.astype(np.float32),
        lobes=lobes.astype(np.float32),
    )


def render(lesion: Lesion, side: int) -> LesionMaps:
    """Maps of ``lesion`` on a canvas of ``side`` x ``side`` pixels covering -EXTENT..EXTENT."""
    rng = generator(lesion.seed, "lesion")
    value = lesion.values
    shape = (side, side)
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1) * np.float32(EXTENT)
    x, y = np.meshgrid(axis, axis)
    level = _level(lesion, x, y, rng)

    softness = np.float32(value["softness"]) * np.exp(0.5 * field(rng, shape, 4))
    edge = level + np.float32(value["notch"]) * field(rng, shape, 10, 4, 0.6)
    cover = 1.0 / (1.0 + np.exp(np.clip(3.2 * edge / softness, -30, 30)))
    # An annotator's outline runs outside the half-way line of a fuzzy border.
    inside = -(level - np.float32(0.35 * value["softness"]))
    depth = np.clip(-level, 0, 1)

    slope_angle = rng.uniform(0, 2 * np.pi)
    slope = (x * np.float32(np.cos(slope_angle)) + y * np.float32(np.sin(slope_angle))) * 0.7
    tone = field(rng, shape, 7, 4, 0.62)
    grain = field(rng, shape, 48, 2, 0.8)
    melanin = value["melanin"] * np.exp(
        np.float32(value["variegation"]) * tone
        + np.float32(value["asymmetry"]) * slope
        + np.float32(value["rim"]) * (0.35 - depth)
        + np.float32(value["grain"]) * grain
    )
    blood = value["blood"] * np.exp(
        np.float32(value["mottle"]) * field(rng, shape, 6, 3, 0.6) - 0.5 * np.float32(value["rim"]) * (0.35 - depth)
    )
    maps = {
        "melanin": np.minimum(melanin, 3.2) * cover,
        "blood": np.minimum(blood, 3.0) * cover,
        "veil": np.zeros(shape, np.float32),
        "white": np.zeros(shape, np.float32),
        "relief": np.float32(value["bumps"]) * field(rng, shape, 16, 3, 0.7) * cover,
    }
    add_structures(maps, lesion, x, y, level, cover, rng)
    return LesionMaps(
        melanin=np.clip(maps["melanin"], 0, 4).astype(np.float32),
        blood=np.clip(maps["blood"], 0, 4).astype(np.float32),
        veil=np.clip(maps["veil"], 0, 0.95).astype(np.float32),
        white=np.clip(maps["white"], 0, 0.95).astype(np.float32),
        relief=maps["relief"].astype(np.float32),
        inside=inside.astype(np.float32),
    )


def _level(lesion: Lesion, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed level of the contour, negative inside, about -1 at the centre; bent by two warp fields."""
    warp = np.float32(lesion.values["warp"])
    u = x + warp * field(rng, x.shape, 5, 2)
    v = y + warp * field(rng, x.shape, 5, 2)
    radius, angle = cv2.cartToPolar(u, v)
    table = np.append(lesion.radii, lesion.radii[0])
    position = angle * np.float32(ANGLES / (2 * np.pi))
    index = np.minimum(position.astype(np.int32), ANGLES - 1)
    level = radius / table[index] - 1
    for cx, cy, size in lesion.lobes:
        part = np.sqrt((u - cx) ** 2 + (v - cy) ** 2) / size - 1
        # Smooth union: lobes flow into the body as confluent nests do.
        blend = np.clip(0.5 + (part - level) / 0.5, 0, 1)
        level = part * (1 - blend) + level * blend - 0.25 * blend * (1 - blend)
    return level.astype(np.float32)
