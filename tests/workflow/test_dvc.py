"""dvc.yaml fits the workflow: its stages are Snakemake's targets, and each makes the folders that it owns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import networkx
import pytest
import yaml
from chain import FIELD, JOB, REPOSITORY, SMOKE

ROOT = "results/smoke/"
MADE_BESIDE = ("benchmarks", "settings.json")  # by Snakemake and its call
CHAIN = "download catalog harmonize weights segmentation pseudo_masks classification joint ablations"
TARGETS = tuple(f"stage_{name}" for name in [*CHAIN.split(), "statistics", "report"])
NOT_SHARED = ("logs", "embeddings", "made", "calls.jsonl")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the graph library under DVC


@pytest.fixture(scope="module")
def repo():
    from dvc.repo import Repo

    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    with Repo(str(REPOSITORY)) as repo:
        yield repo


@pytest.fixture(scope="module")
def stages(repo):
    return {stage.name: stage for stage in repo.index.stages}


@pytest.fixture(scope="module")
def owner(stages):
    return {out.def_path.removeprefix(ROOT): name for name, stage in stages.items() for out in stage.outs}


@dataclass(frozen=True)
class Planned:
    """A job, done or not; paths relative to the results."""

    rule: str
    outputs: list[str]
    inputs: list[str]


@pytest.fixture(scope="module")
def jobs() -> list[Planned]:
    """All jobs of the smoke profile, and the targets of the stages."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--forceall", "--nocolor"]
    command += [*SMOKE, "--", "all", *TARGETS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = []
    for match in JOB.finditer(done.stdout + done.stderr):
        fields = dict(FIELD.findall(match["fields"]))
        paths = [fields.get(key, "").split(", ") for key in ("output", "input")]
        found.append(
            Planned(match["rule"], *([p.removeprefix(ROOT) for p in part if p.startswith(ROOT)] for part in paths))
        )
    return found


def folder_of(path, owner):
    return next((folder for folder in owner if path == folder or path.startswith(f"{folder}/")), None)


def test_dvc_takes_the_graph_and_each_stage_is_a_target(repo, stages, jobs):
    repo.index.check_graph()  # no circle, no output of two stages
    assert len(repo.index.stages) == len(stages)  # the links in lesion_core/project are no second dvc.yaml
    assert [stage.cmd.split()[-1] for stage in stages.values()] == list(TARGETS)
    assert set(TARGETS) <= {job.rule for job in jobs}
    assert repo.config["core"]["analytics"] is False


def test_a_stage_makes_all_that_lies_in_its_folders(stages, owner, jobs):
    """Else `dvc repro` would find the folders of an earlier stage changed by a later one."""
    maker = {path: job for job in jobs for path in job.outputs}
    belongs = {path: owner.get(folder_of(path, owner)) for path in maker}
    assert owner.keys() - {folder_of(path, owner) for path in maker} == set(MADE_BESIDE)
    assert {path.split("/")[0] for path, stage in belongs.items() if stage is None} <= set(NOT_SHARED)
    for name in stages:
        made: set[str] = set()
        waiting = [job for job in jobs if job.rule == f"stage_{name}"]
        while waiting:
            new = [path for path in waiting.pop().inputs if path not in made and path in maker]
            made.update(path for one in new for path in maker[one].outputs)
            waiting += [maker[path] for path in new]
        assert {path for path, stage in belongs.items() if stage == name} <= made, name


def test_what_snakemake_makes_first_dvc_makes_first(repo, owner, jobs):
    graph = networkx.transitive_closure(repo.index.graph)
    after = {(one.name, other.name) for one, other in graph.edges}
    edges = set()
    for job in jobs:
        made, read = ({owner.get(folder_of(path, owner)) for path in part} for part in (job.outputs, job.inputs))
        edges |= {(one, other, job.rule) for one in made for other in read - made if one and other}
    assert len(edges) > 20
    assert [edge for edge in sorted(edges) if edge[:2] not in after] == []


def test_every_section_of_the_settings_is_a_parameter_of_some_stage(stages):
    named = {key for stage in stages.values() for dep in stage.deps for key in getattr(dep, "params", ())}
    assert named == set(yaml.safe_load((REPOSITORY / "params.yaml").read_text())) - {"profile", "pretrain"}
