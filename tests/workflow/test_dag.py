"""The plan: complete without data, refused early when the settings are wrong."""

from __future__ import annotations

import re

import pytest
from chain import planned_jobs
from conftest import checkout, snakemake

from lesion_core.settings import load as config
from lesion_core.settings.pretrained import weights_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("dag") / "project")


def test_paper_profile_plans_every_run_without_data(folder):
    done = snakemake(folder, "--dry-run", "--quiet", "rules", "--resources", "gpu=1")
    assert done.returncode == 0, done.stderr
    counted = planned_jobs(done.stdout + done.stderr)
    runs = config.expand(config.load("paper")).values()
    assert counted["train_segmenter"] == sum(run.task == "segmentation" for run in runs)
    assert counted["train_classifier"] == sum(run.task == "classification" for run in runs)
    assert counted["train_joint"] == sum(run.task == "joint" for run in runs)
    assert counted["download"] == len(config.load("paper").data.datasets)
    models = [run.spec.model for run in runs if run.task in ("segmentation", "classification")]
    assert counted["weights"] == len({weights_name(model) for model in models} - {None})
    assert "synthetic" not in counted
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("splits={trian: 0.7}", "splits.trian: unknown key"),
        ("compute={threads: many}", "compute.threads"),
        ("matrix={methods: [unett]}", "'unett' is none of methods"),
        ("profile=papre", "mini, paper, rehearsal, smoke"),
    ],
)
def test_wrong_settings_are_refused_before_any_job(folder, override, said):
    arguments = ["--config", override] if override.startswith("profile") else ["--config", "profile=smoke", override]
    done = snakemake(folder, *arguments)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder / "results").exists()


def test_the_reference_does_not_depend_on_the_other_methods_of_the_matrix(folder):
    lines = []
    for matrix in ("{}", "{methods: [unet, vit_none], ablations: [], seeds_for: {}}"):
        target = "results/smoke/protocols/sam_vit_protocol/leak_free/reference.npy"
        done = snakemake(
            folder, target, "--dry-run", "--printshellcmds", "--config", "profile=smoke", f"matrix={matrix}"
        )
        lines += re.findall(r"lesion reference .*", done.stdout + done.stderr)
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_lint_has_no_advice_but_what_does_not_fit(folder):
    done = snakemake(folder, "--lint")
    found = set(re.findall(r"^    \* (.*)$", done.stdout + done.stderr, re.MULTILINE))
    assert found <= {
        "Specify a conda environment or container for each rule.:",  # one locked environment serves every rule
        "Mixed rules and functions in same snakefile.:",  # input functions stand beside the rule they belong to
    }
