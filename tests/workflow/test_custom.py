"""A user's own dataset in the plan: every stage asks for it, and an absent folder is told before any job."""

from __future__ import annotations

import re

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
    assert re.search(r"results/smoke/splits/custom\.csv", said)
    assert re.search(r"results/smoke/harmonized/custom/\d+/images\.npy", said)
    assert "downloads/custom" not in said
    (tmp_path / "images").rmdir()
    done = snakemake(folder, *arguments)
    assert done.returncode != 0
    assert f"{tmp_path}/images" in done.stdout + done.stderr
