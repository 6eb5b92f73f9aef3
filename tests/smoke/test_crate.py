"""The research object: read back by the rocrate package, with all that the profiles demand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

import pytest

from lesion_core.audit.manifest import read_manifest
from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file
from lesion_core.record.calls import read_calls
from lesion_core.sharing import crate as module
from lesion_core.sharing.crate import PROFILES, SHOWING, write_crate
from lesion_core.sharing.crate_check import METADATA, broken_demands, references
from lesion_core.sharing.snapshot import NAME as SNAPSHOT

pytestmark = pytest.mark.smoke
RESULTS = Path("results") / "smoke"


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
    snapshot = read_json(smoke / RESULTS / SNAPSHOT)
    current = {*read_manifest(smoke / RESULTS).products, "manifest.json"}
    rules = {snapshot["notes"][entry["note"]]["rule"] for name, entry in snapshot["files"].items() if name in current}
    steps = {entity["name"]: entity for entity in entities.values() if entity["@type"] == "HowToStep"}
    assert rules <= steps.keys()
    made = {}
    for entity in entities.values():
        if entity["@type"] == "CreateAction" and entity["@id"] != "#run":
            assert entity["resourceUsage"], entity["name"]
            assert entity["description"].startswith("lesion ")
            made |= dict.fromkeys(references(entity, "result"), entity)
    trained = [name for name in made if name.endswith("weights.safetensors") and "/runs/" in name]
    assert len(trained) == len(list((smoke / RESULTS).glob("runs/*/*/weights.safetensors")))
    for name in trained:
        assert json.dumps(made[name]).count("harmonized") > 1  # its photographs, named and not copied
    assert {"commit", "dirty"} <= read_calls(smoke / RESULTS)[-1]["code"].keys()
    assert entities["results/calls.jsonl"]["about"] == {"@id": "#engine-run"}
    assert entities["https://snakemake.github.io"]["softwareVersion"] == version("snakemake")
    order = [steps[name]["position"] for name in ("catalog", "splits", "harmonize", "train_segmenter", "report")]
    assert order == sorted(set(order))


def test_every_file_is_there_with_its_hash_and_no_photograph(written, entities):
    hashed = [entity for entity in entities.values() if "sha256" in entity and entity["@type"] == "File"]
    assert len(hashed) > 50
    for entity in hashed:
        assert sha256_file(written / unquote(entity["@id"])) == entity["sha256"]
    names = [path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()]
    assert not any(name.startswith(("results/data/", "results/harmonized/", "results/pseudo_masks/")) for name in names)
    assert not any(name.endswith((".jpg", ".npz", "test_masks.zip", "report.html")) for name in names)
    left_out = entities["#results/harmonized/ham10000/64/images.npy"]
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


def drop(graph, name, key):
    next(entity for entity in graph if entity["@id"] == name).pop(key)


FAULTS = {
    "lacks license": lambda graph: drop(graph, "./", "license"),
    "does not say that it conforms": lambda graph: drop(graph, "./", "conformsTo"),
    "has no mainEntity": lambda graph: drop(graph, "./", "mainEntity"),
    "Snakefile: lacks hasPart": lambda graph: drop(graph, "Snakefile", "hasPart"),
    "the workflow must name it under step": lambda graph: drop(graph, "Snakefile", "step"),
    "instrument must be a tool": lambda graph: drop(graph, "#job-1", "instrument"),
    "no CreateAction has the workflow": lambda graph: drop(graph, "#run", "instrument"),
    "no ControlAction steers it": lambda graph: drop(graph, "#job-1-step", "object"),
    "instrument must be a HowToStep": lambda graph: drop(graph, "#job-1-step", "instrument"),
    "result must be the workflow's run": lambda graph: drop(graph, "#engine-run", "result"),
    "lacks additionalType": lambda graph: drop(graph, "#parameter-profile", "additionalType"),
    "a propertyID": lambda graph: drop(graph, "#job-1-s", "propertyID"),
    "which is not described": lambda graph: graph.remove(next(item for item in graph if item["@id"] == "#settings")),
    "an @id stands twice": lambda graph: graph.append(graph[-1]),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_broken_demand_is_named(written, tmp_path, said):
    content = read_json(written / METADATA)
    FAULTS[said](content["@graph"])
    changed = tmp_path / "crate"
    shutil.copytree(written, changed)
    (changed / METADATA).write_text(json.dumps(content))
    assert any(said in line for line in broken_demands(changed))


def test_a_changed_and_a_lost_file_are_named(written, tmp_path):
    changed = tmp_path / "crate"
    shutil.copytree(written, changed)
    assert broken_demands(changed) == []
    with open(changed / "results" / "tables" / "table_05.csv", "a") as table:
        table.write(" ")
    (changed / "params.yaml").unlink()
    assert broken_demands(changed) == [
        "params.yaml: is not in the crate",
        "results/tables/table_05.csv: has another SHA-256",
    ]


def test_every_figure_with_photographs_is_known_to_show_them():
    from lesion_core.report.figures import FIGURES

    drawn = {name for name, draw in FIGURES.items() if draw.__module__.endswith((".contours", ".explanations"))}
    assert {name for name in FIGURES if SHOWING.fullmatch(f"figures/{name}.png")} == drawn


def test_what_shows_photographs_is_copied_on_demand(smoke, tmp_path):
    write_crate(smoke / RESULTS, tmp_path / "crate", photographs=True)
    names = {path.relative_to(tmp_path / "crate").as_posix() for path in (tmp_path / "crate").rglob("*")}
    assert "results/report.html" in names
    assert any(name.endswith("test_masks.zip") for name in names)
    assert not any(name.startswith("results/harmonized/") for name in names)


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
    assert broken_demands(disk / "crate") == []
    assert [path.name for path in disk.iterdir()] == ["crate"]


def test_a_call_that_was_killed_leaves_no_crate_and_the_next_one_no_trace_of_it(smoke, tmp_path):
    out = tmp_path / "crate"
    script = (
        "import os, sys; from pathlib import Path; from lesion_core.sharing import crate\n"
        "crate.broken_demands = lambda folder: os.kill(os.getpid(), 9)\n"
        "crate.write_crate(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(smoke / RESULTS), str(out)], check=False)
    assert killed.returncode == -9
    assert not out.exists()
    assert len(list(tmp_path.iterdir())) == 1
    write_crate(smoke / RESULTS, out)
    assert list(tmp_path.iterdir()) == [out]


def test_a_crate_that_breaks_a_demand_is_not_left_behind(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "broken_demands", lambda folder: [f"{folder.name}: planted"])
    with pytest.raises(RunError, match="planted"):
        write_crate(smoke / RESULTS, tmp_path / "crate")
    assert list(tmp_path.iterdir()) == []
