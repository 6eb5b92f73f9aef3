"""What each class looks like: ranges of strengths and chances of structures.

Set by hand: structures from the dermoscopy literature, ranges by comparing contact sheets, mean colours and
lesion areas with real images. Classes overlap on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
STRUCTURES = (
    "network",  # brown net
    "cobble",  # ridges and furrows
    "globules",  # round brown clumps
    "dots",  # black dots
    "streaks",  # radial projections
    "regression",  # white-grey scar-like areas
    "veil",  # blue-white cover
    "vessels",  # arborising or linear vessels
    "dotted_vessels",
    "nests",  # blue-grey ovoid nests
    "lacunae",  # red-purple lakes
    "cysts",  # milia-like cysts
    "comedos",  # comedo-like openings
    "scale",  # white-yellow scale
    "follicles",  # white follicular openings ("strawberry")
    "centre",  # central white patch
    "crust",  # ulcer, blood crust
    "clearing",  # faded centre
    "spots",  # bright glints of the lesion's surface
)


@dataclass(frozen=True)
class Recipe:
    """One class: see ``lesion.make_lesion`` for how the numbers are used.

    Attributes:
        area: median fraction of the image; area_spread: standard deviation of its logarithm.
        ranges: uniform ranges of strengths.
        chances: probability of each structure.
        lobed: chance of further lobes; faint: chance of a pale lesion; red: pale ones stay visible by blood.
    """

    area: float
    area_spread: float
    ranges: dict[str, Range]
    chances: dict[str, float]
    lobed: float
    faint: float
    red: bool = False


def _ranges(**changed: Range) -> dict[str, Range]:
    common: dict[str, Range] = {
        "elongation": (1.0, 1.5),
        "irregularity": (0.08, 0.25),
        "warp": (0.03, 0.12),
        "notch": (0.01, 0.09),
        "softness": (0.1, 0.4),
        "melanin": (0.3, 1.0),
        "blood": (0.0, 0.4),
        "variegation": (0.15, 0.4),
        "mottle": (0.1, 0.5),
        "asymmetry": (0.0, 0.3),
        "rim": (-0.6, 0.4),
        "grain": (0.02, 0.14),
        "bumps": (0.0, 0.02),
    }
    return common | changed


RECIPES: dict[str, Recipe] = {
    "akiec": Recipe(
        area=0.36,
        area_spread=0.5,
        ranges=_ranges(
            elongation=(1.0, 1.7),
            irregularity=(0.15, 0.35),
            warp=(0.06, 0.18),
            softness=(0.2, 0.55),
            melanin=(0.0, 0.4),
            blood=(0.08, 0.42),
            mottle=(0.3, 0.8),
            variegation=(0.4, 1.0),
            bumps=(0.02, 0.06),
        ),
        chances={
            "scale": 0.7,
            "follicles": 0.35,
            "dotted_vessels": 0.45,
            "vessels": 0.15,
            "spots": 0.4,
            "crust": 0.2,
            "cobble": 0.15,
        },
        lobed=0.4,
        faint=0.2,
        red=True,
    ),
    "bcc": Recipe(
        area=0.2,
        area_spread=0.75,
        ranges=_ranges(
            elongation=(1.0, 1.8),
            irregularity=(0.12, 0.32),
            warp=(0.04, 0.16),
            softness=(0.15, 0.5),
            melanin=(0.0, 0.25),
            blood=(0.08, 0.45),
            variegation=(0.4, 1.0),
            mottle=(0.2, 0.6),
            bumps=(0.0, 0.03),
        ),
        chances={
            "vessels": 0.8,
            "nests": 0.55,
            "crust": 0.35,
            "spots": 0.5,
            "veil": 0.12,
            "clearing": 0.25,
            "regression": 0.2,
        },
        lobed=0.45,
        faint=0.2,
        red=True,
    ),
    "bkl": Recipe(
        area=0.28,
        area_spread=0.6,
        ranges=_ranges(
            irregularity=(0.1, 0.3),
            warp=(0.03, 0.15),
            notch=(0.02, 0.13),
            softness=(0.05, 0.3),
            melanin=(0.2, 1.0),
            blood=(0.0, 0.2),
            variegation=(0.25, 0.65),
            grain=(0.05, 0.22),
            rim=(-0.3, 0.7),
            bumps=(0.01, 0.07),
        ),
        chances={
            "cysts": 0.6,
            "comedos": 0.45,
            "cobble": 0.6,
            "network": 0.15,
            "clearing": 0.2,
            "scale": 0.15,
            "spots": 0.3,
            "regression": 0.15,
        },
        lobed=0.4,
        faint=0.3,
    ),
    "df": Recipe(
        area=0.28,
        area_spread=0.5,
        ranges=_ranges(
            elongation=(1.0, 1.35),
            irregularity=(0.04, 0.14),
            warp=(0.02, 0.08),
            softness=(0.25, 0.6),
            melanin=(0.15, 0.55),
            blood=(0.06, 0.36),
            variegation=(0.1, 0.3),
            rim=(0.0, 0.8),
        ),
        chances={"centre": 0.85, "network": 0.5, "dotted_vessels": 0.15, "spots": 0.3, "scale": 0.1},
        lobed=0.1,
        faint=0.2,
        red=True,
    ),
    "mel": Recipe(
        area=0.34,
        area_spread=0.55,
        ranges=_ranges(
            elongation=(1.0, 1.7),
            irregularity=(0.15, 0.38),
            warp=(0.05, 0.17),
            notch=(0.02, 0.14),
            softness=(0.06, 0.35),
            melanin=(0.35, 1.3),
            blood=(0.0, 0.5),
            variegation=(0.3, 0.8),
            mottle=(0.3, 0.8),
            asymmetry=(0.2, 1.0),
            grain=(0.03, 0.18),
        ),
        chances={
            "network": 0.45,
            "globules": 0.4,
            "dots": 0.45,
            "streaks": 0.45,
            "regression": 0.45,
            "veil": 0.45,
            "dotted_vessels": 0.1,
            "crust": 0.08,
            "spots": 0.35,
            "clearing": 0.1,
        },
        lobed=0.55,
        faint=0.12,
    ),
    "nv": Recipe(
        area=0.21,
        area_spread=0.6,
        ranges=_ranges(
            irregularity=(0.04, 0.18),
            warp=(0.02, 0.1),
            notch=(0.0, 0.08),
            softness=(0.08, 0.45),
            melanin=(0.35, 1.4),
            blood=(0.0, 0.45),
            variegation=(0.1, 0.35),
            mottle=(0.05, 0.3),
            asymmetry=(0.0, 0.3),
            rim=(-0.9, 0.3),
            grain=(0.02, 0.2),
        ),
        chances={
            "network": 0.55,
            "globules": 0.35,
            "dots": 0.2,
            "streaks": 0.1,
            "veil": 0.05,
            "clearing": 0.08,
            "spots": 0.15,
        },
        lobed=0.15,
        faint=0.18,
    ),
    "vasc": Recipe(
        area=0.09,
        area_spread=0.75,
        ranges=_ranges(
            elongation=(1.0, 1.4),
            irregularity=(0.05, 0.22),
            softness=(0.05, 0.2),
            melanin=(0.0, 0.25),
            blood=(0.6, 2.0),
            variegation=(0.1, 0.4),
            mottle=(0.15, 0.5),
            asymmetry=(0.0, 0.3),
        ),
        chances={"lacunae": 0.75, "veil": 0.15, "crust": 0.1, "spots": 0.3, "scale": 0.08, "dots": 0.08},
        lobed=0.25,
        faint=0.06,
        red=True,
    ),
}
