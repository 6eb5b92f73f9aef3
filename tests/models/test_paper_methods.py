"""The paper profile's ablation steps and click variants, made small, through the real training entry; their rows."""

from __future__ import annotations

import math

import pytest
import torch
from material import MATERIAL
from segmentation_runs import SIZE, folder, restore_torch, root, tensors  # noqa: F401

from lesion_core.files import read_csv
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam.prompts import click_session
from lesion_core.paths import Layout
from lesion_core.settings import load as config
from lesion_core.settings.as_published import SUFFIX
from lesion_core.settings.run import Run
from lesion_core.training import segmae, segmentation_task
from lesion_core.training.losses import weighted_patches
from lesion_core.training.segmentation import train_run

STEPS = [*(f"segmae_step_{number}" for number in range(1, 7)), "segmae"]
CLICKS = {"med_sa_1": 1, "gmed_sa_3": 3, "gl_med_sa_1": 1, "gl_med_sa_3": 3}
# Competitors that are trained from scratch, at a fraction of their width.
WIDTHS = {"attention_unet": 2, "res_unet": 2, "unetr": 4, "swin_unetr": 12}
# What each step of paper D's Table 4 has: MAE decoder, stage 1, patch-wise loss L1, weighted reconstruction L2.
PARTS = {
    "segmae_step_1": set(),
    "segmae_step_2": {"mae"},
    "segmae_step_3": {"mae", "stage 1"},
    "segmae_step_4": {"mae", "L1"},
    "segmae_step_5": {"mae", "L2"},
    "segmae_step_6": {"mae", "L1", "L2"},
    "segmae": {"mae", "stage 1", "L1", "L2"},
}


@pytest.fixture(scope="module")
def paper() -> config.Settings:
    return config.load("paper")


@pytest.fixture(scope="module")
def matrix(paper) -> dict[str, Run]:
    """The first run of each method."""
    runs: dict[str, Run] = {}
    for run in config.expand(paper).values():
        runs.setdefault(run.method, run)
    return runs


def small(run: Run) -> Run:
    """The run with a scaled-down version of its model, for an epoch; what makes the method stays."""
    settings = run.model_dump(mode="json")
    spec = settings["spec"]
    spec["model"]["image_size"] = SIZE
    if spec["model"]["kind"] in ("segmae", "trans_unet"):
        spec["model"] |= {"encoder": None, "encoder_weights": None}
    elif spec["model"]["kind"] in WIDTHS:
        spec["model"]["width"] = WIDTHS[spec["model"]["kind"]]
    else:
        spec["model"] |= {"backbone": "sam_vit_t", "rank": 4}
    spec["training"] |= {"epochs": 1, "batch_size": 4}
    if spec["reconstruction"]:
        spec["reconstruction"]["epochs"] = min(1, spec["reconstruction"]["epochs"])
    return Run.model_validate({**settings, **MATERIAL, "threads": 1})


def trained(run: Run, results) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, str]]:
    """Learnt tensors before and after, and the history's row."""
    train_run(run, folder(results, run), results, "cpu")
    weights = Layout(results).weights("sam_vit_t") if run.spec.model.kind == "sam" else None
    start = build_segmenter(run.spec.model, weights, run.seed).trainable_state()
    (row,) = read_csv(folder(results, run) / "history.csv")
    assert all(math.isfinite(float(value)) for value in row.values())
    end = tensors(folder(results, run))
    end.pop("harmonization.reference", None)  # of protocols with a specification
    return start, end, row


def moved(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor]) -> set[str]:
    assert start.keys() == end.keys()
    return {name for name in start if not torch.equal(start[name], end[name])}


@pytest.mark.parametrize("method", STEPS)
def test_each_step_of_segmaes_ablation_trains(root, matrix, method, monkeypatch):  # noqa: F811
    run = small(matrix[method])
    temperatures = []

    def noted(errors, temperature):
        temperatures.append(temperature)
        return weighted_patches(errors, temperature)

    monkeypatch.setattr(segmae, "weighted_patches", noted)
    start, end, row = trained(run, root)
    changed = moved(start, end)
    found = set()
    if "train_reconstruction_loss" in row:
        found.add("mae")
        assert any(name.startswith("network.mae.") for name in changed)
    if (folder(root, run) / "stage_1" / "history.csv").is_file():
        found.add("stage 1")
    if "train_patch_loss" in row:
        found.add("L1")
    if set(temperatures) == {0.1}:
        found.add("L2")
    else:
        assert set(temperatures) <= {0.0}
    assert found == PARTS[method]
    assert {"network.encoder.embed.weight", "network.upsampler.head.weight"} <= changed


@pytest.mark.parametrize("method", CLICKS)
def test_each_adapter_of_paper_b_trains_with_its_clicks(root, matrix, method, monkeypatch):  # noqa: F811
    run = small(matrix[method])
    clicks = []

    def session(*arguments):
        prompts = click_session(*arguments)
        clicks.append(prompts.points.shape[1])
        return prompts

    monkeypatch.setattr(segmentation_task, "click_session", session)
    start, end, _ = trained(run, root)
    changed = moved(start, end)
    around, inside = method.startswith("g"), not method.startswith("gmed")
    assert any(name.startswith("highway.") for name in changed) == around
    assert any(".attn.proj.adapter." in name for name in changed) == inside
    assert any(".mlp.adapter." in name for name in changed) == inside
    assert all(name.startswith("highway.") or ".adapter." in name for name in changed), "a frozen tensor moved"
    assert set(clicks) == ({3} if CLICKS[method] == 3 else set()), "one click needs no session"
    assert run.spec.model.prompt == f"oracle_click_{CLICKS[method]}"


@pytest.mark.parametrize("method", [*WIDTHS, "trans_unet"])
def test_each_competitor_trains(root, matrix, method):  # noqa: F811
    run = small(matrix[method])
    start, end, _ = trained(run, root)
    still = {name for name in start if name not in moved(start, end)}
    # a bias in front of a norm, and a stage's last norm that nothing reads, feel no loss
    assert all(start[name].ndim < 2 or not start[name].is_floating_point() for name in still), still
    other = build_segmenter(run.spec.model, None, 1)
    other.load_trainable_state(end)
    assert moved(end, other.trainable_state()) == set()


def test_every_method_of_the_paper_profile_is_a_row(paper, matrix):
    tables = config.plan(paper).tables.values()
    rows = {name for table in tables for row in table.rows for name in (row.method, row.segmenter)}
    assert sorted({name.removesuffix(SUFFIX) for name in matrix} - rows) == []


def test_each_step_stands_beside_each_dataset_of_paper_d(paper):
    table = config.plan(paper).tables["segmae_table_04"]
    endings = {"isic2018_task1": "", "isic2017": "_isic2017", "ph2": "_ph2"}
    expected = [(f"{step}{ending}", dataset) for dataset, ending in endings.items() for step in STEPS]
    assert sorted((row.method, row.dataset) for row in table.rows) == sorted(expected)
