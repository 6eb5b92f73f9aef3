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
    *("torch", "torchvision", "segment-anything", "timm", "segmentation-models-pytorch", "numpy", "scipy"),
    *("opencv-python-headless", "pillow", "albumentations", "scikit-learn", "pyarrow", "safetensors", "snakemake"),
)
DECLARED = "DATA_FILES"  # constant of a module: files and folders, below lesion_core, that it reads beside its code


@cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...], tuple[Path, ...]]:
    """A module's code without comments and docstrings, the lesion_core modules that it imports, its data files."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(("lesion_core", *path.relative_to(PACKAGE).with_suffix("").parts))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.rsplit(".", node.level)[0]
                base = f"{parent}.{base}".rstrip(".")
            imports.add(base)
            imports.update(f"{base}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            first = body[0] if body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:] or [ast.Pass()]
    imported = tuple(sorted(name for name in imports if name.startswith("lesion_core")))
    return ast.dump(tree), imported, _data_files(tree)


def _data_files(tree: ast.Module) -> tuple[Path, ...]:
    """What a module's ``DATA_FILES`` names, the files of folders one by one."""
    named: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [DECLARED]:
            named += ast.literal_eval(node.value)
    places = [PACKAGE / name for name in named]
    return tuple(file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place]))


def module_file(name: str) -> Path | None:
    """File of a lesion_core module; None if the name is none of them (a class, a function)."""
    parts = name.split(".")[1:]
    base = PACKAGE.joinpath(*parts)
    if base.with_suffix(".py").is_file() and parts:
        return base.with_suffix(".py")
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    return None


@cache
def code_modules(entry: str) -> tuple[str, ...]:
    """All lesion_core modules that ``entry`` imports, directly or not, lazily or not; sorted, with itself.

    ``settings`` is followed like any other module, but package ``__init__`` files of parents count too.
    """
    seen: dict[str, Path] = {}
    pending = [entry]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        path = module_file(name)
        if path is None:
            continue
        seen[name] = path
        pending.extend(_parsed(path)[1])
    if entry not in seen:
        raise ValueError(f"{entry} is not a module of lesion_core")
    return tuple(sorted(seen))


def code_files(entry: str) -> list[Path]:
    """Data files of the code reachable from ``entry``: published numbers, styles, weights."""
    return sorted({file for name in code_modules(entry) for file in _parsed(_file_of(name))[2]})


def _file_of(module: str) -> Path:
    path = module_file(module)
    assert path is not None
    return path


@cache
def code_hash(entry: str) -> str:
    """SHA-256 over the code reachable from ``entry`` and its data files, byte for byte.

    Comments, docstrings and layout of code do not count.
    """
    parts = [f"{name}\n{_parsed(_file_of(name))[0]}" for name in code_modules(entry)]
    parts += [f"{path.relative_to(PACKAGE).as_posix()}\n{sha256_file(path)}" for path in code_files(entry)]
    return sha256_text("\n".join(parts))[:16]


def git_commit() -> dict[str, Any]:
    """The checkout's commit and whether it was dirty; empty outside a checkout."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=PACKAGE, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=PACKAGE,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "dirty": bool(dirty)}


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
    own = f"{run_dir.resolve().relative_to(root.resolve()).as_posix()}/"
    opened = None if did["opened"] is None else [name for name in did["opened"] if not name.startswith(own)]
    hashed = {}
    for path in sorted({Path(path) for path in inputs}):
        try:
            name = path.resolve().relative_to(root.resolve()).as_posix()
        except ValueError:
            name = path.name
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
