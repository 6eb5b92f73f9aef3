"""The harmonize stage on synthetic images: pixels, closed test masks, determinism, leaks, refusal, colour."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from material import HOME
from PIL import Image
from skimage.exposure import match_histograms

from lesion_core.errors import CatalogError, ImageError, RunError, SplitError
from lesion_core.files import read_csv, write_csv
from lesion_core.paths import Layout
from lesion_core.pixels import colour, harmonize, harmonized_arrays, histogram, reference
from lesion_core.pixels.contact_sheet import Sample, contact_sheet
from lesion_core.pixels.datasets import Harmonized
from lesion_core.pixels.resize import resize_square
from lesion_core.settings import Harmonization
from lesion_core.settings.load import load

SIZE = 32
OPENED: list[str] = []
WATCHING = [False]


def _audit(event: str, arguments: tuple) -> None:
    if WATCHING[0] and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(_audit)


def settings_with(**changes: object) -> Harmonization:
    values: dict = {
        "histogram": "specification",
        "colour": "none",
        "hair_removal": False,
        "mask_closing": 5,
        "mask_min_component": 0.001,
        "mask_smoothing": 3.0,
        "soft_mask_sigma": 2.0,
        "reference_size": SIZE,
        "reference_from": ["ham10000", "ph2"],
    }
    return Harmonization(**{**values, **changes})


def _synthetic_image(seed: int, height: int = 45, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = (columns - width * 0.5) ** 2 + (rows - height * 0.4) ** 2 < (height * 0.25) ** 2
    base = np.where(mask[..., None], [120, 80, 70], rng.integers([180, 120, 110], [230, 170, 160]))
    return np.clip(base + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8), mask


class Root:
    """A small results folder: ``ham10000`` has masks (10 images), ``ph2`` labels (6), one image stands in both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = folder / "catalog" / "images.parquet"
        self.splits = folder / "splits"
        self.reference = Layout(folder).reference(HOME)
        self.rows: list[dict] = []
        for number in range(10):
            self._add(
                "ham10000", number, ["train", "val", "test"][(number % 5) // 3 + (number % 5 == 4)], masked=number != 6
            )
        for number in range(6):
            self._add("ph2", 0 if number == 0 else 20 + number, "test" if number == 5 else "train", label="mel")
        self.write()

    def _add(self, dataset: str, seed: int, split: str, masked: bool = False, label: str | None = None) -> None:
        image, mask = _synthetic_image(seed, *((45, 60) if seed % 2 else (50, 40)))
        name = f"{dataset}{len(self.rows):02d}"
        path = self.folder / "data" / dataset / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        mask_path = path.with_name(f"{name}_mask.png")
        if masked:
            Image.fromarray(mask).save(mask_path)
        self.rows.append(
            {
                "dataset": dataset,
                "image_id": name,
                "lesion_id": None,
                "group_id": f"g{seed}",
                "path": path.relative_to(self.folder).as_posix(),
                "width": image.shape[1],
                "height": image.shape[0],
                "label": label,
                "age": 40.0 if label else None,
                "sex": "female" if label else None,
                "site": None,
                "mask_path": mask_path.relative_to(self.folder).as_posix() if masked else None,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "phash": "0",
                "licence": "made",
                "split": split,
            }
        )

    def write(self) -> None:
        import pyarrow
        import pyarrow.parquet

        self.catalog.parent.mkdir(exist_ok=True)
        columns = [{key: value for key, value in row.items() if key != "split"} for row in self.rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(columns), self.catalog)
        for dataset in {row["dataset"] for row in self.rows}:
            keys = ("image_id", "group_id", "split")
            rows = [{key: row[key] for key in keys} for row in self.rows if row["dataset"] == dataset]
            write_csv(self.splits / f"{dataset}.csv", keys, rows)

    def make_reference(self, **changes: object) -> np.ndarray:
        return reference.reference_histogram(
            self.catalog,
            self.splits,
            self.folder,
            self.reference,
            settings_with(**changes),
            workers=2,
        )

    def make(self, dataset: str = "ham10000", workers: int = 2, name: str = "", **changes: object) -> Path:
        out = Layout(self.folder).pixels(HOME, name or dataset, SIZE)
        harmonized_arrays.harmonize_dataset(
            dataset,
            SIZE,
            self.catalog,
            self.splits,
            self.reference,
            self.folder,
            out,
            settings_with(**changes),
            workers=workers,
        )
        return out

    def row(self, image_id: str) -> dict:
        return next(row for row in self.rows if row["image_id"] == image_id)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path)
    made.make_reference()
    return made


def test_the_stage_writes_what_the_contract_says(root: Root) -> None:
    out = root.make()
    assert sorted(path.name for path in out.iterdir()) == [
        "contact_sheet.png",
        "images.npy",
        "index.csv",
        "masks.npy",
        "statistics.csv",
    ]
    data = Harmonized.open(out)
    assert data.images.shape == (10, SIZE, SIZE, 3)
    assert [entry["image_id"] for entry in data.index] == sorted(row["image_id"] for row in root.rows[:10])
    seen = [row for row in root.rows[:10] if row["mask_path"] and row["split"] != "test"]
    assert data.masks.shape == (len(seen), SIZE, SIZE)
    assert {data.index[row]["image_id"] for row in data.rows(with_mask=True)} == {row["image_id"] for row in seen}
    for entry in data.index:
        source = root.row(entry["image_id"])
        for key in ("split", "group_id", "label", "width", "height", "age", "sex", "site"):
            assert entry[key] == source[key]


def test_stage_and_function_give_the_same_pixels(root: Root) -> None:
    data = Harmonized.open(root.make())
    wanted = reference.read_reference(root.reference)
    for row in (0, 3, 9):
        original = np.asarray(Image.open(root.folder / root.row(data.index[row]["image_id"])["path"]))
        expected = harmonize.harmonize_image(original, SIZE, wanted, settings_with(), [])
        np.testing.assert_array_equal(data.image(row), expected)


def test_each_dataset_gets_its_own_correction_and_a_mixture_the_common_one(root: Root) -> None:
    settings = settings_with(histogram="none", colour="shades_of_grey", colour_for={"isic2017": "grey_world"})
    image = _synthetic_image(1, SIZE, SIZE)[0]
    grey, shades = colour.grey_world(image), colour.shades_of_grey(image)
    assert not np.array_equal(grey, shades)
    for datasets, expected in ((["isic2017"], grey), (["ph2"], shades), (["isic2017", "ph2"], shades), ([], shades)):
        found = harmonize.harmonize_image(image, SIZE, None, settings, datasets)
        np.testing.assert_array_equal(found, expected)


def test_labels_and_metadata_come_through(root: Root) -> None:
    data = Harmonized.open(root.make("ph2"))
    assert data.masks.shape == (0, SIZE, SIZE)
    assert set(data.labels()) == {4}
    assert data.index[0]["age"] == 40.0


def test_masks_of_test_images_are_never_opened(root: Root) -> None:
    OPENED.clear()
    WATCHING[0] = True
    try:
        root.make()
    finally:
        WATCHING[0] = False
    names = {Path(path).name for path in OPENED}
    closed = {Path(row["mask_path"]).name for row in root.rows[:10] if row["mask_path"] and row["split"] == "test"}
    read = {Path(row["mask_path"]).name for row in root.rows[:10] if row["mask_path"] and row["split"] != "test"}
    assert closed
    assert not names & closed
    assert read <= names  # the watch does see what is opened


def test_the_stage_works_when_masks_of_test_images_are_gone(root: Root) -> None:
    for row in root.rows[:10]:
        if row["mask_path"] and row["split"] == "test":
            (root.folder / row["mask_path"]).unlink()
    Harmonized.open(root.make())


def test_bytes_do_not_depend_on_workers_or_on_the_run(root: Root) -> None:
    first, second = root.make(workers=1, name="first"), root.make(workers=4, name="second")
    for path in first.iterdir():
        if path.name != "contact_sheet.png":
            assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    again = {path.name: path.read_bytes() for path in root.make(workers=3, name="second").iterdir()}
    assert again == {path.name: path.read_bytes() for path in root.make(workers=1, name="second").iterdir()}


def test_the_reference_is_the_median_over_training_images_each_once(root: Root) -> None:
    shas, counts = set(), []
    for row in root.rows:
        if row["split"] == "train" and row["sha256"] not in shas:
            shas.add(row["sha256"])
            image = np.asarray(Image.open(root.folder / row["path"]))
            small = resize_square(image, SIZE)
            counts.append([np.bincount(small[..., channel].ravel(), minlength=256) for channel in range(3)])
    assert len(counts) < sum(row["split"] == "train" for row in root.rows)
    frequencies = np.median(np.array(counts) / SIZE**2, axis=0)
    expected = frequencies / frequencies.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(root.reference), expected, rtol=1e-12)


def test_the_reference_knows_no_other_split(root: Root) -> None:
    before = root.make_reference()
    for row in root.rows:
        if row["split"] != "train":
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root.folder / row["path"])
    np.testing.assert_array_equal(root.make_reference(), before)
    row = next(row for row in root.rows if row["split"] == "train")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root.folder / row["path"])
    assert not np.array_equal(root.make_reference(), before)


def test_grey_world_acts_where_no_specification_follows(root: Root) -> None:
    """Paper D's pixels of ISIC 2017; a specification to its own reference undoes what grey world did."""
    protocol = load("paper").protocols["segmae_protocol"].harmonization
    assert (protocol.histogram, protocol.colour_for) == ("none", {"isic2017": "grey_world"})
    image = (_synthetic_image(3)[0] * np.array([1.0, 0.72, 0.6])).astype(np.uint8)  # a warm light
    found = {}
    for dataset in ("isic2017", "isic2018_task1"):
        found[dataset] = harmonize.harmonize_image(image, SIZE, None, protocol, [dataset]).astype(float)
    means = {dataset: pixels.mean(axis=(0, 1)) for dataset, pixels in found.items()}
    assert np.ptp(means["isic2017"]) < 2
    assert np.abs(found["isic2017"] - found["isic2018_task1"]).mean() > 17


def test_specification_equals_scikit_image_on_a_reference_image() -> None:
    image, template = _synthetic_image(1)[0], _synthetic_image(2)[0]
    found = harmonize.harmonize_image(image, SIZE, histogram.channel_histograms(template), settings_with(), [])
    np.testing.assert_array_equal(found, match_histograms(resize_square(image, SIZE), template, channel_axis=-1))


def test_none_only_resizes_and_needs_no_reference(root: Root) -> None:
    image = _synthetic_image(3)[0]
    np.testing.assert_array_equal(
        harmonize.harmonize_image(image, SIZE, None, settings_with(histogram="none"), []), resize_square(image, SIZE)
    )
    with pytest.raises(RunError, match="needs a reference"):
        harmonize.harmonize_image(image, SIZE, None, settings_with(), [])
    root.reference.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        root.make()
    root.make(histogram="none")


@pytest.mark.parametrize("array", [np.zeros((3, 256)), np.ones((3, 255)) / 255, np.ones((256, 3)) / 3])
def test_a_wrong_reference_file_is_refused(root: Root, array: np.ndarray) -> None:
    np.save(root.reference, array)
    with pytest.raises(RunError, match="histogram"):
        root.make()


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3)])
def test_impossible_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        harmonize.harmonize_image(np.zeros(shape, np.uint8), SIZE, None, settings_with(histogram="none"), [])


def test_a_broken_image_leaves_nothing_half_written(root: Root) -> None:
    out = root.make()
    (root.folder / root.rows[4]["path"]).write_bytes(b"no image")
    with pytest.raises(ImageError) as caught:
        root.make()
    assert root.rows[4]["image_id"] in str(caught.value)
    assert not (out / "index.csv").exists()  # the folder of the earlier run no longer counts as complete
    assert not [path for path in out.iterdir() if "part" in path.name]
    with pytest.raises(RunError):
        Harmonized.open(out)


def test_catalog_and_splits_must_agree(root: Root) -> None:
    with pytest.raises(CatalogError, match="no image of c"):
        root.make("c")
    rows = read_csv(root.splits / "ham10000.csv")
    write_csv(root.splits / "ham10000.csv", ("image_id", "group_id", "split"), rows[1:])
    with pytest.raises(SplitError) as caught:
        root.make("ham10000")
    assert caught.value.ids == (rows[0]["image_id"],)
    (root.splits / "ph2.csv").unlink()
    with pytest.raises(SplitError, match="no split table"):
        root.make("ph2")
    with pytest.raises(CatalogError, match="cannot be read"):
        reference.reference_histogram(
            root.folder / "none.parquet", root.splits, root.folder, root.reference, settings_with()
        )


def test_no_training_image_is_refused(root: Root) -> None:
    for row in root.rows:
        row["split"] = "test"
    root.write()
    with pytest.raises(SplitError, match="no training image"):
        root.make_reference()


def test_harmonization_brings_images_together(root: Root) -> None:
    rows = read_csv(root.make() / "statistics.csv")
    for name in ("red", "green", "blue"):
        before = np.std([float(row[f"{name}_before"]) for row in rows])
        after = np.std([float(row[f"{name}_after"]) for row in rows])
        assert after < 0.3 * before
    shares = [row["lesion_fraction"] for row in rows]
    assert all(share == "" or 0.05 < float(share) < 0.4 for share in shares)
    assert sum(share == "" for share in shares) == len(rows) - len(Harmonized.open(root.make()).masks)


def test_grey_world_by_hand_and_shades_of_grey_formula() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[:5], image[5:] = (200, 100, 40), (100, 50, 20)  # means 150, 75, 30; their mean is 85
    found = colour.grey_world(image)
    assert found[0, 0].tolist() == [round(200 * 85 / 150), round(100 * 85 / 75), round(40 * 85 / 30)]
    assert np.ptp(found.reshape(-1, 3).mean(axis=0)) < 1
    rng = np.random.default_rng(0).integers(0, 120, (30, 30, 3)).astype(np.uint8) // np.array([1, 2, 3], np.uint8)
    illuminant = (rng.astype(float) ** 6).mean(axis=(0, 1)) ** (1 / 6)
    expected = np.clip(rng * illuminant.mean() / illuminant, 0, 255)
    assert np.abs(colour.shades_of_grey(rng) - expected).max() <= 0.5 + 1e-9
    black = np.zeros((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(colour.grey_world(black), black)


def _hairy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import cv2

    image, _ = _synthetic_image(7, 450, 600)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    hair = np.zeros((450, 600), np.uint8)
    for start, end in (((20, 30), (560, 400)), ((50, 420), (500, 40)), ((300, 5), (310, 440))):
        cv2.line(hair, start, end, 1, 4)
    hairy = image.copy()
    hairy[hair > 0] = (45, 30, 25)
    return image, hairy, hair > 0


def test_hair_is_found_and_removed_and_the_lesion_stays() -> None:
    clean, hairy, hair = _hairy()
    found = colour.hair_mask(hairy)
    assert found[hair].mean() > 0.95
    assert found[~hair].mean() < 0.02
    assert not colour.hair_mask(clean).any()
    repaired = colour.remove_hair(hairy).astype(int)
    error_before = np.abs(hairy.astype(int) - clean)[hair].mean()
    assert np.abs(repaired - clean)[hair].mean() < 0.15 * error_before
    np.testing.assert_array_equal(colour.remove_hair(clean), clean)


def test_order_of_the_steps() -> None:
    _, hairy, _ = _hairy()
    wanted = histogram.channel_histograms(_synthetic_image(9)[0])
    every = settings_with(colour="shades_of_grey", hair_removal=True)
    expected = histogram.specify_histogram(
        resize_square(colour.remove_hair(colour.shades_of_grey(hairy)), SIZE), wanted
    )
    np.testing.assert_array_equal(harmonize.harmonize_image(hairy, SIZE, wanted, every, []), expected)


def test_resize_averages_down_and_does_not_shift() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, axis=0).repeat(3, axis=2)
    small = resize_square(ramp, 16)
    np.testing.assert_array_equal(small[3, :, 0], ramp[0, :, 0].reshape(16, 4).mean(axis=1).round())
    assert resize_square(ramp, 64) is ramp
    assert resize_square(ramp[:8, :], 32).shape == (32, 32, 3)  # one axis grows, one shrinks
    assert np.abs(resize_square(ramp[:8, :], 32)[5, :, 1].astype(int) - (np.arange(32) * 8 + 2)).max() <= 1


def test_contact_sheet_outlines_without_painting_into_its_input() -> None:
    image, mask = _synthetic_image(0, 64, 64)
    soft = mask.astype(np.uint8) * 255
    before = image.copy(), soft.copy()
    plain = contact_sheet([Sample("one", image, image, None)] * 4, "title")
    outlined = contact_sheet([Sample("one", image, image, soft)] * 4, "title")
    assert plain.shape == outlined.shape
    assert plain.dtype == np.uint8
    changed = np.abs(plain.astype(int) - outlined).max(axis=2) > 60
    assert 0.001 < changed.mean() < 0.05
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(soft, before[1])
    np.testing.assert_array_equal(outlined, contact_sheet([Sample("one", image, image, soft)] * 4, "title"))


def test_the_sheet_alone_is_the_one_beside_the_arrays(tmp_path) -> None:
    made = Root(tmp_path)
    made.make_reference()
    folder = made.make("ham10000")
    again = tmp_path / "again.png"
    settings = settings_with()
    harmonized_arrays.write_sheet(
        "ham10000", SIZE, made.catalog, made.splits, made.reference, tmp_path, again, settings
    )
    assert again.read_bytes() == (folder / "contact_sheet.png").read_bytes()
