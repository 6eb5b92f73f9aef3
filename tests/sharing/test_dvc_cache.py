"""What `lesion cache --trim` may take out of DVC's cache: nothing that any dvc.lock which git holds still names."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lesion_core.errors import RunError
from lesion_core.sharing import dvc_cache

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
LOCK = dvc_cache.LOCK


def git(project: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(params=["project", "checkout/project"])
def project(request, tmp_path) -> Path:
    """A DVC project with one commit: a git checkout of its own, or a folder in one."""
    folder = tmp_path / request.param
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("cache/\ntmp/\n")
    git(tmp_path / request.param.split("/")[0], "init", "-q", "-b", "main")
    computed(folder, "first")
    commit(folder)
    return folder


def computed(project: Path, content: str) -> Path:
    """As after `dvc commit`: an object in the cache, and dvc.lock that names it; the object."""
    oid = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    path = project / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    out = f"    - path: results/table.csv\n      hash: md5\n      md5: {oid}\n      size: {len(content)}\n"
    (project / LOCK).write_text(f"schema: '2.0'\nstages:\n  report:\n    cmd: snakemake\n    outs:\n{out}")
    return path


def commit(project: Path) -> None:
    git(project, "add", "--all", ".")
    git(project, "commit", "-q", "-m", "results")


def forget(project: Path) -> None:
    """What keeps a commit now is a branch that reaches it, no longer that somebody was there."""
    git(project, "reflog", "expire", "--expire=now", "--all")


def merged_without_taking_it(project: Path) -> Path:
    path = of_a_side_branch(project)
    computed(project, "of main")
    commit(project)
    git(project, "merge", "-q", "-s", "ours", "-m", "ours", "side")
    git(project, "branch", "-q", "-D", "side")
    forget(project)
    return path


def made_in_a_merge(project: Path) -> Path:
    """A merge whose dvc.lock is neither parent's."""
    git(project, "checkout", "-q", "-b", "side")
    computed(project, "of the side branch")
    commit(project)
    git(project, "checkout", "-q", "main")
    computed(project, "of main")
    commit(project)
    git(project, "merge", "-q", "--no-commit", "-s", "ours", "side")
    path = computed(project, "of the merge")
    commit(project)
    forget(project)
    return path


def removed_from_git_since(project: Path) -> Path:
    path = computed(project, "before dvc.lock was removed")
    commit(project)
    git(project, "rm", "-q", LOCK)
    git(project, "commit", "-q", "-m", "no results")
    forget(project)
    return path


def of_a_side_branch(project: Path) -> Path:
    """Computed and committed there; main is checked out again."""
    git(project, "checkout", "-q", "-b", "side")
    path = computed(project, "of the side branch")
    commit(project)
    git(project, "checkout", "-q", "main")
    return path


def on_another_branch(project: Path) -> Path:
    path = of_a_side_branch(project)
    forget(project)
    return path


def staged(project: Path) -> Path:
    path = computed(project, "staged")
    git(project, "add", LOCK)
    return path


def the_other_side_of_a_conflict(project: Path) -> Path:
    """Their version is staged, while the commit it came from is the reflog's no more."""
    path = of_a_side_branch(project)
    computed(project, "of main")
    commit(project)
    merge = subprocess.run(["git", *IDENTITY, "merge", "side"], cwd=project, capture_output=True, check=False)
    assert merge.returncode == 1
    git(project, "branch", "-q", "-D", "side")
    forget(project)
    assert "<<<<<<<" in (project / LOCK).read_text()
    return path


def stashed_below_another_stash(project: Path) -> Path:
    path = computed(project, "stashed first")
    git(project, "stash", "-q")
    computed(project, "stashed second")
    git(project, "stash", "-q")
    return path


def amended(project: Path) -> Path:
    path = computed(project, "amended away")
    commit(project)
    computed(project, "instead")
    git(project, "commit", "-q", "--all", "--amend", "-m", "results")
    return path


@pytest.mark.parametrize(
    "keeping",
    [
        merged_without_taking_it,
        made_in_a_merge,
        removed_from_git_since,
        on_another_branch,
        staged,
        the_other_side_of_a_conflict,
        stashed_below_another_stash,
        amended,
    ],
)
def test_what_git_still_holds_stays_and_what_nothing_names_goes(project, keeping):
    kept = keeping(project)
    first = computed(project, "first")
    lost = computed(project, "overwritten before any commit")
    computed(project, "now")
    assert dvc_cache.collect(project) == len("overwritten before any commit")
    assert not lost.exists()
    assert kept.exists()
    assert first.exists()


def test_a_conflict_in_the_working_tree_is_read_from_both_sides(project):
    theirs = the_other_side_of_a_conflict(project)
    ours = git(project, "show", f"HEAD:./{LOCK}").split("md5: ")[1].split()[0]
    present = dvc_cache.look(project)[0]
    assert present.files == 2
    assert dvc_cache.collect(project) == 0
    assert theirs.exists()
    assert (theirs.parents[1] / ours[:2] / ours[2:]).exists()


def test_a_project_outside_any_checkout_needs_no_git(project, monkeypatch):
    shutil.rmtree(next(folder for folder in (project, *project.parents) if (folder / ".git").exists()) / ".git")
    (project / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    lost, kept = project / LOCK, computed(project, "now")
    monkeypatch.setenv("PATH", "")
    assert dvc_cache.collect(project) == len("first")
    assert kept.exists()
    assert lost.exists()


def no_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PATH", str(project))
    return "git cannot be called"


def of_another_owner(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Git's own switch for what it does where the checkout is somebody else's and not in safe.directory."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return "dubious ownership"


def a_lost_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    computed(project, "second")
    commit(project)
    folder = Path(git(project, "rev-parse", "--absolute-git-dir")) / "objects"
    oid = git(project, "rev-parse", "HEAD~1")
    (folder / oid[:2] / oid[2:]).unlink()
    return "git rev-list failed"


def a_lost_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    computed(project, "second")
    commit(project)
    folder = Path(git(project, "rev-parse", "--absolute-git-dir")) / "objects"
    oid = git(project, "rev-parse", f"HEAD~1:./{LOCK}")
    (folder / oid[:2] / oid[2:]).unlink()
    return "git .* failed"


@pytest.mark.parametrize("failing", [no_git, of_another_owner, a_lost_commit, a_lost_version])
def test_nothing_goes_where_git_cannot_tell(project, monkeypatch, failing):
    cause = failing(project, monkeypatch)
    first, now = computed(project, "first"), computed(project, "now")
    for call in (dvc_cache.look, dvc_cache.collect):
        with pytest.raises(RunError, match=cause) as told:
            call(project)
        assert told.value.file == str(project)
        assert "nothing was removed" in told.value.remedy
    assert first.exists()
    assert now.exists()


def test_the_checkout_that_counts_is_the_project_s_whatever_a_hook_says(project, tmp_path, monkeypatch):
    computed(project, "second")
    commit(project)
    computed(project, "now")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert dvc_cache.collect(project) == 0
