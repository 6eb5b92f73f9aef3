"""What ``lesion predict`` is given: metadata are read as the catalog reads them, and a full disk is an error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.errors import CatalogError, ImageError, SettingsError
from lesion_core.files import read_csv
from lesion_core.inference.one_image import check_categories, read_metadata
from lesion_core.inference.own_images import list_images
from lesion_core.inference.own_outputs import Extras
from lesion_core.inference.predict import flip_disagreement, predict_folder, probabilities
from lesion_core.models.trained import load_segmenter
from lesion_core.settings import load as config

VOCABULARY = MetadataVocabulary(("female", "male"), ("back", "face"), 50.0, 10.0)
IMAGES = ("a", "b")


def table(folder, *rows, header="image_id,age,sex,site"):
    path = folder / "metadata.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


@pytest.mark.parametrize("sex", ["MALE", "m", "Male", "male"])
def test_spellings_of_the_catalog_mean_the_same(tmp_path, sex):
    known = read_metadata(table(tmp_path, f"a,55,{sex},back", "b,,unknown,"), IMAGES)
    assert known == {
        "a": {"age": 55.0, "sex": "male", "site": "back"},
        "b": {"age": None, "sex": None, "site": None},
    }
    check_categories(known, VOCABULARY, tmp_path)


def test_a_table_that_a_spreadsheet_quoted_is_read(tmp_path):
    path = table(tmp_path, '"a","55","m","back"', header='"image_id","age","sex","site"')
    assert read_metadata(path, IMAGES)["a"]["age"] == 55.0


@pytest.mark.parametrize(
    ("row", "ids", "said"),
    [
        ("a,-5,male,back", ["a"], "no age"),
        ("a,inf,male,back", ["a"], "no age"),
        ("a,1e9,male,back", ["a"], "no age"),
        ("a,121,male,back", ["a"], "no age"),
        ("a,55,banana,back", ["a"], "neither male nor female"),
        ("a.jpg,55,male,back", ["a.jpg"], "without its ending"),
        ("c,55,male,back", ["c"], "not in the folder"),
        ("a,55,male,moon", ["a"], "one of: back, face"),
        ("a,55,male,Back", ["a"], "one of: back, face"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, row, ids, said):
    path = table(tmp_path, row, "b,50,female,face")
    with pytest.raises(CatalogError, match=said) as caught:
        check_categories(read_metadata(path, IMAGES), VOCABULARY, path)
    assert list(caught.value.ids) == ids
    assert caught.value.file == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"image_id;age;sex;site\na;55;male;back\n", "parted by semicolons"),
        (b"image_id\tage\tsex\tsite\n", "parted by tabs"),
        (b"sep=,\nimage_id,age,sex,site\n", "a line sep="),
        ("image_id,age,sex,site\n".encode("utf-16"), "UTF-16"),
        ("image_id,age,sex,site\n".encode("utf-16-le"), "UTF-16"),
        ("image_id,age,sex,site\nä,,,".encode("latin-1"), "utf-8"),
    ],
)
def test_what_a_spreadsheet_saves_otherwise_is_named_and_never_deleted(tmp_path, content, said):
    path = tmp_path / "metadata.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=said) as caught:
        read_metadata(path, IMAGES)
    assert "delete" not in str(caught.value)


def test_a_table_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "metadata.csv")
    with pytest.raises(CatalogError, match="no regular file"):
        read_metadata(tmp_path / "metadata.csv", IMAGES)


def test_a_table_without_a_column_and_an_image_twice_are_refused(tmp_path):
    with pytest.raises(CatalogError, match="missing columns"):
        read_metadata(table(tmp_path, "a,55,male", header="image_id,age,sex"), IMAGES)
    with pytest.raises(CatalogError, match="several rows"):
        read_metadata(table(tmp_path, "a,55,male,back", "a,56,male,back"), IMAGES)


@pytest.fixture
def segmenter(tmp_path):
    """Otsu's threshold at 64 pixels."""
    from safetensors.torch import save_file

    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == "otsu")
    spec = run.spec.model_copy(update={"model": run.spec.model.model_copy(update={"image_size": 64})})
    harmonization = run.harmonization.model_copy(update={"histogram": "none"})
    run = run.model_copy(update={"spec": spec, "harmonization": harmonization})
    run.save(tmp_path / "otsu")
    save_file({}, tmp_path / "otsu" / "weights.safetensors")
    return load_segmenter(tmp_path / "otsu")


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = np.full((300, 400), 200, np.uint8)
    grey[100:200, 150:250] = 60
    for name in "abc":
        Image.fromarray(grey).save(folder / f"{name}.png")
    return folder


def test_conversions_stand_beside_each_mask(segmenter, originals, tmp_path):
    Image.fromarray(np.asarray(Image.open(originals / "a.png")).astype(np.int32)).save(originals / "wide.tif")
    predict_folder(segmenter, originals, tmp_path / "out")
    rows = {row["image"]: row for row in read_csv(tmp_path / "out" / "predictions.csv")}
    assert rows["a.png"]["conversions"] == "greyscale: one channel repeated"
    assert rows["wide.tif"]["conversions"].startswith("sixteen_bit: values up to 255 kept")
    assert rows["wide.tif"]["area"] == rows["a.png"]["area"] != "0.0"


def test_a_disk_that_is_full_in_mid_run_leaves_no_empty_mask(segmenter, originals, small_disk):
    out = small_disk("size=400k")

    def fill_then_free(name, pixels, probability):
        """After the first image the disk fills; after the second there is room again."""
        if name == "a":
            with contextlib.suppress(OSError), open(out / "fill", "wb", buffering=0) as handle:
                while True:
                    handle.write(bytes(4096))
        else:
            (out / "fill").unlink()
        return {}

    with pytest.raises(OSError, match="No space") as caught:
        predict_folder(segmenter, originals, out, classify=fill_then_free)
    assert caught.value.filename.endswith("b.png")
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "fill"]
    assert (out / "a.png").stat().st_size


def test_a_broken_image_is_named(segmenter, originals, tmp_path):
    (originals / "b.png").write_bytes((originals / "b.png").read_bytes()[:-30])
    shutil.copy(originals / "b.png", originals / "d.png")
    with pytest.raises(ImageError, match=r"2 of 4 images cannot be read.*\n.*b\.png") as caught:
        predict_folder(segmenter, originals, tmp_path / "out")
    assert caught.value.ids == ("b", "d")
    assert not (tmp_path / "out").exists()
    assert predict_folder(segmenter, originals, tmp_path / "out", skip_broken=True) == 2
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [bool(row["problem"]) for row in rows] == [False, True, False, True]
    assert [row["area_pixels"] for row in rows[1::2]] == ["", ""]
    mask = np.asarray(Image.open(tmp_path / "out" / rows[0]["mask"]))
    assert int(rows[0]["area_pixels"]) == (mask > 0).sum() == round(float(rows[0]["area"]) * mask.size)


def test_subfolders_are_read_and_what_is_left_out_is_said(segmenter, originals, tmp_path, capsys):
    (originals / "one").mkdir()
    shutil.copy(originals / "a.png", originals / "one" / "a.png")
    for name in ("scan.dcm", "._a.png", "note.heic"):
        (originals / name).write_bytes(b"x")
    assert predict_folder(segmenter, originals, tmp_path / "out") == 4
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [row["image_id"] for row in rows] == ["a", "b", "c", "one/a"]
    assert (tmp_path / "out" / "one" / "a.png").is_file()
    said = capsys.readouterr().err
    assert "scan.dcm" in said
    assert "note.heic" in said
    assert "research only" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [("A.PNG", "in case"), ("a.tif", "extension"), ("=cmd.png", "formula"), ("x" * 210 + ".png", "too long")],
)
def test_names_that_cannot_be_written_safely_are_refused(originals, name, said):
    shutil.copy(originals / "a.png", originals / name)
    with pytest.raises(ImageError, match=said):
        list_images(originals)


def test_an_empty_folder_is_answered_without_torch(tmp_path):
    code = "import sys; from lesion_core.inference import own_images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(ImageError, match="No images"):
        list_images(tmp_path)


def test_masks_never_lie_below_the_images(segmenter, originals):
    with pytest.raises(ImageError, match="among the images"):
        predict_folder(segmenter, originals, originals / "out")


def test_overlay_probability_map_and_area_in_mm2(segmenter, originals, tmp_path):
    out = tmp_path / "out"
    predict_folder(segmenter, originals, out, extras=Extras(True, True, True, 0.05))
    row = read_csv(out / "predictions.csv")[0]
    assert float(row["area_mm2"]) == pytest.approx(int(row["area_pixels"]) * 0.0025)
    mask = np.asarray(Image.open(out / "a.png")) > 0
    probability = np.asarray(Image.open(out / "a.probability.tif"))
    assert (probability.shape, probability.dtype) == (mask.shape, np.uint8)
    assert probability[mask].mean() > 200 > 50 > probability[~mask].mean()
    shown = np.asarray(Image.open(out / "a.overlay.jpg")).astype(int)
    green = shown[..., 1] - shown[..., 0] > 100
    assert green.any()
    assert not green[:90].any()  # the outline alone is drawn
    assert not green[120:180, 170:230].any()


def test_flips_agree_for_what_is_symmetric_and_tell_what_is_not(segmenter):
    class LeftHalf(torch.nn.Module):
        """Whatever it is shown, lesion is on the left."""

        def forward(self, images, prompts):
            logits = torch.full((len(images), 1, 64, 64), -9.0)
            logits[..., :32] = 9.0
            return logits

    pixels = np.zeros((64, 64, 3), np.uint8)
    unsure = replace(segmenter, model=LeftHalf())
    left = np.repeat([[1.0] * 32 + [0.0] * 32], 64, axis=0).astype(np.float32)
    # upside down it agrees, left to right (and both) not at all
    assert flip_disagreement(unsure, pixels, left, (64, 64)) == pytest.approx(2 / 3)
    pixels[20:50, 10:30] = 200
    given = next(probabilities(segmenter, pixels[None], [(64, 64)]))[0]
    assert flip_disagreement(segmenter, pixels, given, (64, 64)) == 0.0


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_a_pixel_has_a_width(width):
    with pytest.raises(SettingsError, match="mm"):
        Extras(mm_per_pixel=width)


def test_a_killed_run_goes_on(segmenter, originals, tmp_path):
    seen, out, by = [], tmp_path / "out", {"weights": "1"}

    def killed_at_c(name, pixels, probability):
        seen.append(name)
        if name == "c" and seen.count("c") == 1:
            raise KeyboardInterrupt
        return {"predicted": name}

    with pytest.raises(KeyboardInterrupt):
        predict_folder(segmenter, originals, out, classify=killed_at_c, made_by=by)
    with (out / "predictions.part.jsonl").open("a") as handle:
        handle.write('[[1, 2], {"image_')  # a line that was cut short
    Image.fromarray(np.full((50, 60), 9, np.uint8)).save(originals / "b.png")  # another image by now
    assert predict_folder(segmenter, originals, out, classify=killed_at_c, made_by=by) == 3
    assert seen == ["a", "b", "c", "b", "c"]
    rows = read_csv(out / "predictions.csv")
    assert [(row["predicted"], row["width"]) for row in rows] == [("a", "400"), ("b", "60"), ("c", "400")]
    assert not (out / "predictions.part.jsonl").exists()


SLOWLY = """
import time
from lesion_core.inference import predict
look = predict.look
predict.look = lambda *given: (time.sleep(0.1), look(*given))[1]
from lesion_core.cli import main
main()
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_kill_9_only_the_rest_is_made_and_the_table_is_the_same(workers, segmenter, originals, tmp_path):
    for number in range(17):
        shutil.copy(originals / "a.png", originals / f"n{number}.png")
    run = next(path.parent for path in tmp_path.glob("*/settings.yaml"))
    arguments = ["predict", "--segmenter", run, "--images", originals, "--workers", workers, "--flips"]

    def call(code, out):
        return subprocess.Popen([sys.executable, "-c", code, *arguments, "--out", out], stderr=subprocess.PIPE)

    out, part = tmp_path / "killed", tmp_path / "killed" / "predictions.part.jsonl"
    process, deadline = call(SLOWLY, out), time.monotonic() + 120
    while time.monotonic() < deadline and not (part.is_file() and part.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    finished = part.read_bytes().count(b"\n") - 1
    assert 4 <= finished < 20
    assert not (out / "predictions.csv").exists()
    names = [json.loads(line)[1]["mask"] for line in part.read_text().split("\n")[1:-1]]
    before = {name: (out / name).stat().st_mtime_ns for name in names}
    _, said = call("from lesion_core.cli import main; main()", out).communicate()
    assert f"{finished} of 20 images were finished before".encode() in said
    assert {name: (out / name).stat().st_mtime_ns for name in names} == before
    predict_folder(segmenter, originals, tmp_path / "whole", extras=Extras(flips=True))
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert len(list(out.iterdir())) == 21


class Strange:
    """Every image is."""

    def of(self, pixels):
        return 2.0


@pytest.mark.parametrize(
    "changed", [{"made_by": {"weights": "2"}}, {"extras": Extras(overlay=True)}, {"unlikeness": Strange()}]
)
def test_what_was_made_in_another_way_is_made_anew(changed, segmenter, originals, tmp_path):
    seen = []

    def killed_at_b(name, pixels, probability):
        seen.append(name)
        if seen == ["a", "b"]:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        predict_folder(segmenter, originals, tmp_path / "out", classify=killed_at_b, made_by={"weights": "1"})
    again = {"made_by": {"weights": "1"}, **changed}
    predict_folder(segmenter, originals, tmp_path / "out", classify=killed_at_b, **again)
    assert seen == ["a", "b", "a", "b", "c"]


def test_a_refused_call_leaves_what_was_finished(segmenter, originals, tmp_path):
    out, part = tmp_path / "out", tmp_path / "out" / "predictions.part.jsonl"
    out.mkdir()
    part.write_text("of another run\n")
    (originals / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="broken"):
        predict_folder(segmenter, originals, out, made_by={"weights": "1"})
    assert [path.name for path in out.iterdir()] == [part.name]
    assert part.read_text() == "of another run\n"
