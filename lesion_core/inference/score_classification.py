"""The scoring stage of classification: class probabilities of test images into the score store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesion_core.errors import MaskError
from lesion_core.files import read_parquet
from lesion_core.inference.classify import LoadedClassifier, class_probabilities, load_classifier
from lesion_core.paths import Layout
from lesion_core.progress import say
from lesion_core.scores import write_scores
from lesion_core.settings import CLASSES

if TYPE_CHECKING:
    from lesion_core.data.datasets import Harmonized
    from lesion_core.runs import Run
    from lesion_core.settings import Scoring


def score_classification(
    run_dir: Path, run: Run, root: Path, scoring: Scoring, out: Path, *, device: str = "cpu"
) -> None:
    """Score a classification or joint run on the labelled test images of every dataset that is asked for.

    Args:
        run_dir: the run's folder.
        run: its settings.
        root: ``results/<profile>``.
        scoring: which datasets.
        out: one row per dataset and image.
        device: where the model is.

    Raises:
        MaskError: the model looks at masks and a test image has none.
    """
    from lesion_core.data.datasets import Harmonized

    loaded = load_classifier(run_dir, device=device)
    layout = Layout(root)
    rows: list[dict[str, Any]] = []
    for dataset in sorted(scoring.classification_on):
        data = Harmonized.open(layout.harmonized(dataset, loaded.size))
        test = data.rows("test", with_label=True)
        images = data.images[test]
        masks = test_masks(loaded, run_dir, run, layout, dataset, data, test, scoring, device)
        say(f"score {run.method} on {dataset}: {len(test)} test images")
        probabilities = class_probabilities(
            loaded.model, images, masks, loaded.metadata([data.index[row] for row in test])
        )
        for row, probability in zip(test, probabilities, strict=True):
            record = data.index[row]
            rows.append(
                {
                    "run_id": run.run_id,
                    "method": run.method,
                    "dataset": dataset,
                    "split": record["split"],
                    "seed": run.seed,
                    "image_id": record["image_id"],
                    "lesion_id": record["lesion_id"] or None,
                    "label": record["label"],
                    "predicted": CLASSES[int(np.argmax(probability))],
                    **{f"p_{name}": float(value) for name, value in zip(CLASSES, probability, strict=True)},
                }
            )
    write_scores(out, "classification", rows)


def test_masks(
    loaded: LoadedClassifier,
    run_dir: Path,
    run: Run,
    layout: Layout,
    dataset: str,
    data: Harmonized,
    test: np.ndarray,
    scoring: Scoring,
    device: str,
) -> np.ndarray | None:
    """Soft masks uint8 (n, S', S') of the test rows: pseudo-masks, the joint segmenter's own, or the true ones."""
    if not loaded.needs_masks:
        return None
    if run.task == "joint":
        return _joint_masks(run_dir, layout, dataset, test, scoring, device)
    if run.segmenter_run is not None:
        from lesion_core.files import read_csv

        folder = layout.pseudo_masks(run.segmenter_run, dataset)
        listed = [row["image_id"] for row in read_csv(folder / "masks.csv")]
        expected = [record["image_id"] for record in data.index]
        if listed != expected:
            raise MaskError(
                f"Pseudo-masks of {dataset} do not stand in the order of its images",
                file=folder / "masks.csv",
                ids=sorted(set(listed) ^ set(expected)),
                remedy="run the pseudo_masks rule again",
            )
        return np.load(folder / "probabilities.npy", mmap_mode="r")[test]
    return _true_masks(layout, dataset, data, test)


def _joint_masks(
    run_dir: Path, layout: Layout, dataset: str, test: np.ndarray, scoring: Scoring, device: str
) -> np.ndarray:
    from lesion_core.data.datasets import Harmonized
    from lesion_core.inference.load import load_segmenter
    from lesion_core.inference.predict import probabilities

    segmenter = load_segmenter(run_dir, device=device)
    images = Harmonized.open(layout.harmonized(dataset, segmenter.size)).images[test]
    maps = probabilities(segmenter.model, images, batch_size=scoring.batch_size, device=device)
    return np.concatenate([np.round(batch * 255).astype(np.uint8) for batch in maps])


def _true_masks(layout: Layout, dataset: str, data: Harmonized, test: np.ndarray) -> np.ndarray:
    import cv2

    from lesion_core.data.images import read_mask

    table = read_parquet(layout.catalog, ["dataset", "image_id", "mask_path"])
    paths = {row["image_id"]: row["mask_path"] for row in table.to_pylist() if row["dataset"] == dataset}
    missing = [data.index[row]["image_id"] for row in test if not paths.get(data.index[row]["image_id"])]
    if missing:
        raise MaskError(
            f"Test images of {dataset} have no true mask",
            file=layout.catalog,
            ids=missing,
            remedy="use pseudo-masks (masks: a segmentation method)",
        )
    size = data.images.shape[1]
    masks = []
    for row in test:
        mask = read_mask(layout.root / paths[data.index[row]["image_id"]]).astype(np.uint8) * 255
        masks.append(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA))
    return np.stack(masks)
