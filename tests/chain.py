"""Calls of the whole chain over a small matrix: the tiny one, or with LESION_WHOLE=1 the whole smoke profile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lesion_core.audit.manifest import read_manifest
from lesion_core.files import read_json

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "tests" / "tiny" / "tiny.yaml"
WHOLE = os.environ.get("LESION_WHOLE") == "1"
# --config stands last: tests add settings behind it
SMOKE = ("--config", "profile=smoke")
MATRIX = SMOKE if WHOLE else ("--configfile", str(TINY), *SMOKE)
# a job in what `--dry-run --printshellcmds` says, its fields, and a rule in a rule file
JOB = re.compile(
    r"^(?:local)?rule (?P<rule>\w+):\n(?P<fields>(?:    .*\n)*)(?:Shell command: (?P<command>.*)\n)?", re.MULTILINE
)
FIELD = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)
PATIENCE = 3 * 3600 if WHOLE else 900
ROOT = Path("results") / "smoke"


@dataclass(frozen=True)
class Finished:
    """A folder in which the matrix has run to its end, and the seconds that it took."""

    folder: Path
    seconds: float


def command(cores: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", str(cores), "--resources", "gpu=1", *MATRIX, *arguments]


def run(folder: Path, cores: int, *arguments: str) -> str:
    """Run the matrix there, which must succeed; what was said."""
    done = subprocess.run(
        command(cores, *arguments), cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def lesion(folder: Path, *arguments: object) -> str:
    """Run a command of the package there, which must succeed; what it said."""
    call = [sys.executable, "-m", "lesion_core.cli", *map(str, arguments)]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def products(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of everything that the finished pipeline vouches for."""
    return read_manifest(folder / ROOT).products


def snapshot_files(folder: Path) -> set[str]:
    """What a clone's first call can find to be done already."""
    return set(read_json(folder / ROOT / "snapshot.json"))


def job_seconds(folder: Path) -> float:
    """What all jobs took there, one after the other, by Snakemake's benchmarks."""
    files = (folder / ROOT / "benchmarks").rglob("*.tsv")
    return sum(float(path.read_text().splitlines()[1].split("\t")[0]) for path in files)


def planned_jobs(said: str) -> dict[str, int]:
    """Rule, without the number of a batch -> jobs, out of Snakemake's table; empty where nothing is to be done."""
    if "Job stats" not in said:
        return {}
    table = said.split("Job stats:")[1].split("total")[0]
    counts: Counter[str] = Counter()
    for name, count in re.findall(r"^(\w+?)(?:_\d+)?\s+(\d+)\s*$", table, flags=re.MULTILINE):
        counts[name] += int(count)
    return dict(counts)


def kill_all(session: int) -> Counter[str]:
    """Kill -9 a whole session: Snakemake, its shells and its jobs. How many of which `lesion` commands died."""
    struck: Counter[str] = Counter()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    os.kill(int(entry.name), signal.SIGKILL)
                    # a shell has its whole line as one word, so that jobs count once
                    if len(words) > 2 and words[1].endswith(b"/lesion"):
                        struck[words[2].decode()] += 1
            except (ProcessLookupError, FileNotFoundError, PermissionError):
                continue
    return struck
