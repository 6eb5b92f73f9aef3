"""What a checkpoint depends on beside the settings that the engine sees: run id, content of inputs, code, packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lesion_core.files import canonical_json, sha256_file, sha256_text
from lesion_core.record.outputs import INDEXES, array_digests
from lesion_core.record.provenance import STAGES, code_hash, computing_versions
from lesion_core.settings.run import Run


def input_identity(run: Run, inputs: Iterable[Path]) -> str:
    """SHA-256 over the run's id, the inputs' bytes, and the pixels and masks beside each index among them.

    The code that trains is part of it (comments and docstrings are not), and so are the packages that compute: epochs
    of older code must not end in a run whose provenance names the newer.
    """
    content = [
        [path.name, sha256_file(path), array_digests(path.parent) if path.name in INDEXES else {}]
        for path in map(Path, inputs)
    ]
    code = code_hash(STAGES.get(run.task, f"lesion_core.training.{run.task}"))
    return sha256_text(canonical_json([run.run_id, content, code, computing_versions()]))
