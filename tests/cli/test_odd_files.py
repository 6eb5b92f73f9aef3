"""Every odd image and mask that a release may hold: converted and told in the report, or refused by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_core.catalog.table import build_catalog, read_images
from lesion_core.errors import ImageError, LesionError, MaskError
from lesion_core.files import read_json
from lesion_core.settings import Custom, Duplicates

DUPLICATES = Duplicates(max_hamming=9, min_correlation=0.95)
GOOD = "good"


def pixels(seed: int = 0) -> np.ndarray:
    """Textured uint8 (24, 32, 3), another for every seed."""
    return np.random.default_rng(seed).integers(30, 220, (24, 32, 3)).astype(np.uint8)


def sixteen_bit_colour(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), pixels(4)[:, :, ::-1].astype(np.uint16) * 257)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(5)).save(path, exif=exif)


def framed(path: Path) -> None:
    first, second = Image.fromarray(pixels(6)), Image.fromarray(pixels(7))
    first.save(path, save_all=True, append_images=[second])


ODD = {
    "cmyk.jpg": (lambda path: Image.fromarray(pixels(1)).convert("CMYK").save(path, quality=95), {"cmyk"}),
    "grey.png": (lambda path: Image.fromarray(pixels(2)[:, :, 0]).save(path), {"greyscale"}),
    "rgba.png": (
        lambda path: Image.fromarray(np.dstack([pixels(3), pixels(9)[..., :1]])).save(path),
        {"transparent"},
    ),
    "deep.png": (sixteen_bit_colour, {"sixteen_bit"}),
    "deepgrey.tif": (
        lambda path: Image.fromarray(pixels(8)[:, :, 0].astype(np.uint16) * 257).save(path),
        {"sixteen_bit", "greyscale"},
    ),
    "turned.jpg": (rotated, {"rotated"}),
    "palette.png": (lambda path: Image.fromarray(pixels(10)).quantize(16).save(path), {"palette"}),
    "frames.tif": (framed, {"frames"}),
    "plain.jpg": (lambda path: Image.fromarray(pixels(11)).save(path), set()),
}
BROKEN = {
    "zero.jpg": b"",
    "cut.jpg": None,
    "text.jpg": b"<html>not an image</html>",
}


class Clinic:
    """A user's dataset with one good image and mask, to which odd ones are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("images", "masks"):
            (root / name).mkdir()
        Image.fromarray(pixels(100)).save(root / "images" / f"{GOOD}.png")
        self.mask(GOOD, self.lesion())

    @staticmethod
    def lesion() -> np.ndarray:
        mask = np.zeros((24, 32), np.uint8)
        mask[8:16, 10:20] = 255
        return mask

    def mask(self, name: str, values: np.ndarray) -> None:
        Image.fromarray(values).save(self.root / "masks" / f"{name}.png")

    def add_image(self, name: str, seed: int) -> None:
        Image.fromarray(pixels(seed)).save(self.root / "images" / f"{name}.png")

    def build(self) -> tuple[dict[str, dict], set[tuple[str, str]]]:
        """Rows by image id, and what was told."""
        names = sorted(path.stem for path in (self.root / "images").iterdir())
        (self.root / "table.csv").write_text("image_id\n" + "".join(f"{name}\n" for name in names))
        own = Custom(images=str(self.root / "images"), masks=str(self.root / "masks"), csv=str(self.root / "table.csv"))
        out = self.root / "catalog"
        files = {"out_images": out / "images.parquet", "out_edges": out / "edges.parquet", "out_report": out / "r.json"}
        build_catalog({"custom": self.root}, self.root, DUPLICATES, own, **files)
        told = {(problem["image_id"], problem["kind"]) for problem in read_json(out / "r.json")["problems"]}
        return {row["image_id"]: row for row in read_images(out / "images.parquet")}, told


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def test_every_odd_image_is_converted_and_told(clinic: Clinic) -> None:
    for name, (write, _) in ODD.items():
        write(clinic.root / "images" / name)
    rows, told = clinic.build()
    assert told == {(Path(name).stem, kind) for name, (_, kinds) in ODD.items() for kind in kinds}
    assert set(rows) == {GOOD, *(Path(name).stem for name in ODD)}
    assert (rows["turned"]["width"], rows["turned"]["height"]) == (24, 32)


def test_broken_images_are_refused_together_by_id(clinic: Clinic) -> None:
    Image.fromarray(pixels(12)).save(clinic.root / "images" / "cut.jpg")
    for name, content in BROKEN.items():
        path = clinic.root / "images" / name
        path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ImageError) as caught:
        clinic.build()
    assert caught.value.ids == ("custom/cut", "custom/text", "custom/zero")
    assert not (clinic.root / "catalog").exists()


def test_odd_masks_are_repaired_and_told(clinic: Clinic) -> None:
    lesion = clinic.lesion()
    jpeg_like = np.where(lesion > 0, 250, 4).astype(np.uint8)
    jpeg_like[7, 10:20] = 100
    masks = {
        "empty": (np.zeros_like(lesion), "empty", False),
        "full": (np.full_like(lesion, 255), "full", True),
        "large": (np.kron(lesion, np.ones((2, 2), np.uint8)), "resized", True),
        "low": (lesion // 255, "low_values", True),
        "grey": (jpeg_like, "grey_values", True),
    }
    for number, (name, (values, _, _)) in enumerate(masks.items()):
        clinic.add_image(name, 20 + number)
        clinic.mask(name, values)
    rows, told = clinic.build()
    assert told == {(name, kind) for name, (_, kind, _) in masks.items()}
    for name, (_, _, kept) in masks.items():
        assert (rows[name]["mask_path"] is not None) == kept, name
        assert (rows[name]["mask_sha256"] is not None) == kept, name


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tall", np.full((64, 10), 255, np.uint8), "aspect ratios differ"),
        ("blurred", np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1)), "neither background nor lesion"),
        ("coloured", pixels(30), "coloured"),
    ],
)
def test_what_is_no_mask_of_its_image_is_refused_by_id(
    clinic: Clinic, name: str, values: np.ndarray, message: str
) -> None:
    clinic.add_image(name, 40)
    clinic.mask(name, values)
    with pytest.raises(MaskError, match=message) as caught:
        clinic.build()
    assert caught.value.ids == (f"custom/{name}",)


def test_a_mask_without_its_image_and_a_broken_mask_are_refused_by_id(clinic: Clinic) -> None:
    clinic.mask("alone", clinic.lesion())
    with pytest.raises(LesionError, match="masks without an image") as caught:
        clinic.build()
    assert caught.value.ids == ("alone",)
    (clinic.root / "masks" / "alone.png").unlink()
    (clinic.root / "masks" / f"{GOOD}.png").write_bytes(b"")
    with pytest.raises(MaskError, match="zero bytes") as caught:
        clinic.build()
    assert caught.value.ids == (f"custom/{GOOD}",)
