"""Two processes of a test module, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def torchrun(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``python script arguments`` in two processes on this machine; never raises."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    return subprocess.run([*command, *map(str, arguments)], env=environment, capture_output=True, text=True)
