"""Made PH2: cases, PH2_dataset.txt in its double-pipe form, and bitmaps."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lesion_core.acquire.synthetic.draw import synthetic_image
from lesion_core.acquire.synthetic.lesion import Lesion, make_lesion
from lesion_core.acquire.synthetic.skin import PH2_DEVICES
from lesion_core.errors import SettingsError
from lesion_core.seeding import generator

LAST_CASE = 437
HEADER = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules"
    " | Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)
LEGEND = """

Legends for Clinical Diagnosis: 
   0 - Common Nevus;
   1 - Atypical Nevus;
   2 - Melanoma.

Legends for Asymmetry: 
   0 - Fully Symmetric;
   1 - Symetric in 1 axe;
   2 - Fully Asymmetric;

Legends for Pigment Network, Dots/Globules, Streaks, Regression Areas, and Blue-Whitish Veil: 
   A  - Absent;
   AT - Atypical;
   P  - Present;
   T  - Typical.

Legends for Colors: 
   1 - White;
   2 - Red;
   3 - Light-Brown;
   4 - Dark-Brown;
   5 - Blue-Gray;
   6 - Black."""  # noqa: W291 - the release's own line ends


@dataclass(frozen=True)
class Ph2Case:
    """One case: its name (IMDnnn), clinical diagnosis (0 common, 1 atypical nevus, 2 melanoma) and lesion."""

    name: str
    clinical: int
    lesion: Lesion
    number: int


def make_cases(seed: int, count: int) -> list[Ph2Case]:
    """``count`` cases in the text file's order: 2 common to 2 atypical nevi to 1 melanoma, each by name.

    Raises:
        SettingsError: more cases than PH2 has names.
    """
    if count > LAST_CASE:
        raise SettingsError(f"{count} synthetic PH2 cases are asked for, the names reach {LAST_CASE}")
    rng = generator(seed, "ph2")
    names = 1 + rng.choice(LAST_CASE, count, replace=False)
    clinical = np.sort(np.resize([0, 1, 0, 1, 2], count))
    cases = []
    for number in range(count):
        own = generator(seed, "ph2", number)
        lesion = make_lesion(own, "mel" if clinical[number] == 2 else "nv")
        if clinical[number] == 1:
            unruly = {
                "asymmetry": lesion.values["asymmetry"] + 0.5,
                "variegation": lesion.values["variegation"] + 0.2,
            }
            lesion = replace(lesion, values=lesion.values | unruly)
        cases.append(Ph2Case(f"IMD{names[number]:03d}", int(clinical[number]), lesion, number))
    return sorted(cases, key=lambda case: (case.clinical, case.name))


def draw_case(seed: int, case: Ph2Case, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The case's image (RGB uint8, 765:572 within a few pixels, ``side`` wide) and mask bool."""
    rng = generator(seed, "ph2 photograph", case.number)
    width = side + int(rng.integers(-1, 2))
    height = round(side * 572 / 765) + int(rng.integers(-2, 3))
    return synthetic_image(case.lesion, rng, (height, width), int(rng.choice(PH2_DEVICES)))


def table_text(cases: list[Ph2Case]) -> str:
    """PH2_dataset.txt: header, one double-pipe row per case, legends; no line end after the last line."""
    return "\n".join([HEADER, *map(_row, cases), LEGEND])


def _row(case: Ph2Case) -> str:
    value = case.lesion.values
    diagnosis = ("", "", "Melanoma")[case.clinical]
    unequal = value["asymmetry"] + 0.8 * value["irregularity"]
    asymmetry = 0 if unequal < 0.35 else 1 if unequal < 0.55 else 2
    usual = "T" if case.clinical == 0 else "AT"
    clumps = usual if value["globules"] or value["dots"] else "A"
    present = ["P" if value[name] else "A" for name in ("streaks", "regression", "veil")]
    colours = "  ".join(str(code) for code in _colours(value))
    return (
        f"|| {case.name} || {diagnosis:>22} || {case.clinical:>18} || {asymmetry:>9} | {usual:>15} | {clumps:>13} | "
        f"{present[0]:>7} | {present[1]:>16} | {present[2]:>17} || {colours:>16} ||"
    )


def _colours(value: dict[str, float]) -> list[int]:
    found = {
        1: value["regression"] > 0.6,
        2: value["blood"] > 0.35,
        3: value["melanin"] < 0.8 or value["variegation"] > 0.5,
        4: value["melanin"] > 0.6,
        5: value["veil"] > 0 or value["regression"] > 0,
        6: value["dots"] > 0 or value["melanin"] > 1.2,
    }
    return [code for code, holds in found.items() if holds] or [3]


def one_bit_bitmap(mask: np.ndarray) -> bytes:
    """Bool (H, W) as a 1-bit BMP, as PH2's masks are stored."""
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "BMP")
    return content.getvalue()
