"""The profile rehearsal: one run of each kind stands for all of it, at its size."""

from __future__ import annotations

import pytest

from lesion_core.settings import load as config
from lesion_core.settings.kinds import rehearsed_as


@pytest.fixture(scope="module")
def settings():
    return config.load("rehearsal")


@pytest.fixture(scope="module")
def runs(settings):
    return config.expand(settings)


def test_every_method_of_the_paper_profile_is_shown_by_one_run_of_its_kind(settings, runs):
    paper, plan = config.load("paper"), config.plan(settings)
    assert plan.rehearsed
    assert not config.plan(paper).rehearsed
    assert {*plan.runs} == {*config.plan(paper).runs}
    kinds = [rehearsed_as(run, runs) for run in runs.values()]
    assert len(kinds) == len({*kinds})
    wanted = config.expand(paper)
    assert {*kinds} == {rehearsed_as(run, wanted) for run in wanted.values()}


def test_kinds_by_hand(settings):
    plan = config.plan(settings)
    # heads of one network, its seeds and its paper's own split are one kind; a prompt, a depth, a batch are another
    assert plan.runs["dual_network_heads_1"] == plan.runs["dual_network"] == plan.as_published["dual_network"]
    assert plan.runs["vit_input_full"] == plan.runs["vit_cross_attention"]
    apart = ("med_sa_1", "med_sa_3", "sam_adapter", "sam_adapter_depth_1", "sam_adapter_random", "sam_frozen", "unet")
    apart += ("segmae_unet_isic2017", "peft_medsam_unet", "deep_unet", "deep_unet_no_gates")
    assert len({plan.runs[name][0] for name in apart}) == len(apart)


def test_networks_sizes_and_samples_of_a_step_are_the_papers(settings):
    real = config.load("paper").methods
    for name, short in settings.methods.items():
        own = real[name]
        assert getattr(short, "model", None) == getattr(own, "model", None)
        if getattr(own, "training", None) is not None and own.training.epochs:
            taken = short.training.batch_size * short.training.accumulation
            assert taken == own.training.batch_size * own.training.accumulation
            assert short.training.rehearsed_steps in (1, 5)
    assert settings.methods["med_sa_1"].training.batch_size == 1


def test_ids_of_other_profiles_do_not_know_of_it():
    run = next(run for run in config.expand(config.load("smoke")).values() if run.method == "unet")
    assert run.spec.training.rehearsed_steps is None
    longer = run.spec.model_copy(update={"training": run.spec.training.model_copy(update={"rehearsed_steps": 5})})
    assert run.model_copy(update={"spec": longer}).run_id != run.run_id
