# Settings, runs and helpers that every rule file uses. Settings are validated here, before any job.
import atexit
import os
import re
import sys
import time
from pathlib import Path

from lesion_core.settings import load as settings_reader
from lesion_core.sharing import lock, snapshot
from lesion_core.record.calls import record_call
from lesion_core.errors import LesionError, storage_error
from lesion_core.files import canonical_json, remove_partials
from lesion_core.record.observe import RECORD as OPENED
from lesion_core.paths import Layout
from lesion_core.record.provenance import code_hash
from snakemake.exceptions import WorkflowError

# jobs find `lesion` beside the Python that runs Snakemake, whether its environment is activated or not
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: page faults took a third of a SAM job's time
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

try:
    SETTINGS = settings_reader.load(overrides=settings_reader.typed(workflow.config_settings.overwrite_config))
    RUNS = settings_reader.expand(SETTINGS)
    PLAN = settings_reader.plan(SETTINGS)
except LesionError as error:
    raise WorkflowError(str(error)) from None

STARTED = time.time()
LAYOUT = Layout(Path("results") / SETTINGS.profile)
# After a clone, a copy or a pull: by content, files that are as recorded count as made when they were made.
if workflow.is_main_process:
    snapshot.restore(LAYOUT.root)
    try:
        snapshot.catch_up(LAYOUT.root, LAYOUT.manifest)
    except OSError as error:  # a reviewer's read-only copy, say: there is nothing to lose
        print(f"warning: {storage_error(error) or error}", file=sys.stderr)
DATASETS = [name for name in SETTINGS.data.datasets if name != "custom"]
DEVICE = SETTINGS.compute.device
GPU = 0 if DEVICE == "cpu" else 1
SEGMENTERS = {key: run for key, run in RUNS.items() if run.task == "segmentation"}
CLASSIFIERS = {key: run for key, run in RUNS.items() if run.task == "classification"}
JOINT = {key: run for key, run in RUNS.items() if run.task == "joint"}
DERIVED = {key: run for key, run in RUNS.items() if run.task == "derived"}


wildcard_constraints:
    dataset="[a-z0-9_]+",
    size="[0-9]+",
    run_id="[A-Za-z0-9_+-]+",
    place="segmentation|classification|joint|derived|ablations",
    weights="[a-z0-9_]+",


def given(*names):
    """Sections of the settings as JSON: what a rule declares is all that its command gets."""
    full = {**SETTINGS.model_dump(mode="json"), "plan": PLAN.model_dump(mode="json")}
    return canonical_json({name: full[name] for name in names})


def given_run(wildcards, *names):
    """One run's settings as JSON, and sections beside them."""
    full = SETTINGS.model_dump(mode="json")
    return canonical_json(
        {"run": RUNS[wildcards.run_id].model_dump(mode="json"), **{name: full[name] for name in names}}
    )


def code(module):
    """Identity of the code behind a rule: comments and docstrings do not count."""
    return code_hash(f"lesion_core.{module}")


def log_of(name):
    return str(LAYOUT.root / "logs" / f"{name}.txt")


def benchmark_of(name):
    return str(LAYOUT.root / "benchmarks" / f"{name}.tsv")


def run_dir(run):
    return LAYOUT.run(run.place, run.run_id)


ANY_RUN = LAYOUT.run("{place}", "{run_id}")


def one_of(runs):
    """Wildcard constraint: ids of these runs alone, since ablations of all tasks share a folder."""
    return "|".join(map(re.escape, runs)) or "none"


def run_outputs():
    """What a training job leaves; the checkpoint is no output, so that it survives an interrupted job."""
    folder = ANY_RUN
    return {
        "settings": folder / "settings.yaml",
        "weights": folder / "weights.safetensors",
        "history": folder / "history.csv",
        "provenance": folder / "provenance.json",
    }


def harmonized(datasets, size):
    """Files of harmonized datasets at one size."""
    return [
        LAYOUT.harmonized(dataset, size) / name
        for dataset in sorted(set(datasets))
        for name in ("images.npy", "masks.npy", "index.csv")
    ]


def foundation(run):
    """Foundation weights of a segmentation run."""
    backbone = run.spec.model.backbone
    return [LAYOUT.weights(backbone)] if backbone else []


def segmenter_of(run):
    return RUNS[run.segmenter_run]


def save_records(succeeded):
    """Keep Snakemake's notes and this call's; where the disk takes no more, say so: a job's log may have had no room.

    A call whose notes cannot be kept has not succeeded: without them a clone would compute everything anew.
    """
    try:
        snapshot.save(LAYOUT.root)
        record_call(LAYOUT.root, STARTED, succeeded=succeeded)
    except OSError as error:
        told = storage_error(error)
        if told is None:
            raise
        if succeeded:
            raise WorkflowError(f"{type(told).__name__}: {told}") from None
        print(f"error: {type(told).__name__}: {told}", file=sys.stderr)


def hold_lock():
    """One run at a time in a results folder; the lock dies with this process, however it ends."""
    try:
        atexit.register(lock.hold(LAYOUT.root).close)
    except (LesionError, OSError) as error:
        told = error if isinstance(error, LesionError) else storage_error(error)
        if told is None:
            raise
        raise WorkflowError(str(told)) from None
    remove_partials(LAYOUT.root)
