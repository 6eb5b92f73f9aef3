"""Settings are refused before any job, with the key's name and what is allowed."""

from __future__ import annotations

import pytest

from lesion_core.errors import SettingsError
from lesion_core.settings import load as config
from lesion_core.settings.matrix import batches, chain_lengths, expand
from lesion_core.settings.stored import READS, declared, dumped, store, stored, trigger

PROFILES = ("smoke", "mini", "paper")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_load_and_expand(profile):
    settings = config.load(profile)
    runs = config.expand(settings)
    assert settings.profile == profile
    assert all(key == run.run_id for key, run in runs.items())
    assert {run.task for run in runs.values()} - {"derived"} == {"segmentation", "classification", "joint"}
    for run in runs.values():
        for needed in (run.segmenter_run, run.classifier_run, *run.source_runs):
            assert needed is None or needed in runs


def test_an_ensemble_of_methods_averages_their_runs_of_each_seed():
    settings = config.load("paper", {"papers": ["sam_vit"]})
    runs = [run for run in config.expand(settings).values() if run.method == "cnn_ensemble"]
    assert [run.seed for run in runs] == settings.matrix.seeds
    for run in runs:
        found = [source.partition("-ham10000-")[::2] for source in run.source_runs]
        assert [name for name, _ in found] == settings.methods["cnn_ensemble"].of
        assert {rest.partition("-")[0] for _, rest in found} == {f"s{run.seed}"}
    assert config.plan(settings).trained_on["cnn_ensemble"] == {"classification": ["ham10000"]}


@pytest.mark.parametrize(
    ("overrides", "key", "said"),
    [
        ({"splits": {"trian": 0.7}}, "splits.trian", "unknown key"),
        ({"splits": {"train": "0.7"}}, "splits.train", "valid number"),
        ({"splits": {"train": 0.9}}, "splits", "add up to 1"),
        ({"nonsense": 1}, "nonsense", "unknown key"),
        ({"ledger": {"tolerance_points": float("inf")}}, "ledger.tolerance_points", "finite number"),
        ({"data": {"datasets": ["ham10000", "ham10000"]}}, "data.datasets", "ham10000 stands twice"),
        ({"splits": {"train": 0.8, "val": 0.0}}, "splits.val", "greater than 0"),
        ({"compute": {"device": "tpu"}}, "compute.device", "'auto', 'cpu' or 'cuda'"),
        ({"methods": {"unet": {"model": {"adapter": "lora"}}}}, "methods.unet.model", "kind unet does not use adapter"),
        ({"methods": {"unet": {"model": {"prompt": "oracle_box"}}}}, "methods.unet.model", "does not use prompt"),
        ({"methods": {"sam_frozen": {"model": {"rank": 8}}}}, "methods.sam_frozen", "adapter none does not use rank"),
        ({"methods": {"sam_adapter_lora": {"model": {"depth": 4}}}}, "methods.sam_adapter_lora", "not use depth"),
        ({"methods": {"gl_med_sa_1": {"model": {"gated": True}}}}, "methods.gl_med_sa_1", "not use gated"),
        ({"methods": {"sam_adapter": {"model": {"lora_targets": "qkvo"}}}}, "methods.sam_adapter", "lora_targets"),
        ({"methods": {"sam_adapter": {"model": {"encoder": "resnet34"}}}}, "methods.sam_adapter", "not use encoder"),
        ({"methods": {"sam_adapter": {"model": {"prompt": "automatic"}}}}, "methods.sam_adapter.model.prompt", "Input"),
        ({"methods": {"unet": {"model": {"encoder": None}}}}, "methods.unet.model", "encoder_weights needs an encoder"),
        ({"methods": {"unet": {"model": {"image_size": 48}}}}, "methods.unet.model", "multiple of 32"),
        ({"methods": {"sam_frozen": {"model": {"image_size": 100}}}}, "methods.sam_frozen.model", "multiple of 16"),
        ({"methods": {"segmae": {"model": {"encoder": "resnet34"}}}}, "methods.segmae.model", "vit_b_16"),
        ({"methods": {"segmae": {"reconstruction": None}}}, "methods.segmae", "reconstruction must be set"),
        ({"methods": {"segmae": {"model": {"mae_decoder": False}}}}, "methods.segmae", "reconstruction must be set"),
        ({"methods": {"deeplabv3_plus": {"training": {"batch_size": 1}}}}, "methods.deeplabv3_plus", "at least 2"),
        ({"methods": {"unet": {"model": {"stem": False}}}}, "methods.unet.model", "does not use stem"),
        ({"methods": {"cnn_ensemble": {"how": "tta"}}}, "methods.cnn_ensemble", "one method for tta"),
        ({"methods": {"cnn_ensemble": {"of": []}}}, "methods.cnn_ensemble.of", "at least 1"),
        ({"methods": {"cnn_ensemble": {"of": ["vgg"]}}}, "methods.cnn_ensemble.of", "'vgg' is not a classification"),
        ({"matrix": {"seeds_for": {"resnet50_alone": [0]}}}, "seeds_for.cnn_ensemble", "is not run with all of these"),
        ({"methods": {"unet": {"loss": {"patch_temperature": 1.0}}}}, "methods.unet.loss", "does not use patch_temp"),
        ({"methods": {"peft_medsam": {"augmentation": [{"transform": "D4"}]}}}, "methods.peft_medsam", "must be []"),
        (
            {"methods": {"sam_adapter": {"model": {"embedding_cache": "fp16"}}}},
            "methods.sam_adapter",
            "embedding_cache",
        ),
        ({"harmonization": {"colour_for": {"isic2042": "grey_world"}}}, "harmonization.colour_for", "Input should be"),
        ({"methods": {"otsu": {"model": {"backbone": "sam_vit_b"}}}}, "methods.otsu.model", "backbone"),
        ({"methods": {"vit_none": {"model": {"input": "full"}}}}, "methods.vit_none", "masks must be null"),
        ({"methods": {"vit_concat": {"masks": None}}}, "methods.vit_concat", "need masks"),
        ({"methods": {"vit_concat": {"masks": "majority"}}}, "methods.vit_concat.masks", "not a segmentation method"),
        (
            {"methods": {"vit_concat": {"masks": "med_sa_1"}}},
            "methods.vit_concat.masks",
            "'med_sa_1' learnt with oracle_c",
        ),
        (
            {"methods": {"joint_proposed": {"segmenter": "med_sa_3"}}},
            "methods.joint_proposed.segmenter",
            "gives no prompts",
        ),
        (
            {"methods": {"joint_proposed": {"segmenter": "peft_medsam"}}},
            "methods.joint_proposed.segmenter",
            "gives no prompts",
        ),
        (
            {"methods": {"joint_tschandl": {"train_on": ["isic2018_task3"]}}},
            "methods.joint_tschandl.train_on",
            "no true masks for segmentation_from",
        ),
        (
            {"methods": {"joint_proposed": {"train_on": ["ph2"]}}},
            "methods.joint_proposed.train_on",
            "cannot train a joint",
        ),
        ({"explain": {"methods": ["vit_cross_attention_tta"]}}, "explain.methods", "an average has several"),
        ({"matrix": {"methods": ["vit_concat", "sam_adaptor"]}}, "matrix.methods", "'sam_adaptor' is none of methods"),
        ({"matrix": {"ablations": ["vit_gatedd"]}}, "matrix.ablations", "'vit_gatedd' is none of methods"),
        ({"matrix": {"ablations": ["unet"]}}, "matrix.ablations", "'unet' stands in matrix.methods too"),
        ({"matrix": {"seeds_for": {"unett": [0]}}}, "matrix.seeds_for.unett", "is none of methods"),
        ({"matrix": {"seeds_for": {"unet": [7]}}}, "matrix.seeds_for.unet", "must be among matrix.seeds"),
        ({"matrix": {"seeds_for": {"unet": [1, 1]}}}, "matrix.seeds_for.unet", "stands twice"),
        ({"methods": {"unet": {"train_on": ["isic2016"]}}}, "methods.unet.train_on", "not in data.datasets"),
        ({"methods": {"unet": {"train_on": ["isic2018_task3"]}}}, "methods.unet.train_on", "cannot train"),
        ({"scoring": {"prompts": ["automatic"]}}, "scoring", "must contain none"),
        (
            {"data": {"datasets": ["custom", "ham10000", "isic2018_task1", "isic2018_task3", "ph2"]}},
            "data.custom",
            "set",
        ),
        ({"subgroups": {"methods": ["unet"]}}, "subgroups.methods", "no method that classifies"),
        ({"subgroups": {"age_bands": [60.0, 30.0]}}, "subgroups", "must ascend"),
        ({"robustness": {"methods": ["vit_nine"]}}, "robustness.methods", "'vit_nine' is no classifier"),
        (
            {"robustness": {"methods": ["vit_cross_attention_true_masks"]}},
            "robustness.methods",
            "no classifier with masks of its own",
        ),
        ({"robustness": {"corruptions": {"blur": [3.0, 1.0]}}}, "robustness", "amounts of blur must grow"),
        ({"robustness": {"corruptions": {"fog": [3.0]}}}, "robustness.corruptions", "Input should be"),
        (
            {"methods": {"densenet201_alone": {"mask_order": "shuffled"}}},
            "methods.densenet201_alone",
            "needs masks that are used",
        ),
        ({"methods": {"vit_concat": {"model": {"metadata": "binned"}}}}, "methods.vit_concat", "belongs to kind dual"),
        ({"methods": {"dual_network": {"loss": {"mixup_alpha": 0.4}}}}, "methods.dual_network", "cannot mix metadata"),
        ({"methods": {"vit_patch_8": {"model": {"patch_size": 7}}}}, "methods.vit_patch_8", "comes with patch_size"),
        ({"methods": {"new": {"extends": "nowhere"}}}, "methods.new.extends", "does not exist"),
        ({"methods": {"a": {"extends": "b"}, "b": {"extends": "a"}}}, "extends", "circle"),
        ({"methods": {"x;touch F;": {"extends": "otsu"}}}, "methods.x;touch F;", "a name takes letters"),
        ({"methods": {"../../../../evil": {"extends": "otsu"}}}, "methods.../", "a name takes letters"),
        ({"methods": {"-rf": {"extends": "otsu"}}}, "methods.-rf", "starts with a letter"),
        ({"methods": {"x\n": {"extends": "otsu"}}}, "methods.x", "a name takes letters"),
        ({"methods": {"x" * 65: {"extends": "otsu"}}}, "methods.x", "at most 64"),
        ({"bases": {"$(id)": {}}}, "bases.$(id)", "a name takes letters"),
        ({"data": {"datasets": ["ham10000", "a b"]}}, "data.datasets.1", "Input should be"),
        ({"methods": ["a"]}, "methods", "valid dictionary"),
        ({"methods": {"a": {"extends": ["otsu", 5]}}}, "a.extends", "valid string"),
        ({"methods": {"a": {"task": "derived", "of": 5}}}, "methods.a.of", "valid list"),
        ({"methods": {"a": {"task": "derived", "of": [["b"]]}}}, "methods.a.of.0", "valid string"),
        ({"harmonization": ["a"]}, "harmonization", "valid dictionary"),
        ({"papers": {}}, "papers", "no such file"),
        ({"matrix": 5}, "matrix", "valid dictionary"),
        ({"matrix": {"methods": 5}}, "matrix.methods", "valid list"),
        ({"explain": 5}, "explain", "valid dictionary"),
        ({"data": {"datasets": ["ham10000", "ham10000"]}}, "data.datasets", "stands twice"),
        ({"splits": {"train": 0.8, "val": 0.0, "test": 0.2}}, "splits.val", "greater than 0"),
        ({"splits": {"train": float("inf")}}, "splits.train", "finite"),
        ({"bases": ["a"]}, "bases", "valid dictionary"),
        ({"methods": {"a": {"extends": ["otsu", "nowhere"]}}}, "a.extends", "does not exist"),
        ({"bases": {"sam": {"harmonization": {}}}}, "sam says harmonization", "which protocols say"),
    ],
)
def test_bad_settings_name_the_key(overrides, key, said):
    with pytest.raises(SettingsError) as caught:
        config.load("paper", overrides)
    assert key in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"profile: smoke\nsplits: {seed: 1}\nsplits: {seed: 2}\n", "'splits' stands twice"),
        (b"profile: smoke\nsplits: {seed: 1, seed: 2}\n", "'seed' stands twice"),
        (b"profile: \xff\n", "not UTF-8"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"? [a]\n: b", "a key must be a word"),
        (b"a: b: c", "Not valid YAML"),
        (b"- a", "must hold a mapping"),
        (b"methods: [a]\n", "methods: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_settings_is_told(content, said, tmp_path):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        config.load(checkout=tmp_path)
    assert str(tmp_path / "params.yaml") in str(caught.value)


def test_a_segmenter_that_learnt_with_boxes_may_make_masks():
    """It is given the automatic box, as in scoring."""
    settings = config.load("paper", {"methods": {"vit_concat": {"masks": "peft_medsam"}}})
    runs = config.expand(settings)
    assert {runs[run.segmenter_run].method for run in runs.values() if run.method == "vit_concat"} == {"peft_medsam"}


def test_unknown_profile_lists_the_known():
    with pytest.raises(SettingsError, match="mini, paper, rehearsal, smoke"):
        config.load("papre")


def test_same_settings_share_a_run():
    alias = {"methods": {"sam_adapter_depth_2": {"extends": "sam_adapter"}}}
    base = config.load("paper")
    methods = [*base.matrix.methods, "sam_adapter_depth_2"]
    settings = config.load("paper", {**alias, "matrix": {"methods": methods}})
    assert list(config.expand(settings)) == list(config.expand(base))
    plan = config.plan(settings)
    assert plan.runs["sam_adapter_depth_2"] == plan.runs["sam_adapter"]


def test_an_ablation_lies_apart_and_only_where_nothing_is_built_on_it():
    matrix = {"seeds": [0], "methods": ["unet"], "ablations": ["sam_adapter_lora", "vit_gated"]}
    settings = config.load("paper", {"matrix": matrix})
    places = {run.method: run.place for run in config.expand(settings).values()}
    assert places == {
        "unet": "segmentation",
        "sam_adapter": "segmentation",  # what vit_gated needs, though no list names it
        "sam_adapter_lora": "ablations",
        "vit_gated": "ablations",
    }
    assert [run.split("-")[0] for run in config.plan(settings).ablations] == ["sam_adapter_lora", "vit_gated"]
    built_on = config.load("paper", {"matrix": {**matrix, "ablations": ["sam_adapter", "vit_gated"]}})
    places = {run.method: run.place for run in config.expand(built_on).values()}
    assert (places["sam_adapter"], places["vit_gated"]) == ("segmentation", "ablations")


def test_a_run_that_a_method_and_an_ablation_share_is_the_methods():
    alias = {"methods": {"sam_adapter_depth_2": {"extends": "sam_adapter"}}}
    for methods, ablations in ((["sam_adapter"], ["sam_adapter_depth_2"]), (["sam_adapter_depth_2"], ["sam_adapter"])):
        matrix = {"seeds": [0], "methods": methods, "ablations": ablations}
        [run] = config.expand(config.load("paper", {**alias, "matrix": matrix})).values()
        assert run.place == "segmentation"
        assert run.model_copy(update={"ablation": True}).run_id == run.run_id


def test_a_method_may_take_fewer_seeds():
    settings = config.load("paper", {"matrix": {"seeds_for": {"sam_adapter": [1], "joint_proposed": [2]}}})
    plan, runs = config.plan(settings), config.expand(settings)
    assert [runs[key].seed for key in plan.runs["sam_adapter"]] == [1]
    assert [runs[key].seed for key in plan.runs["unet"]] == [0, 1, 2]
    # what needs the method at a seed that it does not have takes its first
    [joint] = plan.runs["joint_proposed"]
    assert runs[joint].seed == 2
    assert runs[runs[joint].segmenter_run].seed == 1
    assert runs[runs[joint].classifier_run].seed == 2


def test_joint_training_learns_masks_of_the_segmenters_images():
    told = config.plan(config.load("paper")).trained_on
    others, labelled = ["isic2018_task1", "ph2"], ["ham10000"]
    for name in ("joint_proposed", "joint_self_distilled"):
        assert told[name] == {"segmentation": others, "classification": labelled}
    assert told["joint_tschandl"] == {"segmentation": sorted(others + labelled), "classification": labelled}


def test_id_depends_on_content_alone():
    run = next(iter(config.expand(config.load("smoke")).values()))
    again = run.model_validate(run.model_dump())
    assert again.run_id == run.run_id
    assert run.model_copy(update={"seed": 99}).run_id.rsplit("-", 1)[1] != run.run_id.rsplit("-", 1)[1]
    assert run.model_copy(update={"method": "other"}).run_id.rsplit("-", 1)[1] == run.run_id.rsplit("-", 1)[1]


def test_an_ablation_touches_its_own_runs_only():
    before = set(config.expand(config.load("paper")))
    after = set(config.expand(config.load("paper", {"methods": {"sam_adapter_lora": {"model": {"rank": 8}}}})))
    gone = {run.split("-")[0] for run in before - after}
    assert gone == {"sam_adapter_lora"}
    assert len(before - after) == 3


def test_run_ids_do_not_depend_on_what_else_is_in_the_matrix():
    matrix = {"seeds_for": {}, "methods": ["unet", "vit_none"], "ablations": []}
    whole, part = config.load("smoke"), config.load("smoke", {"matrix": matrix})
    hashes = [{run.rsplit("-", 1)[1] for run in config.expand(each)} for each in (part, whole)]
    assert hashes[0] <= hashes[1]
    assert part.harmonization == whole.harmonization  # all that the reference histogram is made with


def test_changing_the_segmenter_changes_what_rests_on_it():
    settings = config.load("smoke")
    resting = {
        name
        for name in (*settings.matrix.methods, *settings.matrix.ablations)
        if "sam_adapter" in (getattr(settings.methods[name], key, None) for key in ("masks", "segmenter"))
    }
    resting |= {name for name in settings.matrix.methods if resting & set(getattr(settings.methods[name], "of", []))}
    before = set(config.expand(settings))
    after = set(config.expand(config.load("smoke", {"methods": {"sam_adapter": {"model": {"rank": 8}}}})))
    gone = {run.split("-")[0] for run in before - after}
    assert {"vit_cross_attention", "joint_proposed"} <= resting
    assert gone == {"sam_adapter", *resting}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_results_folder_keeps_its_settings(profile, tmp_path):
    settings = config.load(profile)
    store(settings, tmp_path)
    assert stored(tmp_path) == settings
    (tmp_path / "settings.json").write_text('{"profile": "smoke"}')
    with pytest.raises(SettingsError, match="cannot be read"):
        stored(tmp_path)


def test_a_command_sees_what_it_declares_and_nothing_else():
    settings = config.load("smoke")
    given = declared(settings, "download")
    assert given.synthetic == settings.synthetic
    assert given.data.retries == settings.data.retries
    for read in (lambda: given.splits, lambda: given.data.custom):
        with pytest.raises(SettingsError, match="does not declare"):
            read()


def test_what_a_command_declares_is_what_runs_its_rule_anew():
    def changed(section, key, *values):
        before, after = (dumped(config.load("smoke", {section: {key: value}})) for value in values)
        return {command for command in READS if trigger(before, command) != trigger(after, command)}

    runs = {"plan"}.intersection
    assert changed("splits", "seed", 1, 2) == {command for command, names in READS.items() if runs(names)}
    assert changed("explain", "images", 1, 2) == {"explain"}
    assert changed("data", "retries", 1, 2) == set(), "what is fetched is the same"


def test_who_is_waited_for_comes_first_and_by_itself():
    runs = expand(config.load("smoke"))
    lengths = chain_lengths(runs.values())
    by_method = {run.method: lengths[key] for key, run in runs.items() if run.seed == 0}
    assert by_method["sam_adapter"] == 2, "a classifier reads its masks, and joint training starts from that"
    assert (by_method["vit_cross_attention"], by_method["joint_proposed"], by_method["unet"]) == (1, 0, 0)
    assert batches({"a": 1, "b": 2, "c": 1, "d": 1}, 2) == [["a", "c"], ["d"], ["b"]]


def test_isic_2019_joins_by_the_command_line():
    overrides = {
        "data": {"datasets": ["isic2017", "isic2018_task1", "ham10000", "isic2019", "ph2"]},
        "scoring": {"segmentation_on": ["ph2"], "classification_on": ["ham10000", "isic2019"]},
        "matrix": {"methods": ["dual_network_isic2019"], "ablations": []},
    }
    runs = config.expand(config.load("paper", overrides)).values()
    assert {run.spec.train_on[0] for run in runs if run.task == "classification"} == {"isic2019"}
