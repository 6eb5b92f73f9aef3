"""What a job did to the machine and which files it opened: recorded while it runs, for its provenance."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lesion_core.files import write_json
from lesion_core.paths import IMAGE_SUFFIXES, Layout

POWERCAP = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
MICRO = 1e6
MILLI = 1e3
RECORD = "opened.json"
PHOTOGRAPHS = "data/"  # and masks, as unpacked
TEST_MASKS = "test_masks.zip"  # of a run: true outlines of test images, which its scoring stored

_opened: set[str] | None = None
_energy_before: dict[str, Any] = {}


def begin() -> None:
    """Start recording, anew at every call: a job may train several runs, one after the other.

    An audit hook cannot be taken off, so that the whole process records from the first call on.
    """
    global _opened
    if _opened is None:
        sys.addaudithook(_note)
    _opened = set()
    _energy_before.update(_counters())
    with suppress(OSError):  # the largest resident memory so far is forgotten
        Path("/proc/self/clear_refs").write_text("5")


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    # Native readers (Parquet, safetensors) do not pass here; photographs and masks are read by Python.
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.add(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - resolve() would touch the disk


def opened_under(root: Path) -> list[str] | None:
    """Files that were opened since ``begin``, relative to ``root``, sorted; None if nothing was recorded.

    Those below ``root``, and the user's own photographs and masks wherever they lie, as the catalog names them.
    """
    return None if _opened is None else sorted({*_inside(root), *_own(root)})


def _inside(root: Path) -> set[str]:
    start = f"{os.path.abspath(root)}{os.sep}"  # noqa: PTH100 - as above
    return {path[len(start) :] for path in list(_opened or ()) if path.startswith(start)}


def _own(root: Path) -> set[str]:
    images = {path for path in list(_opened or ()) if path.lower().endswith(IMAGE_SUFFIXES)}
    catalog = Layout(root).catalog
    if not images or not catalog.is_file():  # a job that opened no photograph need not load a Parquet reader
        return set()
    from lesion_core.catalog.own_files import own_files

    start = os.path.abspath(root)  # noqa: PTH100 - as above
    return {name for name in own_files(catalog) if os.path.normpath(f"{start}/{name}") in images}


def record_opened(path: Path, root: Path) -> None:
    """Write {opened: the photographs and masks that were opened since ``begin``, as the catalog names them}."""
    told = {name for name in _inside(root) if name.startswith(PHOTOGRAPHS) or name.endswith(f"/{TEST_MASKS}")}
    write_json(path, {"opened": sorted(told | _own(root))})


def energy_joules() -> dict[str, float | None]:
    """Joules used since ``begin`` by the processor packages and by the GPUs; None where no counter is readable.

    The counters are of the whole machine: other jobs beside this one count too.
    """
    after = _counters()
    cpu = [
        (after[name] - value) % after.get(f"{name}.range", float("inf"))
        for name, value in _energy_before.items()
        if name.startswith("intel-rapl") and not name.endswith(".range") and name in after
    ]
    gpu = [after[name] - value for name, value in _energy_before.items() if name.startswith("gpu") and name in after]
    return {
        "cpu": round(sum(cpu) / MICRO, 1) if cpu else None,
        "gpu": round(sum(gpu) / MILLI, 1) if gpu else None,
    }


def peak_memory_mb() -> dict[str, float | None]:
    """Largest resident memory of this process, and of torch's on the GPU if it used one, in MiB."""
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gpu = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {"host": round(_peak_kilobytes() / 1024, 1), "gpu": gpu}


def _peak_kilobytes() -> int:
    """Of this program; getrusage would also count the process that started it, as it stood then."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def hardware() -> dict[str, str | int | None]:
    """What computes: the processor's name and cores, the GPU's name and its CUDA (None without one that is in use)."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_initialized()
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
    }


def _processor() -> str | None:
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _counters() -> dict[str, int]:
    """Raw readings: ``intel-rapl:<n>`` in microjoules with ``.range`` (where it wraps), ``gpu<n>`` in millijoules."""
    readings: dict[str, int] = {}
    for package in sorted(POWERCAP.glob("intel-rapl:*")):
        if package.name.count(":") != 1:
            continue  # cores and memory are parts of their package
        try:
            readings[package.name] = int((package / "energy_uj").read_text())
            readings[f"{package.name}.range"] = int((package / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            readings.pop(package.name, None)
    return readings | _gpu_counters()


def _gpu_counters() -> dict[str, int]:
    """Energy counters of all GPUs in millijoules; empty where they are not readable."""
    readings: dict[str, int] = {}
    energy = ctypes.c_ulonglong()
    with _nvml() as (nvml, handles):
        for number, handle in handles.items():
            if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy)) == 0:
                readings[f"gpu{number}"] = energy.value
    return readings


def gpu_uuids() -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES takes them (``GPU-...``), in the order of their slots."""
    found = []
    with _nvml() as (nvml, handles):
        for _, handle in sorted(handles.items()):
            name = ctypes.create_string_buffer(96)
            if nvml.nvmlDeviceGetUUID(handle, name, ctypes.c_uint(len(name))) == 0:
                found.append(name.value.decode("ascii"))
    return found


@contextmanager
def _nvml() -> Iterator[tuple[Any, dict[int, ctypes.c_void_p]]]:
    """NVIDIA's management library and the handles of its devices, by number; none where it is absent."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        yield None, {}
        return
    if nvml.nvmlInit_v2() != 0:
        yield nvml, {}
        return
    try:
        count, handles = ctypes.c_uint(), {}
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for number in range(count.value):
            handle = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
                handles[number] = handle
        yield nvml, handles
    finally:
        nvml.nvmlShutdown()
