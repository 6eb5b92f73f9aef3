"""dvc.yaml says what Snakemake's graph says: targets, inputs, outputs, code and parameters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from lesion_core.errors import SettingsError
from lesion_core.settings import Plan, Settings
from lesion_core.settings.load import REPOSITORY
from lesion_core.settings.run import Run
from lesion_core.sharing import dvc

REMEDY = "run `lesion dvc-stages` and commit dvc.yaml"


@pytest.fixture(scope="module")
def graph():
    return dvc.rule_graph("smoke")


@pytest.fixture(scope="module")
def committed():
    return yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())


def folders(stage, key):
    names = [next(iter(item)) if isinstance(item, dict) else item for item in stage[key]]
    return {name.removeprefix("results/smoke/") for name in names if name.startswith("results/")}


def test_both_graphs_agree(committed, tmp_path):
    dvc.write_stages(tmp_path / "dvc.yaml", "smoke")
    assert yaml.safe_load((tmp_path / "dvc.yaml").read_text()) == committed, REMEDY


def test_there_is_a_stage_for_each_part_of_the_chain(committed):
    chain = "download catalog splits harmonize weights segmentation pseudo_masks classification joint ablations"
    assert list(committed["stages"]) == [*chain.split(), "statistics", "report"]


def test_ablations_are_leaves_that_statistics_and_the_report_read(committed):
    reading = [name for name, stage in committed["stages"].items() if "runs/ablations" in folders(stage, "deps")]
    assert reading == ["statistics", "report"]
    assert folders(committed["stages"]["ablations"], "outs") == {"runs/ablations"}


def test_every_rule_with_results_belongs_to_a_stage_and_every_target_exists(graph, committed):
    """Compared with the rule files themselves, not with the tool that made dvc.yaml."""
    listed = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules", "--config", "profile=smoke"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    targets = {name for name in listed if name.startswith("stage_")}
    assert targets == {stage["cmd"].split()[-1] for stage in committed["stages"].values()}
    assert set(listed) - targets - {"all", "pretrain"} == {job["rule"] for job in graph}


def test_each_edge_of_snakemake_is_an_edge_of_dvc(graph, committed):
    """A job's inputs are outputs of its own stage, or dependencies of it."""
    stages = committed["stages"]
    outs = {folder: name for name, stage in stages.items() for folder in folders(stage, "outs")}

    def folder_of(path):
        inside = path.removeprefix("results/smoke/")
        return next(folder for folder in outs if inside == folder or inside.startswith(f"{folder}/"))

    edges = 0
    for job in graph:
        stage = outs[folder_of(job["outputs"][0])]
        assert {outs[folder_of(path)] for path in job["outputs"]} == {stage}, job["rule"]
        for path in job["inputs"]:
            if path.startswith("results/"):
                edges += 1
                assert folder_of(path) in folders(stages[stage], "deps") | folders(stages[stage], "outs"), job["rule"]
    assert edges > 100


def test_code_and_parameters_are_declared(committed):
    stages = committed["stages"]
    assert "lesion_core/training/engine.py" in stages["segmentation"]["deps"]
    assert "lesion_core/training/engine.py" not in stages["splits"]["deps"]
    assert "splits.seed" in stages["splits"]["params"][0]["params.yaml"]
    assert "splits.seed" not in stages["catalog"]["params"][0]["params.yaml"]
    assert "ledger.tolerance_points" in stages["statistics"]["params"][0]["params.yaml"]
    assert "report.gallery_side" in stages["report"]["params"][0]["params.yaml"]
    for name, stage in stages.items():
        assert all((REPOSITORY / dep).is_file() for dep in stage["deps"] if not dep.startswith("results/")), name
        assert any(dep.endswith(".smk") for dep in stage["deps"]), name
        assert all(options["persist"] for out in stage["outs"] for options in out.values()), name


@pytest.mark.parametrize(("part", "model"), [("plan", Plan), ("run", Run)])
def test_every_section_that_a_plan_or_a_run_is_made_of_is_a_parameter(part, model):
    shared = (Settings.model_fields.keys() & model.model_fields.keys()) - {"profile"}
    assert shared
    assert shared <= set(dvc.MADE_OF[part])


def test_an_output_without_a_stage_is_refused():
    with pytest.raises(SettingsError, match="belongs to no stage"):
        dvc._folder("results/smoke/nowhere/x.csv", "smoke")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the graph library under DVC
def test_dvc_reads_the_file(committed):
    from dvc.repo import Repo

    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    with Repo(str(REPOSITORY)) as repo:
        repo.index.check_graph()  # no circle, no output of two stages
        names = {stage.name for stage in repo.index.stages}
        config = repo.config
    assert names == set(committed["stages"])
    assert config["core"]["analytics"] is False
