"""The research object: read back by the rocrate package, passed by the profiles' own validator without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import rocrate
from rocrate_validator import services
from rocrate_validator.utils.http import HttpRequester

from lesion_core.audit.manifest import read_manifest
from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file
from lesion_core.record.calls import read_calls
from lesion_core.settings.load import load
from lesion_core.sharing.crate import PROFILES, SHOWING, write_crate

pytestmark = pytest.mark.smoke
RESULTS = Path("results") / "smoke"
METADATA = "ro-crate-metadata.json"
TERMS = "https://w3id.org/ro/terms/workflow-run"


@pytest.fixture(scope="module")
def written(smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("crate") / "crate"
    write_crate(smoke / RESULTS, out, agent="Ada Example")
    return out


@pytest.fixture(scope="module")
def entities(written):
    return {entity["@id"]: entity for entity in read_json(written / METADATA)["@graph"]}


def test_rocrate_reads_it_back_with_the_profiles_entities(written):
    from rocrate.rocrate import ROCrate

    crate = ROCrate(written)
    assert crate.version == "1.1"
    workflow = crate.mainEntity
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"} == set(workflow.type)
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    assert {item.id for item in crate.root_dataset["conformsTo"]} == {address for address, _ in PROFILES}
    actions = crate.get_by_type("CreateAction")
    assert {action.id for action in crate.root_dataset["mentions"]} == {action.id for action in actions}
    for action in actions:
        assert action["agent"]["name"] == "Ada Example"
        assert action["result"], action.id
        assert action["startTime"] <= action["endTime"]
    run = next(action for action in actions if action.id == "#run")
    assert run["instrument"].id == workflow.id
    assert any(item.id.endswith("scores/segmentation.parquet") for item in run["result"])
    assert {"#settings", "#profile"} <= {item.id for item in run["object"]}


def test_every_job_is_there_with_its_rule_times_files_and_use(written, entities, smoke):
    current = {*read_manifest(smoke / RESULTS).products, "manifest.json"}
    snapshot = read_json(smoke / RESULTS / "snapshot.json")
    rules = {entry["record"]["rule"] for name, entry in snapshot.items() if name in current}
    steps = {entity["name"]: entity for entity in entities.values() if entity["@type"] == "HowToStep"}
    assert rules <= steps.keys()
    made = {}
    for entity in entities.values():
        if entity["@type"] == "CreateAction" and entity["@id"] != "#run":
            assert entity["resourceUsage"], entity["name"]
            assert entity["description"].startswith("lesion ")
            results = entity["result"] if isinstance(entity["result"], list) else [entity["result"]]
            made |= {result["@id"]: entity for result in results}
    trained = [name for name in made if name.endswith("weights.safetensors") and "/runs/" in name]
    assert len(trained) == len(list((smoke / RESULTS).glob("runs/*/*/weights.safetensors")))
    for name in trained:
        assert json.dumps(made[name]).count("/pixels/") > 1  # its images, named and not copied
    assert {"commit", "dirty"} <= read_calls(smoke / RESULTS)[-1]["code"].keys()
    assert entities["results/calls.jsonl"]["about"] == {"@id": "#engine-run"}
    assert entities["https://snakemake.github.io"]["softwareVersion"] == version("snakemake")
    order = [steps[name]["position"] for name in ("catalog", "splits", "harmonize", "train_segmenter_1", "report")]
    assert order == sorted(set(order))


def test_every_file_is_there_with_its_hash_and_no_image(written, entities):
    hashed = [entity for entity in entities.values() if "sha256" in entity and entity["@type"] == "File"]
    assert len(hashed) > 50
    for entity in hashed:
        assert sha256_file(written / unquote(entity["@id"])) == entity["sha256"]
    names = [path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()]
    assert not any(name.startswith(("results/data/", "results/pseudo_masks/")) for name in names)
    assert not any(name.endswith((".jpg", ".npz", "test_masks.zip", "report.html")) for name in names)
    left_out = entities["#results/protocols/sam_vit_protocol/leak_free/pixels/ham10000/64/images.npy"]
    assert left_out["@type"] == "CreativeWork"
    assert len(left_out["sha256"]) == 64


def test_what_the_profiles_recommend_is_there_where_it_is_known(entities, smoke, tmp_path):
    files = [entity for entity in entities.values() if "File" in entity["@type"]]
    assert [entity["@id"] for entity in files if "encodingFormat" not in entity] == []
    assert entities["README.md"]["about"] == {"@id": "./"}
    assert entities["./"]["author"] == {"@id": "#agent"}
    assert entities["Snakefile"]["version"] == version("lesion-core")
    for entity in entities.values():
        if entity["@type"] in ("CreateAction", "OrganizeAction"):
            assert entity["description"]
            assert {entity["startTime"][-6:], entity["endTime"][-6:]} == {"+00:00"}
            assert not any(isinstance(value, list) and len(value) == 1 for value in entity.values()), entity["@id"]
    write_crate(smoke / RESULTS, tmp_path / "orcid", agent="0000-0002-1825-0097")
    graph = read_json(tmp_path / "orcid" / METADATA)["@graph"]
    assert [entity["@id"] for entity in graph if entity["@type"] == "Person"] == [
        "https://orcid.org/0000-0002-1825-0097"
    ]


@pytest.fixture
def problems(monkeypatch, tmp_path):
    """A function that validates a crate against the finest profile: the ids of required checks that fail.

    The contexts come from here: that of rocrate, with version 1.1's addresses of Bioschemas, and our one term.
    """
    crate_context = read_json(Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld")
    for name in ("ComputationalWorkflow", "FormalParameter"):
        crate_context["@context"][name] = f"https://bioschemas.org/{name}"
    for name in ("input", "output"):
        crate_context["@context"][name] = f"https://bioschemas.org/properties/{name}"
    documents = {
        "https://w3id.org/ro/crate/1.1/context": crate_context,
        f"{TERMS}/context": {"@context": {"resourceUsage": f"{TERMS}#resourceUsage"}},
    }

    kind = {"Content-Type": "application/ld+json"}

    def get(self, url, **_):
        return SimpleNamespace(status_code=200, ok=True, headers=kind, url=url, json=lambda: documents[url])

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)

    def validate(crate: Path) -> set[str]:
        asked = {"profile_identifier": "provenance-run-crate", "offline": True, "cache_path": tmp_path / "cache"}
        result = services.validate({"rocrate_uri": str(crate), "skip_availability_check": True, **asked})
        assert len(result.executed_checks) > 80
        return {issue.check.identifier for issue in result.get_issues()}

    return validate


def remove(graph, name, key):
    next(entity for entity in graph if entity["@id"] == name).pop(key)


FAULTS = {
    "ro-crate": lambda graph: remove(graph, "./", "license"),
    "workflow-ro-crate": lambda graph: remove(graph, "Snakefile", "programmingLanguage"),
    "process-run-crate": lambda graph: remove(graph, "#job-1", "instrument"),
    "provenance-run-crate": lambda graph: remove(graph, "Snakefile", "step"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib under the validator
def test_the_validator_finds_nothing_but_what_is_planted(written, tmp_path, problems):
    assert problems(written) == set()
    changed = tmp_path / "crate"
    shutil.copytree(written, changed)
    content = read_json(written / METADATA)
    for plant in FAULTS.values():
        plant(content["@graph"])
    (changed / METADATA).write_text(json.dumps(content))
    (changed / "params.yaml").unlink()
    found = problems(changed)
    assert {profile for profile in FAULTS if any(check.startswith(f"{profile}-") for check in found)} == set(FAULTS)


def test_every_figure_with_images_is_known_to_show_them():
    from lesion_core.report.figures import FIGURES

    papers = {name for paper in load("paper").papers.values() for name in paper.figures}
    shown = {name for name in {*FIGURES, *papers} if SHOWING.fullmatch(f"figures/{name}.png")}
    assert shown == papers | {"explanations"}


def test_what_shows_images_is_copied_on_demand(smoke, tmp_path):
    write_crate(smoke / RESULTS, tmp_path / "crate", images=True)
    names = {path.relative_to(tmp_path / "crate").as_posix() for path in (tmp_path / "crate").rglob("*")}
    assert "results/report.html" in names
    assert any(name.endswith("test_masks.zip") for name in names)
    assert not any("/pixels/" in name for name in names)


def test_a_folder_that_exists_is_left_alone(smoke, tmp_path):
    with pytest.raises(RunError, match="exists"):
        write_crate(smoke / RESULTS, tmp_path)


def command(smoke, out):
    words = [sys.executable, "-m", "lesion_core.cli", "crate", "--root", str(RESULTS), "--out", str(out)]
    return subprocess.run(words, cwd=smoke, capture_output=True, text=True, check=False, timeout=300)


def test_a_full_disk_is_told_nothing_is_left_and_space_is_all_it_takes(smoke, written, small_disk):
    whole = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    disk = small_disk(f"size={whole // 2048}k")
    done = command(smoke, disk / "crate")
    assert done.returncode == 2
    assert "StorageError: No space left on device" in done.stderr
    assert f"file: {disk / 'crate'}" in done.stderr
    assert "free space there and call again" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
    assert command(smoke, disk / "crate").returncode == 0
    assert [path.name for path in disk.iterdir()] == ["crate"]


def test_an_error_leaves_nothing(smoke, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "disk on fire")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk on fire"):
        write_crate(smoke / RESULTS, tmp_path / "crate")
    assert list(tmp_path.iterdir()) == []
