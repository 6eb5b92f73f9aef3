"""From a run's folder to masks and scores, with Otsu's threshold as the model (nothing to train)."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from lesion_core.acquire.synthetic import draw_batch
from lesion_core.errors import ImageError, MaskError, RunError, WeightsError
from lesion_core.files import read_csv, read_parquet, write_csv
from lesion_core.inference.expected_dice import confidence
from lesion_core.inference.own_images import list_images
from lesion_core.inference.predict import predict_folder
from lesion_core.inference.pseudo_masks import flags, write_pseudo_masks
from lesion_core.inference.score_segmentation import model_size, score_segmentation
from lesion_core.models.trained import load_segmenter, starting_weights
from lesion_core.settings import load as config

HOME = "sam_vit_protocol/leak_free"  # of the run whose scores are made
SIZE = 64
NATIVE = (60, 80)
INDEX = ("row", "image_id", "lesion_id", "group_id", "split", "label", "mask_row", "width", "height")
INDEX += ("age", "sex", "site")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A results folder with one harmonized dataset, its catalog, and an Otsu run."""
    import cv2
    import pyarrow
    from safetensors.torch import save_file

    from lesion_core.files import write_parquet

    root = tmp_path_factory.mktemp("results") / "tiny"
    images, masks, _ = draw_batch(11, range(6), SIZE)
    folder = root / "protocols" / HOME / "pixels" / "ph2" / str(SIZE)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", masks[:3] * 255)
    height, width = NATIVE
    rows, catalog = [], []
    (root / "data").mkdir()
    for number in range(6):
        split = "train" if number < 3 else "test"
        rows.append(
            dict(zip(INDEX, [number, f"IMD{number}", "", "", split, "", number if number < 3 else -1], strict=False))
            | {"width": width, "height": height}
        )
        path = root / "data" / f"mask{number}.png"
        cv2.imwrite(str(path), cv2.resize(masks[number] * 255, (width, height), interpolation=cv2.INTER_NEAREST))
        catalog.append({"dataset": "ph2", "image_id": f"IMD{number}", "mask_path": f"data/mask{number}.png"})
    write_csv(folder / "index.csv", INDEX, rows)
    write_parquet(root / "catalog" / "images.parquet", pyarrow.Table.from_pylist(catalog))
    settings = config.load("smoke")
    run = next(run for run in config.expand(settings).values() if run.method == "otsu")
    model = run.spec.model.model_copy(update={"image_size": SIZE})
    run = run.model_copy(
        update={
            "spec": run.spec.model_copy(update={"model": model}),
            "harmonization": run.harmonization.model_copy(update={"histogram": "none"}),
        }
    )
    run_dir = root / "runs" / "segmentation" / "otsu"
    run_dir.mkdir(parents=True)
    run.save(run_dir)
    save_file({}, run_dir / "weights.safetensors")
    return root


@pytest.fixture(scope="module")
def segmenter(root):
    return load_segmenter(root / "runs" / "segmentation" / "otsu")


def test_scores_agree_with_the_stored_masks(root, segmenter, tmp_path):
    import cv2
    from sklearn.metrics import f1_score, jaccard_score

    scoring = config.load("smoke").scoring.model_copy(update={"segmentation_on": ["ph2"], "batch_size": 2})
    out, archive = tmp_path / "scores.parquet", tmp_path / "masks.zip"
    score_segmentation(segmenter, segmenter.run, root, scoring, out, archive)
    rows = read_parquet(out).to_pylist()
    assert [(row["image_id"], row["resolution"]) for row in rows] == [
        (f"IMD{number}", size) for number in (3, 4, 5) for size in ("model", "native")
    ]
    assert {row["prompt"] for row in rows} == {"none"}
    with zipfile.ZipFile(archive) as masks:
        names = [f"{kind}ph2/IMD{number}.png" for number in (3, 4, 5) for kind in ("", "truth/")]
        assert masks.namelist() == names
        for row in rows:
            if row["resolution"] == "model":
                assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == SIZE * SIZE
                continue
            content = np.frombuffer(masks.read(f"ph2/{row['image_id']}.png"), np.uint8)
            predicted = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) > 0
            truth = cv2.imread(str(root / f"data/mask{row['image_id'][3:]}.png"), cv2.IMREAD_GRAYSCALE) > 128
            assert predicted.shape == truth.shape == NATIVE
            stored = np.frombuffer(masks.read(f"truth/ph2/{row['image_id']}.png"), np.uint8)
            assert np.array_equal(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE) > 0, truth)
            assert row["dice"] == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))
            assert row["iou"] == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))
    again = tmp_path / "again.parquet"
    score_segmentation(segmenter, segmenter.run, root, scoring, again, tmp_path / "again.zip")
    assert again.read_bytes() == out.read_bytes()
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_a_test_image_without_a_mask_is_named(root, segmenter, tmp_path):
    scoring = config.load("smoke").scoring.model_copy(update={"segmentation_on": ["ph2"]})
    import pyarrow

    from lesion_core.files import write_parquet

    path = root / "catalog" / "images.parquet"
    before = path.read_bytes()
    rows = [row for row in read_parquet(path).to_pylist() if row["image_id"] != "IMD4"]
    write_parquet(path, pyarrow.Table.from_pylist(rows))
    try:
        with pytest.raises(MaskError, match="IMD4"):
            score_segmentation(segmenter, segmenter.run, root, scoring, tmp_path / "s.parquet", tmp_path / "m.zip")
    finally:
        path.write_bytes(before)
    assert list(tmp_path.iterdir()) == []


def test_pseudo_masks_stand_row_by_row(root, segmenter, tmp_path):
    folder = root / "protocols" / HOME / "pixels" / "ph2" / str(SIZE)
    write_pseudo_masks(segmenter, folder, tmp_path / "out", batch_size=4)
    probabilities, masks = np.load(tmp_path / "out" / "probabilities.npy"), np.load(tmp_path / "out" / "masks.npy")
    assert probabilities.shape == masks.shape == (6, SIZE, SIZE)
    assert probabilities.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) <= {0, 255}
    rows = read_csv(tmp_path / "out" / "masks.csv")
    assert [row["image_id"] for row in rows] == [f"IMD{number}" for number in range(6)]
    for row, mask in zip(rows, masks, strict=True):
        assert float(row["area"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
    one = tmp_path / "one"
    write_pseudo_masks(segmenter, folder, one, batch_size=1)
    assert (one / "probabilities.npy").read_bytes() == (tmp_path / "out" / "probabilities.npy").read_bytes()


@pytest.mark.parametrize(
    ("lesion", "components", "expected"),
    [(0, 0, "empty"), (100, 1, "full"), (97, 1, "large"), (30, 1, ""), (30, 3, "fragmented")],
)
def test_flags(lesion, components, expected):
    mask = np.zeros(100, bool)
    mask[:lesion] = True
    assert flags(mask.reshape(10, 10), components) == expected


def test_confidence_by_hand():
    probability = np.array([[0.9, 0.7], [0.2, 0.4]])
    assert confidence(probability, np.array([[True, True], [False, False]])) == pytest.approx(0.5 * 0.8 + 0.5 * 0.7)
    assert confidence(probability, np.zeros((2, 2), bool)) == 0.5


def test_model_size_counts_half_a_pixel_as_lesion():
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    mask[2, 2:] = True
    assert model_size(mask, 2).tolist() == [[True, False], [False, True]]


def test_predict_folder_and_its_refusals(root, segmenter, tmp_path):
    import cv2

    originals = tmp_path / "in"
    originals.mkdir()
    images, _, _ = draw_batch(3, range(2), 96)
    cv2.imwrite(str(originals / "b.png"), images[0][:, :70, ::-1])
    cv2.imwrite(str(originals / "a.jpg"), images[1][:50, :, ::-1])
    assert predict_folder(segmenter, originals, tmp_path / "out") == 2
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [(row["image"], row["width"], row["height"]) for row in rows] == [
        ("a.jpg", "96", "50"),
        ("b.png", "70", "96"),
    ]
    for row in rows:
        mask = cv2.imread(str(tmp_path / "out" / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (int(row["height"]), int(row["width"]))
    cv2.imwrite(str(originals / "a.png"), images[0])
    with pytest.raises(ImageError, match="ids: a"):
        list_images(originals)
    with pytest.raises(ImageError, match="does not exist"):
        list_images(tmp_path / "nowhere")
    (originals / "a.png").unlink()
    before = (originals / "b.png").read_bytes()
    with pytest.raises(ImageError, match="among the images"):
        predict_folder(segmenter, originals, tmp_path / "out" / ".." / "in")
    assert (originals / "b.png").read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"settings\.yaml"):
        load_segmenter(tmp_path)
    with pytest.raises(WeightsError, match="sam_vit_h"):
        starting_weights("sam_vit_h", tmp_path)
