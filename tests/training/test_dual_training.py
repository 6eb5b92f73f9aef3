"""Training the dual network: metadata stay inside their split, and the run's folder knows how to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from classification_runs import dual_run, make_root, make_run, with_metadata
from material import HOME

from lesion_core.files import read_csv, write_csv
from lesion_core.inference.classify import class_probabilities
from lesion_core.models.trained import load_classifier
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import INDEX_COLUMNS, Harmonized
from lesion_core.settings.run import Run
from lesion_core.training.classification import train_run
from lesion_core.training.classification_data import load_labelled_images


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return with_metadata(make_root(tmp_path))


def test_metadata_of_validation_and_test_images_teach_nothing(layout: Layout):
    images = load_labelled_images(layout.root, HOME, ["ham10000"], 32, masks=None, segmenter_run=None)
    vocabulary = images.vocabulary()
    assert vocabulary.sites == ("back", "face")
    assert vocabulary.sexes == ()
    assert vocabulary.age_mean == 40.0
    # the same vocabulary, whatever the other splits say
    path = layout.pixels(HOME, "ham10000", 32) / "index.csv"
    rows = read_csv(path)
    for row in rows:
        if row["split"] != "train":
            row.update(site="elsewhere", age="77", sex="male")
    write_csv(path, INDEX_COLUMNS, rows)
    again = load_labelled_images(layout.root, HOME, ["ham10000"], 32, masks=None, segmenter_run=None)
    assert again.vocabulary() == vocabulary
    unseen = vocabulary.encode([again.data.index[row] for row in again.val])
    assert (unseen[:, 1:] == 0).all()


def test_a_dual_run_trains_and_its_folder_reads_metadata_alike(layout: Layout):
    folders = [layout.run("classification", name) for name in ("one", "two")]
    for folder in folders:
        dual_run().save(folder)
        train_run(dual_run(), folder, layout.root, "cpu")
    first, second = (load_classifier(folder) for folder in folders)
    assert first.model.vocabulary.sites == ("back", "face")
    data = Harmonized.open(layout.pixels(HOME, "ham10000", 32))
    rows = data.rows("test")
    records = [data.index[row] for row in rows]
    codes = first.metadata(records)
    assert set(codes[:, 2]) == {0.0, 2.0}
    results = [class_probabilities(loaded.model, data.images[rows], None, codes) for loaded in (first, second)]
    assert np.array_equal(*results)
    assert not np.allclose(results[0], class_probabilities(first.model, data.images[rows], None), atol=1e-6)


def test_mixup_with_metadata_is_refused():
    run = make_run(kind="dual", fusion="none", metadata="none")
    spec = run.spec.model_dump()
    spec["model"]["metadata"] = "binned"
    with pytest.raises(ValueError, match="mixup cannot mix metadata"):
        Run.model_validate({**run.model_dump(), "spec": spec}, strict=False)
