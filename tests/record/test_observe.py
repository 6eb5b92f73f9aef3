"""What a job did to the machine, read from planted counters."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lesion_core.record import observe


def package(folder, number, joules, most=200):
    place = folder / f"intel-rapl:{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{joules * 1_000_000}\n")
    (place / "max_energy_range_uj").write_text(f"{most * 1_000_000}\n")


class Cards:
    """Stands for NVIDIA's library: two GPUs, the second of which counts no energy."""

    millijoules = 5_000

    def __getattr__(self, name):
        return {
            "nvmlInit_v2": lambda: 0,
            "nvmlShutdown": lambda: 0,
            "nvmlDeviceGetCount_v2": lambda count: self.store(count, 2),
            "nvmlDeviceGetHandleByIndex_v2": lambda number, handle: self.store(handle, number + 1),
            "nvmlDeviceGetTotalEnergyConsumption": self.energy,
            "nvmlDeviceGetUUID": self.uuid,
        }[name]

    @staticmethod
    def store(pointer, value):
        pointer._obj.value = value
        return 0

    def energy(self, handle, pointer):
        return self.store(pointer, self.millijoules) if handle.value == 1 else 3

    @staticmethod
    def uuid(handle, buffer, length):
        buffer.value = f"GPU-{handle.value}".encode()
        return 0


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """An empty folder for processor counters; no GPU; nothing recorded yet."""
    monkeypatch.setattr(observe, "POWERCAP", tmp_path)
    monkeypatch.setattr(observe, "_energy_before", {})

    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(observe.ctypes, "CDLL", absent)
    return tmp_path


def begin():
    observe._energy_before.update(observe._counters())


def test_processors_add_up_and_a_counter_may_wrap(counters):
    package(counters, 0, 100)
    package(counters, 1, 190)
    package(counters, "0:0", 7)  # a part of package 0
    begin()
    package(counters, 0, 160)
    package(counters, 1, 20)  # 190 to 200, and 20 more
    package(counters, "0:0", 99)
    assert observe.energy_joules() == {"cpu": 90.0, "gpu": None}


def test_gpus_are_counted_where_they_count(counters, monkeypatch):
    cards = Cards()
    monkeypatch.setattr(observe.ctypes, "CDLL", lambda name: cards)
    begin()
    cards.millijoules = 12_500
    assert observe.energy_joules() == {"cpu": None, "gpu": 7.5}
    assert observe.gpu_uuids() == ["GPU-1", "GPU-2"]


def test_no_counter_is_no_number(counters):
    begin()
    assert observe.energy_joules() == {"cpu": None, "gpu": None}
    package(counters, 0, 100)
    (counters / "intel-rapl:0" / "energy_uj").unlink()  # as where only root may read it
    assert observe.energy_joules() == {"cpu": None, "gpu": None}


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
        "from lesion_core import observe; before = observe.peak_memory_mb()['host']; kept = b'x' * (200 << 20);"
        " print(observe.peak_memory_mb()['host'] - before)"
    )
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert 190 < float(grown) < 300
