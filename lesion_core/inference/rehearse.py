"""Prediction in a rehearsal: one image, by the code of ``lesion predict``, right after the run's training."""

from __future__ import annotations

import gc
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lesion_core.acquire.images import inspect_image
from lesion_core.catalog.table import read_images
from lesion_core.files import read_json, write_json
from lesion_core.inference.classify import RunClassifier
from lesion_core.inference.one_image import image_classifier
from lesion_core.inference.predict import predict_folder
from lesion_core.models.trained import load_segmenter
from lesion_core.paths import Layout
from lesion_core.settings.run import Run


def rehearse_prediction(run: Run, run_dir: Path, root: Path, device: str) -> None:
    """Predict one image and write its seconds, loading included, as ``predict_seconds`` into the run's provenance.

    The image is the first of the catalog, as released. A joint run segments and classifies it; a classifier sees a
    mask of all of it, since no segmenter need be there yet; a segmenter that needs a person's clicks predicts nothing.

    Args:
        run: of the segmentation, classification or joint task; trained.
        root: ``results/<profile>``.

    Raises:
        CatalogError: there is no catalog. RunError, ImageError: as ``lesion predict``.
    """
    layout = Layout(Path(root))
    image = layout.root / read_images(layout.catalog)[0]["path"]
    gc.collect()  # the trained network
    start = time.monotonic()
    classify = None
    if run.task != "segmentation":
        classify = image_classifier(RunClassifier(run_dir, device))
    if run.task == "classification":
        assert classify is not None
        original = inspect_image(image).pixels
        classify(image.stem, original, np.ones(original.shape[:2], np.float32))
    else:
        segmenter = load_segmenter(run_dir, device=device)
        if segmenter.settings.unaided_prompt is None:
            return
        with TemporaryDirectory() as folder:
            images = Path(folder) / "images"
            images.mkdir()
            shutil.copy(image, images)
            predict_folder(segmenter, images, Path(folder) / "out", classify=classify)
    path = Path(run_dir) / "provenance.json"
    record = read_json(path)
    record["extra"]["predict_seconds"] = round(time.monotonic() - start, 3)
    write_json(path, record)
