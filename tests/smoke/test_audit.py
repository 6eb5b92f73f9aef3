"""The audit of a finished smoke run: nothing to find, and every planted change found and named."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from forging import fit_manifest, flipped, linked, replacing

from lesion_core.audit import recompute
from lesion_core.audit.answer import FAILED, OK
from lesion_core.audit.command import audit
from lesion_core.audit.manifest import read_manifest
from lesion_core.errors import RunError
from lesion_core.files import read_json, read_parquet, write_json, write_parquet
from lesion_core.paths import Layout
from lesion_core.settings import Plan, Scoring
from lesion_core.settings.load import REPOSITORY

pytestmark = pytest.mark.smoke
SPLITS = "shared/leak_free"  # where the leak-free tables lie
LOCK = REPOSITORY / "requirements.lock"
SECONDS = 60


@pytest.fixture(scope="module")
def root(smoke, tmp_path_factory):
    return linked(smoke, tmp_path_factory.mktemp("forged"))


@pytest.fixture
def replace(root):
    yield from replacing(root)


def found(root: Path, name: str, *only: str) -> set[str]:
    """The questions, of ``only`` or of all, whose answers name a file as wrong."""
    return {
        answer.question
        for answer in audit(root, LOCK, only=only or None)
        if any(name in line for line in answer.problems)
    }


def test_an_untouched_result_passes_with_evidence(root):
    start = time.process_time()
    answers = audit(root, LOCK, count=3)
    assert time.process_time() - start < SECONDS
    assert {answer.verdict for answer in answers} == {OK}, [answer.text() for answer in answers]
    assert all(answer.evidence for answer in answers)
    manifest = read_manifest(root)
    assert len(manifest.products) > 100
    assert all(job.rule for job in manifest.jobs), "each result has a job that made it"
    kinds = ("data/", "protocols/", "scores/", "tables/", "runs/", "figures/", "report.html")
    for kind in kinds:
        assert any(name.startswith(kind) for name in manifest.products), kind


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


@pytest.mark.parametrize(
    "pattern",
    [
        "data/ham10000/**/*.jpg",
        "data/**/*_segmentation.png",
        "protocols/shared/leak_free/splits/ham10000.csv",
        "runs/segmentation/sam_adapter-*/weights.safetensors",
        "runs/segmentation/sam_adapter-*/settings.yaml",
        "runs/segmentation/sam_adapter-*/scores.parquet",
        "tables/sam_vit_table_05.csv",
        "protocols/*/*/pixels/*/*/images.npy",
    ],
)
def test_one_byte_is_found_and_named(root, replace, pattern):
    path = first(root, pattern)
    replace(path, flipped(path))
    name = path.relative_to(root).as_posix()
    assert "Are all files the ones that were recorded?" in found(root, name, "files")


def test_a_clever_forger_who_mends_the_manifest_is_found_too(root, replace):
    """One score is raised everywhere it stands in the store, and the manifest is made to fit."""
    store = root / "scores" / "segmentation.parquet"
    table = read_parquet(store)
    values = table.column("dice").to_pylist()
    values[0] = 0.999
    forged = table.set_column(table.schema.get_field_index("dice"), "dice", [values])
    replace(store)
    store.unlink()
    write_parquet(store, forged)
    fit_manifest(root, replace, "scores/segmentation.parquet")
    assert found(root, "scores/segmentation.parquet") == {"Do the score tables hold exactly the runs' scores?"}


@pytest.mark.parametrize("mended", ["outputs", "inputs"])
def test_what_runs_and_jobs_say_that_they_read_must_be_what_is_recorded(root, replace, mended):
    """Pixels are changed and the manifest made to fit: as an output alone, or as an input of its readers too."""
    path = first(root, "protocols/*/*/pixels/isic2018_task1/*/images.npy")
    name = path.relative_to(root).as_posix()
    replace(path, flipped(path))
    fit_manifest(root, replace, name, *(["outputs"] if mended == "outputs" else ["outputs", "inputs"]))
    (answer,) = audit(root, LOCK, only=["inputs"])
    assert all(line.startswith(f"{name}: ") for line in answer.problems)
    makers = " ".join(answer.problems)
    assert re.search(r"-s0-[0-9a-f]{8} was made from another content", makers), "its own provenance tells"
    assert ("score_segmenter" in makers) == (mended == "outputs")


@pytest.mark.parametrize("name", ["statistics/subgroups.csv", "statistics/robustness.csv", "ledger/intervals.csv"])
def test_a_forged_statistic_is_found_where_the_manifest_was_mended(root, replace, name):
    path = root / name
    lines = path.read_text().splitlines()
    digit = re.search(r"\d\.\d*?([1-9])", lines[-1])
    assert digit, lines[-1]
    lines[-1] = lines[-1][: digit.start(1)] + str(int(digit[1]) - 1) + lines[-1][digit.end(1) :]
    replace(path, "\n".join([*lines, ""]).encode())
    fit_manifest(root, replace, name)
    assert found(root, name, "files") == set()
    assert found(root, name, "tables") == {"Does each table cell recompute from the scores to the last digit?"}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("tables/sam_vit_table_99.csv", {"files", "tables"}),
        ("figures/figure_99.png", {"files"}),
        ("protocols/shared/leak_free/pixels/ham10000/notes/index.txt", {"files"}),
    ],
)
def test_what_no_job_made_is_named(root, name, asked):
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("0.999")
    try:
        assert {question for question in ("files", "tables") if found(root, name, question)} == asked
    finally:
        path.unlink()


def test_scores_that_do_not_follow_from_weights_are_found(root, replace):
    path = first(root, "runs/segmentation/sam_adapter-*/scores.parquet")
    table = read_parquet(path)
    halves = [value / 2 for value in table.column("dice").to_pylist()]
    replace(path)
    path.unlink()
    write_parquet(path, table.set_column(table.schema.get_field_index("dice"), "dice", [halves]))
    answers = {answer.question: answer for answer in audit(root, LOCK, count=100, only=["scores"])}
    answer = answers["Do sampled scores recompute from weights and images?"]
    assert answer.verdict == FAILED
    assert all(path.relative_to(root).as_posix() in line for line in answer.problems)


def test_averages_of_runs_recompute_and_those_that_do_not_follow_are_found(root, replace):
    sections = read_manifest(root).settings
    plan, scoring = Plan.model_validate(sections["plan"]), Scoring.model_validate(sections["scoring"])
    derived = {path.name for path in (root / "runs" / "derived").iterdir()}
    runs = {name: own for name, own in plan.runs.items() if set(own) <= derived}
    averages = plan.model_copy(update={"runs": runs})
    drawn = {"seed": 0, "tolerance": 0.0, "device": "cpu"}
    answer = recompute.scores(root, averages, scoring, 4, **drawn)
    assert (answer.verdict, derived != set()) == (OK, True), answer.text()
    for path in sorted((root / "runs" / "derived").glob("*/scores.parquet")):
        table = read_parquet(path)
        halves = [value / 2 for value in table.column("p_mel").to_pylist()]
        replace(path)
        path.unlink()
        write_parquet(path, table.set_column(table.schema.get_field_index("p_mel"), "p_mel", [halves]))
    answer = recompute.scores(root, averages, scoring, 4, **drawn)
    assert answer.verdict == FAILED
    assert all(line.startswith("runs/derived/") for line in answer.problems)


def closed_mask(root: Path) -> str:
    """A test image's mask, as the catalog names it."""
    split = {}
    for line in Layout(root).split(SPLITS, "isic2018_task1").read_text().splitlines()[1:]:
        image, _, name = line.split(",")
        split[image] = name
    rows = read_parquet(root / "catalog" / "images.parquet").to_pylist()
    return next(
        row["mask_path"]
        for row in rows
        if row["dataset"] == "isic2018_task1" and split[row["image_id"]] == "test" and row["mask_path"]
    )


def test_a_test_mask_that_another_job_than_scoring_opened_is_named(root, replace):
    mask = closed_mask(root)
    for pattern in ("protocols/*/*/pixels/isic2018_task1/*/provenance.json", "pseudo_masks/*/*/provenance.json"):
        path = first(root, pattern)
        content = read_json(path)
        assert mask not in content["opened"]
        replace(path)
        path.unlink()
        write_json(path, content | {"opened": [*content["opened"], mask]})
    (answer,) = audit(root, LOCK, only=["masks"])
    assert [line.split(":")[0] for line in answer.problems] == [mask, mask]


def test_a_table_cell_that_the_scores_do_not_give_is_named_with_its_line(root, replace):
    path = root / "tables" / "sam_vit_table_05.md"
    line = next(line for line in path.read_text().splitlines() if "±" in line)
    replace(path, path.read_text().replace(line, line.replace("±", "+/-")).encode())
    answers = audit(root, LOCK, only=["tables"])
    assert [answer.verdict for answer in answers] == [FAILED]
    assert answers[0].problems[0].startswith("tables/sam_vit_table_05.md: line ")


def test_a_image_moved_across_the_splits_is_named(root, replace):
    path = Layout(root).split(SPLITS, "ham10000")
    rows = read_parquet(root / "catalog" / "edges.parquet").to_pylist()
    edge = next(row for row in rows if row["dataset_a"] == row["dataset_b"] == "ham10000" and row["reason"] == "lesion")
    lines = path.read_text().splitlines()
    moved = []
    for line in lines:
        image, group, split = line.split(",")
        if image == edge["image_id_a"]:
            line = f"{image},{group},{'val' if split != 'val' else 'test'}"
        moved.append(line)
    replace(path, "\n".join([*moved, ""]).encode())
    (answer,) = audit(root, LOCK, only=["splits"])
    assert any(edge["image_id_a"] in line and edge["image_id_b"] in line for line in answer.problems)


def test_a_test_mask_that_training_opened_is_named(root, replace):
    mask = closed_mask(root)
    path = first(root, "runs/segmentation/sam_adapter-*/provenance.json")
    content = read_json(path)
    assert mask not in content["opened"]
    replace(path)
    path.unlink()
    write_json(path, content | {"opened": [*content["opened"], mask]})
    assert "Were test masks left alone by everything but scoring?" in found(root, mask, "masks")


def test_another_epoch_than_validation_selects_is_named(root, replace):
    path = next(
        folder / "provenance.json"
        for folder in sorted((root / "runs" / "segmentation").iterdir())
        if "best_epoch" in read_json(folder / "provenance.json")["extra"]
    )
    content = read_json(path)
    content["extra"]["best_epoch"] += 1
    replace(path)
    path.unlink()
    write_json(path, content)
    assert "Was each checkpoint chosen on validation images?" in found(root, path.parent.name, "selection")


@pytest.mark.parametrize("lost", ["best_epoch", "history"])
def test_a_choice_that_left_no_trace_is_named(root, replace, lost):
    folder = first(root, "runs/segmentation/sam_adapter-*/provenance.json").parent
    if lost == "history":
        path = folder / "history.csv"
        replace(path, (path.read_text().splitlines()[0] + "\n").encode())
    else:
        path = folder / "provenance.json"
        content = read_json(path)
        del content["extra"]["best_epoch"]
        replace(path)
        path.unlink()
        write_json(path, content)
    assert found(root, folder.name, "selection") == {"Was each checkpoint chosen on validation images?"}


def test_versions_of_scoring_and_versions_that_are_not_told_are_named(root, replace):
    folder = first(root, "runs/segmentation/sam_adapter-*/provenance.json").parent
    content = read_json(folder / "provenance.json")
    del content["packages"]["pillow"]
    replace(folder / "provenance.json")
    (folder / "provenance.json").unlink()
    write_json(folder / "provenance.json", content)
    calls = root / "calls.jsonl"
    replace(calls, re.sub(r'"torch": ?"', '"torch":"1.', calls.read_text()).encode())
    (answer,) = audit(root, LOCK, only=["versions"])
    assert [line for line in answer.problems if line.startswith(f"{folder.name}: pillow of no recorded version")]
    assert [line for line in answer.problems if line.startswith("calls.jsonl, ") and ": torch 1." in line]


def test_another_package_version_than_the_lock_is_named(root, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.read_text().replace("\nnumpy==", "\nnumpy==0."))
    (answer,) = audit(root, lock, only=["versions"])
    assert answer.verdict == FAILED
    assert all("numpy" in line for line in answer.problems)


def test_without_a_manifest_nothing_is_vouched_for(tmp_path):
    with pytest.raises(RunError, match="no manifest"):
        audit(tmp_path, LOCK)


def test_the_command_ends_with_status_1_and_names_the_file(root, replace, tmp_path):
    from typer.testing import CliRunner

    from lesion_core.cli import app

    path = root / "tables" / "sam_vit_table_06.csv"
    replace(path, flipped(path))
    out = tmp_path / "answers.json"
    asked = ["--only", "files", "--only", "splits", "--only", "scores"]
    done = CliRunner().invoke(app, ["audit", "--root", str(root), *asked, "--json", str(out)])
    assert done.exit_code == 1
    assert "tables/sam_vit_table_06.csv" in done.output
    assert {answer["verdict"] for answer in read_json(out, list)} == {"ok", "FAILED", "not checked"}
