"""The trace: a cell's chain down to the images, and what happens when a link is broken."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from material import HOME
from report_store import IMAGES, make_plan, make_results, segmentation_rows
from typer.testing import CliRunner

from lesion_core.cli import app
from lesion_core.errors import ScoreError
from lesion_core.files import read_csv, read_json, read_parquet, sha256_file, write_csv, write_json
from lesion_core.paths import Layout
from lesion_core.report.lineage import Lineage
from lesion_core.report.statistics import write_statistics
from lesion_core.report.table_cells import write_cells
from lesion_core.report.tables import write_tables
from lesion_core.report.trace import trace_cell, trace_test, trace_text
from lesion_core.scores import write_scores

SEGMENTED = "sam_frozen, sam_vit_table_05, isic2018_task1, dice, image"
CLASSIFIED = "vit_none, sam_vit_table_08, ham10000, accuracy, image"
PLACE = ("sam_vit_table_05", "SAM-ViT (proposed)", "dice")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("trace")
    make_results(root)
    write_tables(root, make_plan())
    return root


@pytest.fixture
def root(built, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(built, copy)
    return copy


def test_chain_of_a_cell(built):
    found = trace_cell(built, *PLACE)
    assert found.faults == ()
    # 0.8 and 0.9 by hand
    assert found.recomputed["per_run"] == pytest.approx((80.0, 90.0))
    assert found.recomputed["value"] == found.cell["value"] == pytest.approx(85.0)
    assert [item["run"]["run_id"] for item in found.runs] == ["sam_adapter-s0", "sam_adapter-s1"]
    assert [item["rows"]["rows"] for item in found.runs] == [4, 4]
    store = Layout(built).scores("segmentation")
    assert {item["rows"]["file_sha256"] for item in found.runs} == {sha256_file(store)}
    weights = Layout(built).run("segmentation", "sam_adapter-s0") / "weights.safetensors"
    assert found.runs[0]["run"]["weights_sha256"] == sha256_file(weights)
    assert [image["image_id"] for image in found.images] == sorted(IMAGES)
    assert found.split["sha256"] == sha256_file(Layout(built).split(HOME, "isic2018_task1"))


def test_every_cell_with_a_value_of_ours_can_be_traced(built):
    cells = [c for c in read_parquet(built / "tables" / "cells.parquet").to_pylist() if c["value"] is not None]
    assert {c["kind"] for c in cells} == {"segmentation", "classification"}
    assert {"prompt_worth", "dual_scoring"} <= {c["table"] for c in cells}
    for cell in cells:
        found = trace_cell(built, cell["table"], cell["row"], cell["column"])
        assert found.faults == ()


def test_command_prints_the_chain_and_lists_images_on_demand(built):
    run = CliRunner()
    done = run.invoke(app, ["trace", *PLACE, "--root", str(built)])
    assert done.exit_code == 0
    assert "the cell is what its score rows give" in done.stdout
    assert "images      4, " in done.stdout
    hashes = [f"{number:064x}" for number in range(len(IMAGES))]
    assert not any(digest in done.stdout for digest in hashes)
    done = run.invoke(app, ["trace", *PLACE, "--root", str(built), "--images"])
    assert all(digest in done.stdout for digest in hashes)


def test_a_number_that_was_typed_in_is_found(root):
    path = root / "tables" / "cells.parquet"
    cells = read_parquet(path).to_pylist()
    for cell in cells:
        if (cell["table"], cell["row"], cell["column"]) == PLACE:
            # one unit in the last place
            cell["value"] = float(np.nextafter(cell["value"], 100.0))
    write_cells(cells, path)
    done = CliRunner().invoke(app, ["trace", *PLACE, "--root", str(root)])
    assert done.exit_code == 1
    assert "the table's value is" in done.stdout


def test_a_store_that_scoring_did_not_write_is_found(root):
    rows = segmentation_rows()
    for row in rows:
        row["tn"] += row["run_id"] == "sam_adapter-s1"
    write_scores(Layout(root).scores("segmentation"), "segmentation", rows)
    found = trace_cell(root, *PLACE)
    assert found.recomputed["value"] == found.cell["value"]
    assert found.faults == ("the store's rows of sam_adapter-s1 are not those that its scoring wrote",)


def test_two_equal_runs_that_took_other_times_have_one_chain(root):
    chain = Lineage.read(root)
    path = chain.run_dir("sam_adapter-s0") / "provenance.json"
    content = read_json(path)
    before = chain.run("sam_adapter-s0")
    write_json(path, content | {"seconds": 9.0, "extra": content["extra"] | {"resumed": 2, "training_seconds": 7.5}})
    assert chain.run("sam_adapter-s0") == before


def test_changed_inputs_splits_and_lost_weights_are_found(root):
    layout = Layout(root)
    folder = layout.run("segmentation", "sam_adapter-s0")
    content = read_json(folder / "provenance.json")
    layout.split(HOME, "isic2018_task1").write_text("image_id,group_id,split\n")
    (folder / "weights.safetensors").unlink()
    index = root / "protocols" / "index.csv"
    index.parent.mkdir(exist_ok=True)
    index.write_text("new")
    write_json(folder / "provenance.json", content | {"inputs": {"protocols/index.csv": "0" * 64, "gone": "1" * 64}})
    found = trace_cell(root, *PLACE)
    assert set(found.faults) == {
        "protocols/index.csv has changed since sam_adapter-s0 read it",
        "sam_adapter-s0 has no weights",
        "protocols/shared/leak_free/splits/isic2018_task1.csv is not the file of the certificate",
    }
    assert "the chain is broken" in trace_text(found)
    assert found.runs[0]["run"]["inputs"]["gone"]["state"] == "not here"


def test_a_derived_run_has_the_weights_of_its_sources(root):
    """A run that averages others has a folder of its own kind, and no weights."""
    source = Layout(root).run("classification", "vit_none-s0")
    (source / "weights.safetensors").unlink()
    shutil.move(source, root / "runs" / "derived" / "vit_none-s0")
    found = trace_cell(root, "sam_vit_table_08", "ViT without fusion", "accuracy")
    assert found.faults == ()
    assert found.runs[0]["run"]["task"] == "derived"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (("sam_vit_table_99", "x", "dice"), "No table 'sam_vit_table_99'"),
        (("sam_vit_table_05", "x", "dice"), "No row 'x'"),
        (("sam_vit_table_05", "SAM-ViT (proposed)", "f1"), "No column 'f1'"),
        (("sam_vit_table_05", "U-Net", "dice"), "not run in this profile"),
    ],
)
def test_what_cannot_be_traced_says_why(built, place, says):
    with pytest.raises(ScoreError, match=says):
        trace_cell(built, *place)


@pytest.fixture
def tested(root):
    write_statistics(root, make_plan())
    return root


def test_every_number_of_the_statistics_can_be_traced(tested):
    found = trace_test(tested, make_plan(), "sam_vit_table_15", SEGMENTED, "p_holm")
    assert found.faults == ()
    assert float(found.recomputed["value"]) == pytest.approx(2 / 2**4)
    assert [item["run"]["run_id"] for item in found.runs] == ["sam_adapter-s0", "sam_adapter-s1", "sam_frozen-s0"]
    assert "images      4, " in trace_text(found)
    found = trace_test(tested, make_plan(), "sam_vit_table_16", CLASSIFIED, "p_mcnemar")
    assert (found.faults, float(found.recomputed["value"])) == ((), 0.5)


def test_a_changed_p_value_is_found(tested):
    path = tested / "statistics" / "tests.csv"
    rows = read_csv(path)
    rows[1]["p_wilcoxon"] = "0.049"
    write_csv(path, list(rows[1]), rows)
    found = trace_test(
        tested,
        make_plan(),
        "sam_vit_table_15",
        SEGMENTED,
        "p_wilcoxon",
    )
    assert found.faults == ("the file says 0.049, the score rows give 0.125",)


def test_an_unknown_test_names_the_known_ones(tested):
    with pytest.raises(ScoreError, match="No test") as error:
        trace_test(tested, make_plan(), "sam_vit_table_15", "unet, ph2, image", "p_t")
    assert "sam_frozen, sam_vit_table_05, isic2018_task1, dice, seed" in error.value.ids
