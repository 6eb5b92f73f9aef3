"""DVC's cache of a checkout: which objects dvc.lock refers to, which earlier commits do, and which nothing does."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from lesion_core.sharing.part import Part

LOCK = "dvc.lock"


def project_of(root: Path) -> Path | None:
    """The DVC checkout that a results folder lies in; None: in none."""
    return next((folder for folder in root.resolve().parents if (folder / ".dvc").is_dir()), None)


def look(project: Path) -> list[Part]:
    """The cache's objects by what refers to them; what nothing refers to is kept where other checkouts may share it."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        cache = repo.cache.local
        sizes = {oid: Path(cache.oid_to_path(oid)).stat().st_size for oid in cache.all()}
        present = _with_members(cache, _of_text(_read(project))) & sizes.keys()
        earlier = _with_members(cache, _of_commits(project)) & sizes.keys() - present
        shared = _shared(cache, project)
    kinds = (
        ("DVC cache: of dvc.lock", present, True),
        ("DVC cache: of other commits (dvc gc --workspace removes it)", earlier, True),
        (f"DVC cache: of no commit{', but shared' if shared else ''}", sizes.keys() - present - earlier, shared),
    )
    return [
        Part(name, kept, files=len(oids), size=sum(sizes[oid] for oid in oids)) for name, oids, kept in kinds if sizes
    ]


def collect(project: Path) -> int:
    """Remove the objects that dvc.lock of no commit refers to, as ``dvc gc`` does; returns the bytes that this freed.

    ``dvc gc --all-commits`` reads every commit's dvc.yaml and fails where one cannot be read; dvc.lock is enough.
    """
    from dvc.repo import Repo
    from dvc_data.hashfile.gc import gc
    from dvc_data.hashfile.hash_info import HashInfo

    before = sum(part.size for part in look(project))
    with Repo(str(project)) as repo, repo.lock:
        cache = repo.cache.local
        if not _shared(cache, project):
            referenced = _with_members(cache, _of_text(_read(project)) | _of_commits(project))
            gc(cache, [HashInfo(cache.hash_name, oid) for oid in referenced])
    return before - sum(part.size for part in look(project))


def _shared(cache: Any, project: Path) -> bool:
    return not Path(cache.path).resolve().is_relative_to(project.resolve())


def _read(project: Path) -> str:
    path = project / LOCK
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _of_commits(project: Path) -> set[str]:
    """Hashes in every version of dvc.lock that git holds."""
    commits = _git(project, "log", "--all", "--format=%H", "--", LOCK).split()
    return set().union(*(_of_text(_git(project, "show", f"{commit}:./{LOCK}")) for commit in commits))


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""  # no checkout, or a commit that removed the file


def _of_text(text: str) -> set[str]:
    """Hashes of the outputs in a dvc.lock."""
    import yaml

    stages = (yaml.safe_load(text) or {}).get("stages", {})
    return {out["md5"] for stage in stages.values() for out in stage.get("outs", ()) if "md5" in out}


def _with_members(cache: Any, oids: set[str]) -> set[str]:
    """Objects, and the files of those that are folders and lie here."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    found = set(oids)
    for oid in oids:
        info = HashInfo(cache.hash_name, oid)
        if info.isdir and cache.exists(oid):
            found.update(member.value for _, _, member in Tree.load(cache, info))
    return found
