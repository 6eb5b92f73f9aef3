"""calls.jsonl: one line for each call of Snakemake, with what all its jobs have in common.

Snakemake's records (``snapshot.json``) give each job's command, settings, code hash, times and files; which commit it
was, on which machine and with which packages is said by the call in whose time it ran.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

from lesion_core.files import canonical_json
from lesion_core.record import observe
from lesion_core.record.provenance import git_commit, package_versions

NAME = "calls.jsonl"
STAMP = "%Y-%m-%dT%H:%M:%SZ"


def record_call(root: Path, started: float, *, succeeded: bool) -> None:
    """Add a line: started, ended (UTC), succeeded, code (commit, dirty), packages, platform, hardware.

    Args:
        started: ``time.time()`` when the jobs began.
        succeeded: whether all of them did.
    """
    line = {
        "started": time.strftime(STAMP, time.gmtime(started)),
        "ended": time.strftime(STAMP, time.gmtime()),
        "succeeded": succeeded,
        "code": git_commit(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "hardware": observe.hardware(),
    }
    with open(root / NAME, "a", encoding="utf-8") as handle:
        handle.write(canonical_json(line) + "\n")


def read_calls(root: Path) -> list[dict[str, Any]]:
    """The calls that worked in these results, in their order."""
    path = root / NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]
