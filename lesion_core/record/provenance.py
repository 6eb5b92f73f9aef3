"""What a run was made of: settings, input hashes, code hash, versions, device, time and memory."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_core.files import sha256_file, sha256_text, write_json
from lesion_core.paths import Layout
from lesion_core.record import observe
from lesion_core.record.outputs import INDEXES, NAME, array_digests
from lesion_core.seeding import granted_threads

if TYPE_CHECKING:
    from lesion_core.record.attempts import Attempts
    from lesion_core.settings.run import Run

PACKAGE = Path(__file__).resolve().parents[1]
STAGES = {"derived": "lesion_core.inference.score_derived"}  # tasks whose runs come from another module than training
VERSIONED = (
    *("torch", "torchvision", "segment-anything", "timm", "segmentation-models-pytorch", "monai", "numpy", "scipy"),
    *("opencv-python-headless", "pillow", "albumentations", "scikit-learn", "pyarrow", "safetensors", "snakemake"),
)
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """A module's code without comments and docstrings, the names that it imports, the data files that it declares."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports: set[str] = set()
    data: tuple[str, ...] = ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DATA_FILES":
            data = ast.literal_eval(node.value)
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree), tuple(sorted(imports)), data


def _module_file(name: str) -> Path | None:
    """File of a lesion_core module; None if the name is none of them (another package, a class, a function)."""
    package, *parts = name.split(".")
    base = PACKAGE.joinpath(*parts)
    files = [base.with_suffix(".py"), base / "__init__.py"] if package == PACKAGE.name else []
    return next((path for path in files if path.is_file()), None)


@cache
def code_files(entry: str) -> dict[str, Path]:
    """All lesion_core modules that ``entry`` imports, directly or not, lazily or not, with itself: name -> file.

    Raises:
        ValueError: there is no such module.
    """
    found: dict[str, Path] = {}
    pending = [entry]
    while pending:
        name = pending.pop()
        if name not in found and (path := _module_file(name)) is not None:
            found[name] = path
            pending += _parsed(path)[1]
    if entry not in found:
        raise ValueError(f"{entry} is not a module of lesion_core")
    return dict(sorted(found.items()))


def data_files(entry: str) -> list[Path]:
    """What the modules behind ``entry`` declare as ``DATA_FILES``: paths below lesion_core; of a folder, its files."""
    places = [PACKAGE / name for path in code_files(entry).values() for name in _parsed(path)[2]]
    return sorted(
        {file for place in places for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()}
    )


@cache
def code_hash(entry: str) -> str:
    """SHA-256 over the code reachable from ``entry`` and its data files, byte for byte.

    Comments, docstrings and layout of code do not count.
    """
    parts = [f"{name}\n{_parsed(path)[0]}" for name, path in code_files(entry).items()]
    parts += [f"{path.relative_to(PACKAGE).as_posix()}\n{sha256_file(path)}" for path in data_files(entry)]
    return sha256_text("\n".join(parts))[:16]


def git_commit() -> dict[str, Any]:
    """The checkout's commit and whether it was dirty; empty outside a checkout."""
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.check_output(["git", "-C", PACKAGE, *command], text=True, stderr=subprocess.DEVNULL)
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, and of Python."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def computing_versions() -> dict[str, str]:
    """``package_versions`` without Snakemake, which starts jobs and computes nothing."""
    return {name: version for name, version in package_versions().items() if name != "snakemake"}


def write_provenance(
    run_dir: Path,
    run: Run,
    *,
    inputs: list[Path],
    device: str,
    attempts: Attempts,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write ``provenance.json`` into a run's folder.

    Args:
        run_dir: the run's folder; inputs inside the results root are named relative to it.
        run: the run; its settings, seed and threads are recorded.
        inputs: files that were read, each hashed; with an index the arrays beside it.
        device: ``cpu`` or ``cuda:0`` and the like.
        attempts: made when the job started; tells what its first process did, in earlier attempts too.
        extra: what else is worth knowing (best epoch, parameter counts, resumed from).
    """
    root = Layout.of_run(run_dir).root
    did = attempts.total()
    own = f"{run_dir.resolve().relative_to(root).as_posix()}/"
    opened = None if did["opened"] is None else [name for name in did["opened"] if not name.startswith(own)]
    hashed = {}
    for path in sorted({Path(path) for path in inputs}):
        inside = path.resolve().is_relative_to(root)
        name = path.resolve().relative_to(root).as_posix() if inside else path.name
        hashed[name] = sha256_file(path)
        if path.name in INDEXES:
            folder = name.rpartition("/")[0]
            hashed |= {f"{folder}/{array}": digest for array, digest in array_digests(path.parent).items()}
    write_json(
        run_dir / NAME,
        {
            "run_id": run.run_id,
            "settings": run.model_dump(mode="json"),
            "inputs": hashed,
            "code": {
                "hash": code_hash(STAGES.get(run.task, f"lesion_core.training.{run.task}")),
                **git_commit(),
            },
            "packages": package_versions(),
            "device": device,
            "platform": platform.platform(),
            "hardware": observe.hardware(),
            "threads": granted_threads(run.threads),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),  # as torchrun tells
            "seed": run.seed,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(did["started"])),
            "seconds": round(did["seconds"], 3),
            "peak_memory_mb": did["peak_memory_mb"],
            "gpu_energy_joules": did["gpu_energy_joules"],
            "opened": opened,
            "extra": extra or {},
        },
    )
