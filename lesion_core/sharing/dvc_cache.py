"""DVC's cache of a checkout: which objects dvc.lock refers to, which earlier commits do, and which nothing does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from lesion_core.errors import RunError
from lesion_core.sharing.part import Part

LOCK = "dvc.lock"
MD5 = re.compile(r"\bmd5\b['\"]?\s*:\s*['\"]?([0-9a-f]{32}(?:\.dir)?)")
OF_HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")


def project_of(root: Path) -> Path | None:
    """The DVC checkout that a results folder lies in; None: in none."""
    return next((folder for folder in root.resolve().parents if (folder / ".dvc").is_dir()), None)


def look(project: Path) -> list[Part]:
    """The cache's objects by what refers to them; what nothing refers to is kept where other checkouts may share it.

    Raises:
        RunError: git cannot tell what earlier commits need.
    """
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        cache = repo.cache.local
        sizes = {oid: Path(cache.oid_to_path(oid)).stat().st_size for oid in cache.all()}
        present = _with_members(cache, _of_text(_read(project))) & sizes.keys()
        earlier = _with_members(cache, _of_git(project)) & sizes.keys() - present
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
    """Remove the objects that no dvc.lock refers to, as ``dvc gc`` does; returns the bytes that this freed.

    ``dvc gc --all-commits`` reads every commit's dvc.yaml and fails where one cannot be read; dvc.lock is enough.

    Raises:
        RunError: git cannot tell what earlier commits need; nothing was removed.
    """
    from dvc.repo import Repo
    from dvc_data.hashfile.gc import gc
    from dvc_data.hashfile.hash_info import HashInfo

    before = sum(part.size for part in look(project))
    with Repo(str(project)) as repo, repo.lock:
        cache = repo.cache.local
        if not _shared(cache, project):
            referenced = _with_members(cache, _of_text(_read(project)) | _of_git(project))
            gc(cache, [HashInfo(cache.hash_name, oid) for oid in referenced])
    return before - sum(part.size for part in look(project))


def _shared(cache: Any, project: Path) -> bool:
    return not Path(cache.path).resolve().is_relative_to(project.resolve())


def _read(project: Path) -> str:
    path = project / LOCK
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _of_git(project: Path) -> set[str]:
    """Hashes in every dvc.lock that git holds: staged, and of all commits that a ref or a reflog (any stash) reaches.

    Raises:
        RunError: the project lies in a git checkout and git cannot tell; nothing may be removed then.
    """
    if not any((folder / ".git").exists() for folder in (project.resolve(), *project.resolve().parents)):
        return set()
    # Without --full-history git leaves out a side branch whose dvc.lock a merge did not take.
    commits = ("rev-list", "--all", "--reflog", "--full-history", "--objects", "--", LOCK)
    named = [line.split(" ", 1) for line in _git(project, *commits).splitlines() if line.endswith(LOCK)]
    versions = {oid for oid, _ in named}
    # In a merge's conflict each side is staged.
    versions |= {line.split()[1] for line in _git(project, "ls-files", "--stage", "--", LOCK).splitlines()}
    return set().union(*(_of_text(_git(project, "cat-file", "blob", oid)) for oid in sorted(versions)))


def _git(project: Path, *arguments: str) -> str:
    # A hook that calls us says GIT_DIR, of whatever repository it is.
    environment = {name: value for name, value in os.environ.items() if name not in OF_HOOKS}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=project,
            env=environment | {"LC_ALL": "C"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise _unknown(project, f"git cannot be called ({error.strerror})") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise _unknown(project, f"git {arguments[0]} failed ({said[0]})")
    return done.stdout


def _unknown(project: Path, cause: str) -> RunError:
    return RunError(
        f"Which objects of DVC's cache earlier commits need is unknown: {cause}",
        file=project,
        remedy="install git, or do what `git status` says there, and call again; nothing was removed",
    )


def _of_text(text: str) -> set[str]:
    """Hashes that a dvc.lock names; by pattern, so that one with a merge's conflict still protects what it names."""
    return set(MD5.findall(text))


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
