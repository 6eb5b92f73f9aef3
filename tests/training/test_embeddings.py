"""Stored embeddings: equal to computed ones, keyed by all that they depend on, resumable, and refused when broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from material import HOME
from segmentation_runs import SIZE, make_run, tensors, write_dataset

from lesion_core.errors import RunError
from lesion_core.files import read_json
from lesion_core.models.registry import build_segmenter
from lesion_core.models.sam import network as sam
from lesion_core.models.sam.network import VARIANTS, build_sam
from lesion_core.models.trainable import to_input
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.seeding import seed_torch
from lesion_core.training import embeddings as module
from lesion_core.training import segmentation
from lesion_core.training.checkpoint import write_safetensors
from lesion_core.training.embeddings import EmbeddingCache, read_embeddings
from lesion_core.training.segmentation import train_run

MODEL = {"kind": "sam", "backbone": "sam_vit_t", "adapter": "decoder", "prompt": "oracle_box"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "smoke"
    write_dataset(root, "isic2018_task1", SIZE, 0, ["train"] * 4 + ["val"] * 2 + ["test"])
    np.save(Layout(root).reference(HOME), np.full((3, 256), 1 / 256))
    for seed, name in enumerate(("sam_vit_t", "other")):
        seed_torch(seed, "test weights")
        write_safetensors(Layout(root).weights(name), dict(build_sam("sam_vit_t").state_dict()))
    return root


def run_of(cache: str, **training):
    return make_run(model={**MODEL, "embedding_cache": cache}, augmentation=[], training=training)


def cache_of(root, folder, number_format="fp32", weights="sam_vit_t", size=SIZE, backbone="sam_vit_t"):
    file = Layout(root).weights(weights)
    spec = run_of("none").spec.model.model_copy(update={"image_size": size, "backbone": backbone})
    return EmbeddingCache(folder, build_segmenter(spec, file, 0), file, number_format, "cpu")


def data_of(root):
    return Harmonized.open(Layout(root).pixels(HOME, "isic2018_task1", SIZE))


def test_stored_equals_computed(root, tmp_path):
    data, cache = data_of(root), cache_of(root, tmp_path)
    paths = cache.fill(data, [0, 3])
    with torch.no_grad():
        alone = torch.cat([cache.segmenter.encode(to_input(data.image(row)[None], "cpu")) for row in (0, 3)])
        assert torch.equal(read_embeddings([paths[0], paths[3]]), alone)
        half = cache_of(root, tmp_path, "fp16")
        stored = read_embeddings(half.fill(data, [0, 3]).values())
        assert stored.dtype == torch.float16
        assert torch.equal(stored, alone.half())


def test_training_on_stored_equals_training_on_computed(root):
    """The same change of the weights, up to what a batch of two does to the encoder's last bits, or half precision."""
    results = {}
    for cache in ("none", "fp32", "fp16"):
        run = run_of(cache, epochs=2, batch_size=2, optimizer="sgd", learning_rate=0.1)
        folder = Layout(root).run("segmentation", run.run_id)
        train_run(run, folder, root, "cpu")
        state = segmentation.build_segmenter(run.spec.model, Layout(root).weights("sam_vit_t"), 0).trainable_state()
        kept = tensors(folder)
        assert kept.keys() == state.keys() | {"harmonization.reference"}
        results[cache] = {name: kept[name] - state[name] for name in state}
        assert read_json(folder / "provenance.json")["extra"]["trainable_parameters"] > 0
    moved = max(float(change.abs().max()) for change in results["none"].values())
    assert moved > 1e-3
    for name, change in results["none"].items():
        assert float((results["fp32"][name] - change).abs().max()) < 1e-3 * moved, name
        assert float((results["fp16"][name] - change).abs().max()) < 0.05 * moved, name


def test_what_is_there_is_not_computed_again(root, tmp_path, monkeypatch):
    data, cache = data_of(root), cache_of(root, tmp_path)
    first = cache.fill(data, [0, 1])
    plain, written = EmbeddingCache.write, []
    monkeypatch.setattr(EmbeddingCache, "write", lambda self, *given: written.append(given[1]) or plain(self, *given))
    paths = cache.fill(data, range(4))
    assert written == [paths[row] for row in (2, 3)]
    assert {row: paths[row] for row in first} == first


def test_whatever_an_embedding_depends_on_is_in_its_place(root, tmp_path, monkeypatch):
    data, cache = data_of(root), cache_of(root, tmp_path)
    folders = {
        cache.folder,
        cache_of(root, tmp_path, "fp16").folder,
        cache_of(root, tmp_path, weights="other").folder,
        cache_of(root, tmp_path, size=SIZE // 2).folder,
    }
    monkeypatch.setattr(module, "code_hash", lambda name: "changed")
    folders.add(cache_of(root, tmp_path).folder)
    monkeypatch.undo()
    monkeypatch.setattr(sam, "IMAGENET_MEAN", (0.0, 0.0, 0.0))
    folders.add(cache_of(root, tmp_path).folder)
    assert len(folders) == 6
    image = data.image(0).copy()
    before = cache.path(image)
    image[0, 0, 0] ^= 1
    assert cache.path(image) != before
    image[0, 0, 0] ^= 1
    assert cache.path(image) == before


def test_sam_and_medsam_with_the_same_weights_share_nothing(root, tmp_path, monkeypatch):
    """MedSAM's rule of normalisation alone sets them apart; without it the place would be the same."""
    data, rule = data_of(root), VARIANTS["medsam"].normalisation
    monkeypatch.setitem(VARIANTS, "medsam", replace(VARIANTS["sam_vit_t"], normalisation=rule))
    own, other = cache_of(root, tmp_path), cache_of(root, tmp_path, backbone="medsam")
    assert own.folder != other.folder
    stored = read_embeddings(other.fill(data, [0]).values())
    assert not any(own.folder.glob("**/*.npy"))
    pixels = data.image(0).astype(np.float64)
    scaled = (pixels - pixels.min()) / np.clip(pixels.max() - pixels.min(), 1e-8, None)
    given = torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None]
    monkeypatch.setattr("lesion_core.models.sam.segmenter.normalise", lambda sam, images: given)
    with torch.no_grad():
        expected = other.segmenter.encode(to_input(data.image(0)[None], "cpu"))
    torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setitem(VARIANTS, "medsam", VARIANTS["sam_vit_t"])
    assert cache_of(root, tmp_path, backbone="medsam").folder == own.folder


def test_a_broken_file_is_named(root, tmp_path):
    cache = cache_of(root, tmp_path)
    [path] = cache.fill(data_of(root), [0]).values()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RunError, match=path.name):
        read_embeddings([path])


def test_augmentation_and_stored_embeddings_exclude_each_other():
    with pytest.raises(ValueError, match="augmentation must be"):
        make_run(model={**MODEL, "embedding_cache": "fp16"})
