"""Commands that train, predict and score."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from lesion_core.cli.options import Device, Given, Out, Profile, Root, RunDir, Side, one_run, ready, settings_of

Kind = Literal["segmentation", "classification"]
MatrixRun = Annotated[str | None, typer.Option("--run", help="A run of the matrix, by id.")]


def runs(profile: Profile = None) -> None:
    """The experiment matrix, expanded: one line per run."""
    from lesion_core.settings import load as config

    for run in config.expand(config.load(profile)).values():
        typer.echo(f"{run.task:<15} {run.run_id}")


def train(
    root: Root,
    run_id: MatrixRun = None,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Train one run; goes on from its last checkpoint if it was interrupted.

    With compute.processes above 1 it starts that many processes here; torchrun may start them in its stead.
    """
    from lesion_core.record import observe

    observe.begin()
    run = one_run(settings, profile, run_id)
    os.environ["OMP_NUM_THREADS"] = str(run.threads)
    from importlib import import_module

    from lesion_core.files import canonical_json
    from lesion_core.training.gpus import take_gpus
    from lesion_core.training.launch import demand_processes, launch, launched, process_rank, watch_launcher

    demand_processes(run.processes)
    if launched() and not run.spec.training.epochs:
        # Nothing to share: the first one writes, alone.
        if process_rank() > 0:
            return
        del os.environ["WORLD_SIZE"]
    elif run.processes > 1 and run.spec.training.epochs and not launched():
        given = canonical_json({"run": run.model_dump(mode="json")})
        options = ["--root", str(root), "--device", device, "--settings", given]
        if device != "cpu":
            take_gpus(run.processes)
        launch([sys.executable, "-m", "lesion_core.cli", "train", *options], run.processes)
        return
    watch_launcher()

    from lesion_core.paths import Layout
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.distributed import leave, process_group
    from lesion_core.training.engine import resolve_device

    make_deterministic(run.threads)
    module = import_module(f"lesion_core.training.{run.task}")
    device = resolve_device(device)
    with process_group(device):
        module.train_run(run, Layout(root).run(run.place, run.run_id), root, device)
    leave()


def pretrain(
    out: Out,
    work: Annotated[Path, typer.Option("--work", help="Folder for the made images, checkpoints and history.")],
    settings: Given = None,
    profile: Profile = None,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
    device: Device = "auto",
) -> None:
    """Train sam_vit_t, the embedded foundation model, on made images."""
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device
    from lesion_core.training.pretrain import pretrain as run_pretraining

    make_deterministic(threads)
    run_pretraining(settings_of(settings, profile).pretrain, out, work, device=resolve_device(device), threads=threads)


def pseudo_masks(
    run_dir: Annotated[Path, typer.Option("--segmenter", help="A segmentation run's folder.")],
    dataset: str,
    root: Root,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """A segmenter's masks for a whole dataset."""
    from lesion_core.record import observe

    observe.begin()
    from lesion_core.inference.pseudo_masks import write_pseudo_masks
    from lesion_core.models.trained import load_segmenter
    from lesion_core.paths import Layout
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    given = settings_of(settings, profile)
    segmenter = load_segmenter(run_dir, device=resolve_device(device))
    make_deterministic(segmenter.run.threads)
    layout = Layout(root)
    out = layout.pseudo_masks(segmenter.run.run_id, dataset)
    write_pseudo_masks(
        segmenter,
        layout.harmonized(dataset, segmenter.size),
        out,
        batch_size=given.scoring.batch_size,
        device=resolve_device(device),
    )
    observe.record_opened(out / observe.RECORD, root)


def audit_pseudo_masks(
    run_id: Annotated[str, typer.Option("--segmenter", help="A segmentation run's id.")],
    dataset: str,
    size: Side,
    root: Root,
    settings: Given = None,
    profile: Profile = None,
) -> None:
    """Dice and IoU of pseudo-masks against published masks, by class and site."""
    from lesion_core.inference.pseudo_mask_audit import audit_pseudo_masks as audit

    audit(run_id, dataset, size, root, settings_of(settings, profile).statistics)


def score(
    task: Kind,
    run_dir: RunDir,
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Score a run on the test images: TASK is segmentation or classification."""
    scoring = settings_of(settings, profile).scoring
    run, device = ready(run_dir, device)
    if task == "segmentation":
        from lesion_core.inference.score_segmentation import score_segmentation
        from lesion_core.models.trained import load_segmenter

        segmenter = load_segmenter(run_dir, device=device)
        score_segmentation(segmenter, run, root, scoring, out, run_dir / "test_masks.zip", device=device)
    else:
        from lesion_core.inference.score_classification import score_classification

        score_classification(run_dir, run, root, scoring, out, device=device)


def score_derived(
    root: Root,
    out: Out,
    run_id: MatrixRun = None,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Score a run that trains nothing: test-time augmentation, or an ensemble of seeds."""
    from lesion_core.errors import RunError
    from lesion_core.inference.score_derived import score_derived as score_run
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    run, scoring = one_run(settings, profile, run_id), settings_of(settings, profile).scoring
    if run.task != "derived":
        raise RunError(f"{run.run_id} is a {run.task} run", remedy="give a derived run, or call `lesion score`")
    make_deterministic(run.threads)
    score_run(run, root, scoring, out, device=resolve_device(device))


def explain(
    run_dir: RunDir,
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Where a run looks on test images: Grad-CAM and attention roll-out against the true masks."""
    from lesion_core.explain.score import explain_run

    given = settings_of(settings, profile)
    run, device = ready(run_dir, device)
    explain_run(run_dir, run, root, given.explain, given.scoring, out, device=device)


def robustness(
    run_dir: RunDir,
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Accuracy and calibration of a run on corrupted test photographs."""
    from lesion_core.record import observe

    observe.begin()
    from lesion_core.inference.robustness import measure_robustness

    given = settings_of(settings, profile)
    run, device = ready(run_dir, device)
    measure_robustness(run_dir, run, root, given.scoring.classification_on, given.robustness, out, device=device)
    observe.record_opened(out.with_suffix(f".{observe.RECORD}"), root)


def gather_robustness(out: Out, tables: Annotated[list[Path] | None, typer.Argument()] = None) -> None:
    """Join the runs' robustness tables."""
    from lesion_core.inference.robustness import gather_robustness as join

    join(tables or [], out)


def gather(kind: Kind, out: Out, scores: list[Path]) -> None:
    """Join the runs' scores into one store: KIND is segmentation or classification."""
    from lesion_core.scores import gather as join

    join(scores, kind, out)


def predict(
    segmenter: Annotated[Path, typer.Option("--segmenter", help="A segmentation or joint run's folder.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of photographs of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and predictions.csv.")],
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="A classification or joint run's folder.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="CSV of image_id, age, sex, site, for classifiers that read them.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Masks (and classes) for your own photographs."""
    from lesion_core.inference.predict import list_photographs, predict_folder
    from lesion_core.models.trained import load_segmenter
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    list_photographs(images)
    device = resolve_device(device)
    loaded = load_segmenter(segmenter, device=device)
    make_deterministic(loaded.run.threads)
    classify = None
    if classifier is not None:
        from lesion_core.inference.photograph import photograph_classifier
        from lesion_core.settings.run import Run

        made_by = Run.load(segmenter).run_id
        classify = photograph_classifier(classifier, device, metadata=metadata, segmenter_run=made_by)
    predict_folder(loaded, images, out, classify=classify, device=device)


COMMANDS = (
    runs,
    train,
    pretrain,
    pseudo_masks,
    audit_pseudo_masks,
    score,
    score_derived,
    explain,
    robustness,
    gather_robustness,
    gather,
    predict,
)
