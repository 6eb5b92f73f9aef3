"""Protocols: pixels and splits by content, and runs whose ids hold all that these depend on and nothing else."""

from __future__ import annotations

from lesion_core.settings import Settings
from lesion_core.settings.load import load
from lesion_core.settings.matrix import expand, plan
from lesion_core.settings.run import Run


def run_of(settings: Settings, method: str) -> Run:
    return next(run for run in expand(settings).values() if run.method == method)


def test_each_paper_has_its_own_pixels():
    settings = load("paper")
    made = {name: protocol.harmonization for name, protocol in settings.protocols.items()}
    assert {name for name, way in made.items() if way.histogram == "specification"} == {"sam_vit_protocol"}
    assert {name for name, way in made.items() if way.colour_for} == {"segmae_protocol"}
    for name in ("sam_zero_shot", "medsam_zero_shot", "sam_h_frozen"):
        assert run_of(settings, name).harmonization.histogram == "none"
    unet = settings.methods["segmae_unet"]
    assert (unet.train_on, unet.model.image_size, unet.training.optimizer) == (["isic2018_task1"], 224, "sgd")


def test_the_same_content_lies_in_one_folder():
    homes = load("paper").homes
    assert homes.pixels("peft_medsam_protocol", "leak_free") == "shared/leak_free"
    assert homes.pixels("dual_network_protocol", "as_published") == "shared/as_published"
    assert homes.pixels("peft_medsam_protocol", "as_published") == "peft_medsam_protocol/as_published"
    # one leak-free table for all; paper A's own split is that one
    splits = {homes.splits(homes.pixels(name, "leak_free")) for name in load("paper").protocols}
    assert splits == {"shared/leak_free"}
    assert homes.pixels("sam_vit_protocol", "as_published") == "sam_vit_protocol/leak_free"


def test_a_runs_id_holds_what_its_pixels_depend_on_and_nothing_else():
    matrix = {"methods": ["unet", "segmae_unet"], "ablations": []}
    before = load("paper", {"matrix": matrix})
    kept = {method: run_of(before, method) for method in matrix["methods"]}

    def changed(overrides: dict) -> set[str]:
        settings = load("paper", {"matrix": matrix} | overrides)
        return {method for method, run in kept.items() if run_of(settings, method).run_id != run.run_id}

    assert (
        changed({"matrix": {"methods": [*matrix["methods"], "segmae_unet_isic2017", "deep_unet"], "ablations": []}})
        == set()
    )
    assert changed({"scoring": {"segmentation_on": ["ph2"]}}) == set()
    assert changed({"methods": {"deep_unet": {"train_on": ["ph2"]}}}) == set()
    assert changed({"protocols": {"segmae_protocol": {"as_published": {"ph2": [100, 50, 50]}}}}) == set()
    assert changed({"protocols": {"segmae_protocol": {"harmonization": {"hair_removal": True}}}}) == {"segmae_unet"}
    assert changed({"splits": {"seed": 1}}) == {"unet", "segmae_unet"}
    # the leak-free table is made of all datasets: one more may join groups
    assert changed({"data": {"datasets": [*before.data.datasets, "isic2016"]}}) == {"unet", "segmae_unet"}


def test_the_rules_of_one_protocol_are_two_runs_where_they_differ():
    rules = {"methods": {"unet": {"rule": "as_published"}, "segmae_unet": {"rule": "as_published"}}}
    free, published = load("paper"), load("paper", rules)
    assert run_of(free, "unet").run_id == run_of(published, "unet").run_id
    other = run_of(published, "segmae_unet")
    assert run_of(free, "segmae_unet").run_id != other.run_id
    assert other.pixels == other.split_tables == "segmae_protocol/as_published"
    # each dataset is split by itself: another one changes nothing
    more = load("paper", rules | {"data": {"datasets": [*free.data.datasets, "isic2016"]}})
    assert run_of(more, "segmae_unet").run_id == other.run_id


def test_methods_with_a_printed_number_run_under_both_rules():
    plan_ = plan(load("paper"))
    assert {
        "segmae",
        "segmae_isic2017",
        "segmae_ph2",
        "dual_network",
        "deep_unet",
        "peft_medsam",
        "gl_med_sa_1",
    } <= set(plan_.as_published)
    # paper A splits by patient, and ablations run under one rule
    assert not {"sam_adapter", "joint_proposed", "segmae_step_1"} & set(plan_.as_published)
    runs = expand(load("paper"))
    classifier = runs[plan_.as_published["dual_network"][0]]
    assert runs[classifier.segmenter_run].rule == classifier.rule == "as_published"
    assert set(plan(load("smoke")).as_published) == {"segmae", "dual_network", "deep_unet"}
    assert plan(load("mini")).as_published == {}
