"""What a process opens and uses, noted while it runs: the audit's evidence that test masks stayed closed."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pynvml

from lesion_core.paths import IMAGE_SUFFIXES, Layout
from lesion_core.record.own_files import own_files

CPUINFO = Path("/proc/cpuinfo")
_opened: set[str] | None = None
_energy_before: dict[str, int] = {}


def begin() -> None:
    """Start recording, anew at every call: a job may train several runs, one after the other.

    An audit hook cannot be taken off, so that the whole process records from the first call on.
    """
    global _opened
    if _opened is None:
        sys.addaudithook(_note)
    _opened = set()
    _energy_before.clear()
    _energy_before.update(_gpu_counters())
    with suppress(OSError):  # the largest resident memory so far is forgotten
        Path("/proc/self/clear_refs").write_text("5")


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    # Native readers (Parquet, safetensors) do not pass here; images and masks are read by Python.
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.add(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100 - resolve() would touch the disk


def opened_under(root: Path) -> list[str] | None:
    """Files that were opened since ``begin``, relative to ``root``, sorted; None if nothing was recorded.

    Those below ``root``, and the user's own images and masks wherever they lie, as the catalog names them.
    """
    if _opened is None:
        return None
    start, opened = os.path.abspath(root), list(_opened)  # noqa: PTH100 - as above
    names = {path[len(start) + 1 :] for path in opened if path.startswith(f"{start}{os.sep}")}
    return sorted(names | own_opened(root))


def own_opened(root: Path) -> set[str]:
    """The user's own images and masks that were opened since ``begin``, as the catalog names them."""
    start, catalog = os.path.abspath(root), Layout(root).catalog  # noqa: PTH100 - as above
    images = {path for path in list(_opened or ()) if path.lower().endswith(IMAGE_SUFFIXES)}
    if not images or not catalog.is_file():
        return set()
    return {name for name in own_files(catalog) if os.path.normpath(f"{start}/{name}") in images}


def gpu_energy_joules() -> float | None:
    """Joules used since ``begin`` by all of the machine's GPUs, other jobs' too; None where no counter is readable."""
    after = _gpu_counters()
    used = [after[name] - before for name, before in _energy_before.items() if name in after]
    return round(sum(used) / 1e3, 1) if used else None


def peak_memory_mb() -> dict[str, float | None]:
    """Largest resident memory of this process, and of torch's on the GPU if it used one, in MiB."""
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gpu = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1), "gpu": gpu}


def resident_mb() -> float:
    """Resident memory of this process now, in MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20


def limit_memory() -> None:
    """To what the machine has free now: an allocation beyond it fails, where the kernel would kill a process."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) << 10
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (taken + free, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def hardware() -> dict[str, str | int | None]:
    """What computes: the processor's name and cores, the GPU's name and its CUDA (None without one that is in use)."""
    torch: Any = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_initialized()
    processor = None
    with suppress(OSError):
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    return {
        "cpu": processor,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
    }


def _gpu_counters() -> dict[str, int]:
    """UUID -> energy counter in millijoules, of the GPUs that have one."""
    readings = {}
    with _gpus() as handles:
        for handle in handles:
            with suppress(pynvml.NVMLError):
                readings[pynvml.nvmlDeviceGetUUID(handle)] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return readings


@contextmanager
def _gpus() -> Iterator[list[Any]]:
    """NVIDIA's handles of this machine's GPUs; none where its library is absent."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield []
        return
    try:
        yield [pynvml.nvmlDeviceGetHandleByIndex(slot) for slot in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
