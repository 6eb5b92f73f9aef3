# Settings, runs and helpers that every rule file uses. Settings are validated here, before any job.
import atexit
import os
import re
import shlex
import sys
import time
from functools import partial
from pathlib import Path

from lesion_core.acquire.registry import require_weights
from lesion_core.errors import LesionError, storage_error
from lesion_core.files import canonical_json, remove_partials
from lesion_core.paths import Layout
from lesion_core.plan.requests import read_rehearsal, requests_of
from lesion_core.plan.work import image_counts
from lesion_core.record.calls import record_call
from lesion_core.record.outputs import NAME as RECORD
from lesion_core.record.provenance import code_hash
from lesion_core.settings import matrix, stored
from lesion_core.settings.load import load, typed
from lesion_core.settings.pretrained import weights_name
from lesion_core.sharing import lock, snapshot
from snakemake.exceptions import WorkflowError

# jobs find `lesion` beside the Python that runs Snakemake, whether its environment is activated or not
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: page faults took a third of a SAM job's time
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

try:
    SETTINGS = load(None, typed(workflow.config_settings.overwrite_config), Path(workflow.basedir))
    RUNS = matrix.expand(SETTINGS)
    require_weights(run.spec for run in RUNS.values())
    PLAN = matrix.plan(SETTINGS)
    HOMES = SETTINGS.homes
    DUMPED = stored.dumped(SETTINGS)
except LesionError as error:
    raise WorkflowError(str(error)) from None

STARTED = time.time()
LAYOUT = Layout(Path("results") / SETTINGS.profile)
if workflow.is_main_process:
    try:
        snapshot.check_store(LAYOUT.root, str(workflow.workflow_settings.persistence_backend))
    except LesionError as error:
        raise WorkflowError(str(error)) from None
DATASETS = [name for name in SETTINGS.data.datasets if name != "custom"]
COMPUTE = SETTINGS.compute
GPU = 0 if COMPUTE.device == "cpu" else 1
SEGMENTERS = {key: run for key, run in RUNS.items() if run.task == "segmentation"}
CLASSIFIERS = {key: run for key, run in RUNS.items() if run.task == "classification"}
JOINT = {key: run for key, run in RUNS.items() if run.task == "joint"}
DERIVED = {key: run for key, run in RUNS.items() if run.task == "derived"}


wildcard_constraints:
    dataset="[a-z0-9_]+",
    home="[A-Za-z0-9_+-]+/(leak_free|as_published)",
    size="[0-9]+",
    run_id="[A-Za-z0-9_+-]+",
    place="segmentation|classification|joint|derived|ablations",
    weights="[a-z0-9_.-]+",


# --- what rules share ---


def lesion(arguments):
    """A shell line: a command of the package on these results, whose log is the rule's."""
    return f"lesion {arguments} --root {shlex.quote(str(LAYOUT.root))} > {{log:q}} 2>&1"


def remade_when(code, command=None):
    """Parameters of a rule whose change runs it anew: what its command reads of the settings, and its code.

    Comments and docstrings of the code do not count.
    """
    settings = stored.trigger(DUMPED, command) if command else {}
    return {
        "settings": canonical_json(settings),
        "code": [code_hash(f"lesion_core.{module}") for module in code.split()],
    }


LARGE = {"mem_mb": COMPUTE.memory_mb, "runtime": COMPUTE.runtime_minutes}


def computing(gpus=1):
    """What a job that runs networks asks of a scheduler."""
    return {"gpu": GPU * gpus, "gpu_memory_mb": COMPUTE.gpu_memory_mb, **LARGE}


REHEARSED = read_rehearsal(COMPUTE.rehearsal)
IMAGES = image_counts(SETTINGS)


def training(ids):
    """What a job that trains asks for: of each kind what a rehearsal measured, where there is one."""
    if not REHEARSED:
        return computing(COMPUTE.processes)

    def asked(name):
        def amount(wildcards, attempt):
            found = [requests_of(RUNS[key], RUNS, REHEARSED, IMAGES, COMPUTE)[name] for key in named(ids, wildcards)]
            return attempt * (sum(found) if name == "runtime" else max(found))

        return amount

    measured = {name: asked(name) for name in ("mem_mb", "gpu_memory_mb", "runtime")}
    return computing(COMPUTE.processes) | measured


def shown_in_report(path, caption, category, **options):
    """An output that `snakemake --report` shows, with its caption in workflow/report."""
    return report(path, caption=f"../report/{caption}.rst", category=category, **options)


def log_of(name):
    return str(LAYOUT.log(name))


def benchmark_of(name):
    return str(LAYOUT.benchmark(name))


# --- runs and their files ---


def run_dir(run):
    return LAYOUT.run(run.place, run.run_id)


def weights_of(run):
    return run_dir(run) / "weights.safetensors"


def pixels(run, datasets, size):
    """Files of harmonized datasets at one size, as a run sees them."""
    return [
        LAYOUT.pixels(run.pixels, dataset, size) / name
        for dataset in sorted(set(datasets))
        for name in ("images.npy", "masks.npy", "index.csv")
    ]


def reference_of(home):
    """The reference histogram of a folder of pixels, where one is specified."""
    return [LAYOUT.reference(home)] if HOMES.materials[home].harmonization.histogram == "specification" else []


def foundation(run):
    """SAM's weights of a segmentation run, whose frozen parts every use of it needs."""
    backbone = run.spec.model.backbone
    return [LAYOUT.weights(backbone)] if backbone else []


def published(run):
    """The weights that a run's training starts from."""
    name = weights_name(run.spec.model)
    return [LAYOUT.weights(name)] if name else []


def reads_pseudo_masks(run):
    """Whether a classification or joint run learns from a segmenter's masks."""
    if run.task == "joint":
        return run.spec.segmentation_from == "pseudo_masks"
    return run.segmenter_run is not None


def masks_for(run, datasets):
    """Pseudo-masks that a classification or joint run reads."""
    if not reads_pseudo_masks(run):
        return []
    folders = [LAYOUT.pseudo_masks(run.segmenter_run, dataset) for dataset in sorted(set(datasets))]
    return [folder / name for folder in folders for name in ("probabilities.npy", "masks.csv")]


def joint_parts(run):
    """Segmenter, classifier, and the files both need to be loaded."""
    segmenter, classifier = RUNS[run.segmenter_run], RUNS[run.classifier_run]
    files = [
        run_dir(part) / name for part in (segmenter, classifier) for name in ("settings.yaml", "weights.safetensors")
    ]
    return segmenter, classifier, [*files, *foundation(segmenter)]


# --- jobs of runs ---

WAITING = matrix.chain_lengths(RUNS.values())


def jobs_of(kind, runs, inputs):
    """How runs of one kind are shared out to jobs: (name of the rule, ids of its runs, priority).

    Where a job takes one run (compute.runs_per_job: null), one rule whose wildcard is the run's id. Else a rule for each
    batch: runs that read the same files, and each run that others wait for by itself. Long chains come first.

    Args:
        kind: the rule's name, or what the names of the batches' rules begin with.
        runs: by id.
        inputs: a run -> the files that it reads; or what else tells which runs go together.
    """
    if COMPUTE.runs_per_job is None:
        return [(kind, ["{run_id}"], priority(*runs))] if runs else []
    alike = {key: (key,) if WAITING[key] else tuple(map(str, inputs(run))) for key, run in runs.items()}
    found = matrix.batches(alike, COMPUTE.runs_per_job)
    return [(f"{kind}_{number}", ids, priority(*ids)) for number, ids in enumerate(found, 1)]


def priority(*ids):
    """Of a job that others wait for as long as for the training of one of these runs."""
    return 10 + 10 * max(WAITING[key] for key in ids)


def folders_of(ids):
    """Folders of a job's runs; with wildcards where its run is one."""
    return [LAYOUT.run(RUNS[key].place, key) if key in RUNS else LAYOUT.run("{place}", key) for key in ids]


def named(ids, wildcards):
    """The ids of a job's runs."""
    return [key.format(**wildcards) for key in ids]


def read_by(inputs, ids, wildcards):
    """What a job's runs read."""
    return sorted({str(path) for key in named(ids, wildcards) for path in inputs(RUNS[key])})


def job_name(kind, rule):
    """Of a job's log and benchmark: they lie in a folder for each kind."""
    return f"{kind}/{{place}}/{{run_id}}" if rule == kind else f"{kind}/{rule.removeprefix(kind)[1:]}"


def one_of(runs):
    """Wildcard constraint: ids of these runs alone, since ablations of all tasks share a folder."""
    return "|".join(map(re.escape, runs)) or "none"


# --- the call ---


def begin():
    """One call at a time in a results folder, and its settings for the jobs; the lock dies with this process."""
    try:
        atexit.register(lock.hold(LAYOUT.root).release)
        remove_partials(LAYOUT.root)
        stored.store(SETTINGS, LAYOUT.root)
    except (LesionError, OSError) as error:
        told = error if isinstance(error, LesionError) else storage_error(error)
        if told is None:
            raise
        raise WorkflowError(str(told)) from None


def save_records(succeeded):
    """Keep what is known of this call; where the disk takes no more, say so: a job's log may have had no room."""
    try:
        record_call(LAYOUT.root, STARTED, succeeded=succeeded)
    except OSError as error:
        told = storage_error(error)
        if told is None:
            raise
        if succeeded:
            raise WorkflowError(f"{type(told).__name__}: {told}") from None
        print(f"error: {type(told).__name__}: {told}", file=sys.stderr)
