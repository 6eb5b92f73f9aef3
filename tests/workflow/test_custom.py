"""A user's own dataset in the plan: every stage asks for it, and an absent folder is told before any job."""

from __future__ import annotations

import os
import re
import time

from conftest import checkout, snakemake


def test_every_stage_plans_a_custom_dataset(tmp_path):
    folder = checkout(tmp_path / "project")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "images.csv").write_text("image_id\n")
    own = f"{{images: {tmp_path}/images, masks: {tmp_path}/masks, csv: {tmp_path}/images.csv}}"
    datasets = "[isic2018_task1, isic2018_task3, ham10000, ph2, custom]"
    arguments = [
        *("--dry-run", "--config", "profile=smoke"),
        f"data={{datasets: {datasets}, custom: {own}}}",
        "scoring={segmentation_on: [isic2018_task1, custom], classification_on: [ham10000]}",
        "bases={segmentation: {train_on: [isic2018_task1, custom]}}",
    ]
    done = snakemake(folder, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert re.search(r"results/smoke/protocols/shared/leak_free/splits/custom\.csv", said)
    assert re.search(r"results/smoke/protocols/[\w/]+/pixels/custom/\d+/images\.npy", said)
    assert "downloads/custom" not in said
    (tmp_path / "images").rmdir()
    done = snakemake(folder, *arguments)
    assert done.returncode != 0
    assert f"{tmp_path}/images" in done.stdout + done.stderr


def test_the_catalog_is_made_anew_for_an_edit_in_place_and_not_for_a_new_time(tmp_path):
    """An edit that a folder's time does not show; a copy or a backup gives new times to equal bytes."""
    import numpy as np
    from PIL import Image

    folder = checkout(tmp_path / "project")
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    draw = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[16:40, 16:48] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "images.csv").write_text("image_id\na\nb\nc\n")
    own = f"{{images: {tmp_path}/images, masks: {tmp_path}/masks, csv: {tmp_path}/images.csv}}"
    arguments = [
        "results/smoke/catalog/images.parquet",
        *("--config", "profile=smoke", f"data={{datasets: [custom], custom: {own}}}"),
        "scoring={segmentation_on: [custom], classification_on: [custom]}",
        "matrix={methods: [otsu], ablations: []}",
        "bases={segmentation: {train_on: [custom]}, classification: {train_on: [custom]}}",
    ]

    def planned():
        done = snakemake(folder, "--dry-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return "rule catalog:" in done.stdout + done.stderr

    done = snakemake(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (tmp_path / "images" / "a.png", tmp_path / "masks" / "b.png"):
        content = path.read_bytes()
        path.write_bytes(content + b"\0")  # in place: the folder's time stays
        assert planned(), path
        path.write_bytes(content)
    later = time.time() + 60
    for path in (tmp_path / "images.csv", tmp_path / "images", *(tmp_path / "images").iterdir()):
        os.utime(path, (later, later))
    assert not planned()
