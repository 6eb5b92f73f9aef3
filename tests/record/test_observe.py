"""What a job uses, read from planted counters, and what it opens."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lesion_core.files import read_json, sha256_text, write_bytes
from lesion_core.record import observe, outputs


@pytest.fixture
def cards(monkeypatch):
    """Stands for NVIDIA's library: two GPUs, the second of which counts no energy."""
    counters = {"GPU-1": 5_000, "GPU-2": None}

    def energy(name):
        if counters[name] is None:
            raise observe.pynvml.NVMLError(observe.pynvml.NVML_ERROR_NOT_SUPPORTED)
        return counters[name]

    planted = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(counters),
        "nvmlDeviceGetHandleByIndex": lambda slot: list(counters)[slot],
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetTotalEnergyConsumption": energy,
    }
    for name, function in planted.items():
        monkeypatch.setattr(observe.pynvml, name, function)
    monkeypatch.setattr(observe, "_energy_before", observe._gpu_counters())
    return counters


def test_gpus_are_counted_where_they_count(cards):
    cards["GPU-1"] = 12_500
    assert observe.gpu_energy_joules() == 7.5


def test_without_the_library_there_is_no_gpu_and_no_number(monkeypatch):
    def absent():
        raise observe.pynvml.NVMLError(observe.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(observe.pynvml, "nvmlInit", absent)
    assert observe.gpu_energy_joules() is None


def test_hardware_names_the_processor_and_no_gpu_that_is_not_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(observe, "CPUINFO", tmp_path / "cpuinfo")
    assert observe.hardware()["cpu"] is None
    observe.CPUINFO.write_text("processor\t: 0\nmodel name\t: Planted 3000 @ 2 GHz\nmodel name\t: Planted 3000\n")
    assert observe.hardware()["cpu"] == "Planted 3000 @ 2 GHz"
    assert observe.hardware()["gpu"] is None


def test_a_gpu_in_use_is_named(monkeypatch):
    cuda = SimpleNamespace(is_initialized=lambda: True, get_device_name=lambda: "Planted GPU")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0")))
    assert observe.hardware() | {"cpu": None, "cores": None} == {
        "cpu": None,
        "cores": None,
        "gpu": "Planted GPU",
        "cuda": "13.0",
    }


def test_peak_memory_is_at_least_what_was_filled():
    script = (
        "from lesion_core.record import observe; before = observe.peak_memory_mb()['host']; kept = b'x' * (200 << 20);"
        " print(observe.peak_memory_mb()['host'] - before)"
    )
    # Started by a shell, as jobs are: a process inherits the peak of the one that started it.
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, script]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 190 < float(grown) < 300


def test_a_record_names_images_and_masks_alone_and_hashes_what_was_written(tmp_path):
    """In a process of its own: an audit hook cannot be taken off."""
    for name in ("data/ph2/a.jpg", "data/ph2/before.jpg", "runs/segmentation/u/test_masks.zip", "tables/t.csv"):
        write_bytes(tmp_path / name, b"x")
    script = f"""
from pathlib import Path
from lesion_core.record import observe, outputs
root = Path({str(tmp_path)!r})
open(root / "data/ph2/before.jpg").close()
observe.begin()
for name in ("data/ph2/a.jpg", "runs/segmentation/u/test_masks.zip", "tables/t.csv"):
    open(root / name).close()
outputs.record_job(root / "tables" / "provenance.json", root, [root / "tables" / "t.csv"])
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert read_json(tmp_path / "tables" / "provenance.json") == {
        "opened": ["data/ph2/a.jpg", "runs/segmentation/u/test_masks.zip"],
        "outputs": {"t.csv": sha256_text("x")},
    }


def test_a_record_saves_reading_and_is_not_believed_of_younger_files(tmp_path, monkeypatch):
    for name in ("images.npy", "masks.npy"):
        write_bytes(tmp_path / name, name.encode())
    read = {name: sha256_text(name) for name in ("images.npy", "masks.npy")}
    assert outputs.array_digests(tmp_path) == read
    record = tmp_path / outputs.NAME
    outputs.record_job(record, tmp_path, outputs.arrays_of(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "sha256_file", lambda path: pytest.fail("read again"))
        assert outputs.array_digests(tmp_path) == read
    (tmp_path / "masks.npy").write_bytes(b"other")
    later = record.stat().st_mtime_ns + 1
    os.utime(tmp_path / "masks.npy", ns=(later, later))
    assert outputs.array_digests(tmp_path) == read | {"masks.npy": sha256_text("other")}
    record.write_text("{broken")
    assert outputs.array_digests(tmp_path) == read | {"masks.npy": sha256_text("other")}
