"""`lesion cache`: what is current is kept to the byte, everything else is named, sized and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from material import HOME
from typer.testing import CliRunner

from lesion_core.audit.manifest import product_files, write_manifest
from lesion_core.cli import app
from lesion_core.errors import RunError
from lesion_core.files import read_json, write_bytes, write_json
from lesion_core.paths import Layout
from lesion_core.settings import load as config
from lesion_core.settings.run import Run
from lesion_core.settings.stored import recorded
from lesion_core.sharing import cache
from lesion_core.sharing.lock import hold

NARROW = {"methods": {"sam_adapter": {"model": {"rank": 8}}, "unet": {"model": {"image_size": 160}}}}

STALE = "sam_vit_protocol/leak_free/pixels/ph2/160"


def finish(root: Path, run: Run) -> None:
    """A run's files and what jobs made of it, one byte for each file but the settings."""
    layout = Layout(root)
    folder = layout.run(run.place, run.run_id)
    run.save(folder)
    write_bytes(folder / "weights.safetensors", b"w")
    embedding = f"embeddings/sam_vit_t-1/{run.seed}/{run.run_id}.npy"
    write_json(folder / "provenance.json", {"opened": [embedding, "protocols/shared/leak_free/reference.npy"]})
    write_bytes(root / embedding, b"e")
    for name in (
        f"pseudo_masks/{run.run_id}/ham10000/masks.csv",
        f"explain/{run.run_id}.csv",
        f"robustness/{run.run_id}.csv",
        f"benchmarks/train_segmenter/{run.place}/{run.run_id}.tsv",
        f"logs/pseudo_masks/{run.run_id}_ham10000.txt",
    ):
        write_bytes(root / name, b"x")
    if run.task == "segmentation":
        write_bytes(layout.pixels(run.pixels, "ph2", run.spec.model.image_size) / "images.npy", b"p")


@pytest.fixture(scope="module")
def matrix() -> dict[str, Run]:
    return config.expand(config.load("smoke"))


@pytest.fixture(scope="module")
def earlier() -> dict[str, Run]:
    return config.expand(config.load("smoke", NARROW))


@pytest.fixture
def root(tmp_path, matrix, earlier) -> Path:
    """The smoke matrix finished, over runs of an earlier rank and size."""
    root = tmp_path / "results" / "smoke"
    for run in (earlier | matrix).values():
        finish(root, run)
    write_bytes(Layout(root).reference(HOME), b"r")
    write_bytes(root / "report.html", b"page")
    write_manifest(root, recorded(config.load("smoke")), config.plan(config.load("smoke")))
    return root


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_runs_sizes_and_embeddings_of_earlier_settings_are_named_and_sized(root, matrix, earlier):
    parts = {part.name: part for part in cache.contents(root)}
    stale = set(earlier) - set(matrix)
    assert len(stale) > 5
    assert set(parts["runs of earlier settings"].units) == stale
    assert set(parts["pixels at sizes of earlier settings"].units) == {f"protocols/{STALE}"}
    assert parts["pixels at sizes of earlier settings"].size == len(b"p")
    assert len(parts["embeddings"].files) == len(matrix)
    assert len(parts["embeddings that no finished run read"].files) == len(stale)
    everything = files(root)
    assert sum(len(part.files) for part in parts.values()) == len(everything)
    assert sum(part.size for part in parts.values()) == sum(map(len, everything.values()))


def test_prune_removes_those_and_nothing_else(root, matrix, earlier):
    before, stale = files(root), set(earlier) - set(matrix)
    current = set(product_files(root, config.plan(config.load("smoke"))))
    freed = cache.prune(root)
    after = files(root)
    removed = before.keys() - after.keys()
    assert all(after[name] == before[name] for name in after)
    assert current <= after.keys()
    assert {name for name in removed if not any(run_id in name for run_id in stale)} == {
        f"protocols/{STALE}/images.npy"
    }
    assert not any(run_id in name for name in after for run_id in stale)
    assert freed == sum(len(before[name]) for name in removed)
    assert not any(path.is_dir() and not any(path.iterdir()) for path in (root / "embeddings").rglob("*"))
    assert cache.prune(root) == 0
    assert files(root) == after


def test_what_the_settings_ask_for_is_kept_before_it_is_finished(root, matrix):
    """The manifest is of the earlier matrix: both its runs and those that the settings ask for now stay."""
    plan = config.plan(config.load("smoke", NARROW))
    write_manifest(root, recorded(config.load("smoke", NARROW)), plan)
    assert cache.prune(root) == 0


def test_a_run_that_became_an_ablation_leaves_its_old_place_but_not_its_logs(root, matrix):
    run = next(run for run in matrix.values() if run.ablation)
    old = Layout(root).run(run.task, run.run_id)
    write_bytes(old / "weights.safetensors", b"old")
    assert not any(name.startswith(old.relative_to(root).as_posix()) for name in _products(root))
    assert cache.prune(root) > 0
    assert not old.exists()
    assert (root / "logs" / "pseudo_masks" / f"{run.run_id}_ham10000.txt").exists()
    assert Layout(root).run("ablations", run.run_id).exists()


def _products(root: Path) -> list[str]:
    return list(product_files(root, config.plan(config.load("smoke"))))


def test_while_another_run_works_there_nothing_is_removed(root):
    before = files(root)
    with hold(root), pytest.raises(RunError, match="Another run works in"):
        cache.prune(root)
    assert files(root) == before


def test_without_a_finished_pipeline_nothing_is_removed(root):
    (root / "manifest.json").unlink()
    with pytest.raises(RunError, match="no manifest"):
        cache.prune(root)
    assert len(list((root / "runs").glob("*/*"))) > 10


def test_a_manifest_of_another_checkout_is_told(root):
    manifest = read_json(root / "manifest.json")
    write_json(root / "manifest.json", manifest | {"settings": {"plan": {"profile": "smoke"}}})
    with pytest.raises(RunError, match="settings cannot be read"):
        cache.prune(root)


def test_the_command_shows_a_dry_run_changes_nothing_and_prune_tells_what_it_freed(root, matrix, earlier):
    def ask(*options: str) -> str:
        done = CliRunner().invoke(app, ["cache", "--root", str(root), *options])
        assert done.exit_code == 0, done.output
        return done.output

    before = files(root)
    assert f"deletes it ({len(set(earlier) - set(matrix))})" in ask()
    dry = ask("--prune", "--dry-run")
    stale = next(iter(set(earlier) - set(matrix)))
    assert f"would delete runs of earlier settings: {stale}" in dry
    assert files(root) == before
    assert "freed" in ask("--prune")
    assert stale not in ask("--prune")
    assert files(root).keys() < before.keys()
