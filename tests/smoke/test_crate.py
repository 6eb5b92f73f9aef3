"""The research object: read back by the rocrate package, with all that the profile demands."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from lesion_core.errors import RunError
from lesion_core.files import read_json, sha256_file
from lesion_core.sharing.crate import PROFILES, _end, write_crate

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def written(smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("crate") / "crate"
    write_crate(smoke / "results" / "smoke", out)
    return out


def test_rocrate_reads_it_back_with_the_profiles_entities(written, smoke):
    from rocrate.rocrate import ROCrate

    crate = ROCrate(written)
    workflow = crate.mainEntity
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} <= set(workflow.type)
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    assert {item.id for item in crate.root_dataset["conformsTo"]} == {address for address, _ in PROFILES}
    actions = [entity for entity in crate.get_entities() if entity.type == "CreateAction"]
    assert {action.id for action in crate.root_dataset["mentions"]} == {action.id for action in actions}
    provenances = list((smoke / "results" / "smoke").glob("runs/*/*/provenance.json"))
    assert len(actions) == 1 + len(provenances)
    for action in actions:
        assert action["instrument"].id == workflow.id
        assert action["agent"].id == "#lesion"
        assert action["result"], action.id
        assert action["startTime"]
    run = next(action for action in actions if action.id == "#run")
    assert any(item.id.endswith("scores/segmentation.parquet") for item in run["result"])
    assert any(item.id == "#settings" for item in run["object"])


def test_every_file_is_there_with_its_hash_and_no_photograph(written):
    graph = read_json(written / "ro-crate-metadata.json")["@graph"]
    hashed = [entity for entity in graph if "sha256" in entity]
    assert len(hashed) > 50
    for entity in hashed:
        assert sha256_file(written / unquote(entity["@id"])) == entity["sha256"]
    names = [path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()]
    assert not any(name.startswith(("results/data/", "results/harmonized/")) for name in names)
    assert not any(name.endswith(".jpg") for name in names)


def test_a_folder_that_exists_is_left_alone(smoke, tmp_path):
    with pytest.raises(RunError, match="exists"):
        write_crate(smoke / "results" / "smoke", tmp_path)


def test_a_run_ends_after_it_began():
    assert _end({"started": "2026-01-31T23:59:50Z", "seconds": 15.4}) == "2026-02-01T00:00:05Z"
