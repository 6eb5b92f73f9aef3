"""Commands that train, predict and score."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lesion_core.cli.options import Dataset, Device, Profile, Root, RunIds, runs_and_sections, sections

if TYPE_CHECKING:
    from lesion_core.inference.segments import Classifies, Segments

RunId = Annotated[str, typer.Argument(help="`lesion runs` lists them.")]


def runs(profile: Profile = None) -> None:
    """The experiment matrix, expanded: one line per run."""
    from lesion_core.settings.load import load
    from lesion_core.settings.matrix import expand

    for run in expand(load(profile)).values():
        typer.echo(f"{run.task:<15} {run.run_id}")


def train(
    run_ids: RunIds,
    root: Root,
    profile: Profile = None,
    device: Device = None,
    log: Annotated[bool, typer.Option("--log", help="Speak to log.txt in each run's folder, not here.")] = False,
) -> None:
    """Train runs, one after the other; each goes on from its last checkpoint if it was interrupted.

    The checkpoints are deleted when all of the runs are done. With compute.processes above 1 torchrun starts the job.
    """
    from functools import partial
    from importlib import import_module

    from lesion_core.errors import RunError
    from lesion_core.inference.rehearse import rehearse_prediction
    from lesion_core.record import observe
    from lesion_core.training.device import first_process, job_device
    from lesion_core.training.run import delete_checkpoints, train_on

    found, folders, given = runs_and_sections("train", run_ids, root, profile)
    if derived := [run.run_id for run in found if run.task == "derived"]:
        remedy = "`lesion score` them: they average the predictions of trained runs"
        raise RunError("These runs have nothing to train", ids=derived, remedy=remedy)
    for run, folder in zip(found, folders, strict=True):
        if log and first_process():
            _speak_to(folder / "log.txt")
        observe.begin()
        module = import_module(f"lesion_core.training.{run.task}")
        chosen = job_device(device or given.compute.device)
        if given.rehearsal is not None and chosen == "cpu":
            observe.limit_memory()
        train_on(partial(module.train_run, run, folder, root, chosen))
        if given.rehearsal is not None and first_process():
            rehearse_prediction(run, folder, root, chosen)
    delete_checkpoints(folders)


def _speak_to(path: Path) -> None:
    """Everything that this process and its children say from now on goes to a file, made anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "w", encoding="utf-8") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)


def pretrain(
    out: Annotated[Path, typer.Option("--out", help="What is written.")],
    work: Annotated[Path, typer.Option("--work", help="Folder for the synthetic images, checkpoints and history.")],
    root: Root,
    profile: Profile = None,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
    device: Device = None,
) -> None:
    """Train sam_vit_t, the embedded foundation model, on synthetic images."""
    from lesion_core.training.device import job_device
    from lesion_core.training.pretrain import pretrain as run_pretraining

    given = sections("pretrain", root, profile)
    chosen = job_device(device or given.compute.device)
    run_pretraining(given.pretrain, out, work, device=chosen, threads=threads)


def pseudo_masks(run_id: RunId, dataset: Dataset, root: Root, profile: Profile = None, device: Device = None) -> None:
    """A segmenter's masks for a whole dataset."""
    from lesion_core.inference.pseudo_masks import write_pseudo_masks
    from lesion_core.models.trained import load_segmenter
    from lesion_core.paths import Layout
    from lesion_core.record import observe, outputs
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.device import job_device

    observe.begin()
    [run], [folder], given = runs_and_sections("pseudo-masks", [run_id], root, profile)
    make_deterministic(run.threads)
    chosen, layout = job_device(device or given.compute.device), Layout(root)
    segmenter, out = load_segmenter(folder, device=chosen), layout.pseudo_masks(run_id, dataset)
    pixels = layout.pixels(segmenter.run.pixels, dataset, segmenter.size)
    write_pseudo_masks(segmenter, pixels, out, batch_size=given.scoring.batch_size)
    outputs.record_job(out / outputs.NAME, root, outputs.arrays_of(out))


def audit_pseudo_masks(run_id: RunId, dataset: Dataset, root: Root, profile: Profile = None) -> None:
    """Dice and IoU of pseudo-masks against published masks, by class and site."""
    from lesion_core.inference.pseudo_mask_audit import audit_pseudo_masks as audit

    [run], _, given = runs_and_sections("audit-pseudo-masks", [run_id], root, profile)
    audit(run, dataset, root, given.statistics)


def score(run_ids: RunIds, root: Root, profile: Profile = None, device: Device = None) -> None:
    """Score runs on the test images, one after the other."""
    from lesion_core.inference.expected_dice import calibrate_confidence
    from lesion_core.inference.score_classification import score_classification
    from lesion_core.inference.score_derived import score_derived
    from lesion_core.inference.score_segmentation import score_segmentation
    from lesion_core.models.trained import load_segmenter
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.device import job_device

    found, folders, given = runs_and_sections("score", run_ids, root, profile)
    chosen = job_device(device or given.compute.device)
    for run, folder in zip(found, folders, strict=True):
        make_deterministic(run.threads)
        joint = run.task == "joint"
        if run.task == "derived":
            score_derived(run, root, given.scoring, folder / "scores.parquet", device=chosen)
        if joint or run.task == "segmentation":
            segmenter, masks = load_segmenter(folder, device=chosen), folder / "test_masks.zip"
            out = folder / ("scores_segmentation.parquet" if joint else "scores.parquet")
            score_segmentation(segmenter, run, root, given.scoring, out, masks, device=chosen)
            calibrate_confidence(segmenter, folder, batch_size=given.scoring.batch_size)
        if joint or run.task == "classification":
            out = folder / ("scores_classification.parquet" if joint else "scores.parquet")
            score_classification(folder, run, root, given.scoring, out, device=chosen)


def explain(run_id: RunId, root: Root, profile: Profile = None, device: Device = None) -> None:
    """Where a run looks on test images: Grad-CAM and attention roll-out against the true masks."""
    from lesion_core.explain.score import explain_run
    from lesion_core.paths import Layout
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.device import job_device

    [run], [folder], given = runs_and_sections("explain", [run_id], root, profile)
    make_deterministic(run.threads)
    chosen, out = job_device(device or given.compute.device), Layout(root).explained(run_id, "csv")
    explain_run(folder, run, root, given.explain, given.scoring, out, device=chosen)


def robustness(run_id: RunId, root: Root, profile: Profile = None, device: Device = None) -> None:
    """Accuracy and calibration of a run on corrupted test images."""
    from lesion_core.inference.robustness import measure_robustness
    from lesion_core.paths import Layout
    from lesion_core.record import observe, outputs
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.device import job_device

    observe.begin()
    [run], [folder], given = runs_and_sections("robustness", [run_id], root, profile)
    make_deterministic(run.threads)
    chosen, out = job_device(device or given.compute.device), Layout(root).robustness(run_id)
    measure_robustness(folder, run, root, given.scoring.classification_on, given.robustness, out, device=chosen)
    outputs.record_job(out.with_suffix(f".{outputs.NAME}"), root, [out])


def gather_robustness(
    out: Annotated[Path, typer.Option("--out", help="What is written.")],
    tables: Annotated[list[Path] | None, typer.Argument()] = None,
) -> None:
    """Join the runs' robustness tables."""
    from lesion_core.inference.robustness_table import gather_robustness as join

    join(tables or [], out)


def gather(
    kind: Literal["segmentation", "classification"],
    out: Annotated[Path, typer.Option("--out", help="What is written.")],
    scores: Annotated[list[Path] | None, typer.Argument()] = None,
) -> None:
    """Join the runs' scores into one store: KIND is segmentation or classification. Without scores it is empty."""
    from lesion_core.scores import gather as join

    join(scores or [], kind, out)


def predict(
    images: Annotated[Path, typer.Option("--images", help="Folder of images of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and predictions.csv.")],
    segmenter: Annotated[Path | None, typer.Option("--segmenter", help="A segmentation or joint run's folder.")] = None,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="In its place a file of `lesion export`; needs no torch.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="A classification or joint run's folder.")
    ] = None,
    classifier_onnx: Annotated[
        Path | None, typer.Option("--classifier-onnx", help="In its place a file of `lesion export`; needs no torch.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="CSV of image_id, age, sex, site, for classifiers that read them.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Name images that cannot be read in predictions.csv, and go on.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also the images with the outline drawn.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also probability maps, 0 to 255.")] = False,
    flips: Annotated[
        bool,
        typer.Option("--flips", help="Also how far masks of flipped images differ; takes four times as long."),
    ] = False,
    mm_per_pixel: Annotated[
        float | None, typer.Option("--mm-per-pixel", help="Side of a pixel in mm: areas in mm2 too.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Images at a time. Default: one for each core.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Masks (and classes) for your own images, subfolders too. For research only, not for diagnosis."""
    from lesion_core.errors import SettingsError
    from lesion_core.inference.own_images import list_images
    from lesion_core.inference.own_outputs import Extras

    image_ids = list(list_images(images))
    if (segmenter is None) == (onnx is None):
        raise SettingsError("Masks need one segmenter", remedy="give either --segmenter RUN or --onnx FILE")
    if classifier is not None and classifier_onnx is not None:
        raise SettingsError("Two classifiers", remedy="give either --classifier RUN or --classifier-onnx FILE")
    if metadata is not None and classifier is None and classifier_onnx is None:
        raise SettingsError("--metadata is read by classifiers", remedy="add --classifier, or leave --metadata out")
    extras = Extras(overlay, probabilities, flips, mm_per_pixel)
    decisive = [path for path in (onnx, classifier_onnx, metadata) if path is not None]

    from lesion_core.files import sha256_file
    from lesion_core.inference.exported import ExportedClassifier, ExportedSegmenter
    from lesion_core.inference.one_image import image_classifier
    from lesion_core.inference.predict import predict_folder

    segments: Segments
    classifies: Classifies | None = None
    unlikeness = None
    if onnx is not None:
        segments = ExportedSegmenter(onnx)
        masks_of, expected = segments.made_from, segments.expected
    else:
        assert segmenter is not None
        from lesion_core.inference.expected_dice import expected_dice_of
        from lesion_core.inference.unlike import unlikeness_of
        from lesion_core.models.trained import load_segmenter  # torch takes seconds
        from lesion_core.settings.run import Run
        from lesion_core.training.device import job_device

        segments, masks_of = load_segmenter(segmenter, device=job_device(device or "auto")), Run.load(segmenter).run_id
        unlikeness, expected = unlikeness_of(segments, segmenter), expected_dice_of(segmenter)
    if classifier_onnx is not None:
        classifies = ExportedClassifier(classifier_onnx)
    elif classifier is not None:
        from lesion_core.inference.classify import RunClassifier
        from lesion_core.training.device import job_device

        classifies = RunClassifier(classifier, job_device(device or "auto"))
    if segmenter is not None or classifier is not None:
        from lesion_core.inference.classify import SCORES
        from lesion_core.seeding import make_deterministic

        make_deterministic(segments.run.threads)
        names = ("settings.yaml", "weights.safetensors", *SCORES.values())  # of scores the temperature
        folders = [folder for folder in (segmenter, classifier) if folder is not None]
        decisive += [folder / name for folder in folders for name in names if (folder / name).is_file()]
    classify = None
    if classifies is not None:
        classify = image_classifier(classifies, metadata=metadata, image_ids=image_ids, segmenter_run=masks_of)
    predict_folder(
        segments,
        images,
        out,
        classify=classify,
        skip_broken=skip_broken,
        extras=extras,
        made_by={str(path): sha256_file(path) for path in decisive},
        unlikeness=unlikeness,
        expected=expected,
        workers=workers,
    )


def serve(
    segmenter: Annotated[Path, typer.Argument(metavar="RUN", help="A segmentation or joint run's folder.")],
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="A classification or joint run's folder.")
    ] = None,
    corrector: Annotated[
        Path | None,
        typer.Option("--corrector", help="A SAM run's folder, for clicks and boxes. Default: RUN, if it is one."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Another address lets the network in; there is no login.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8700,
    device: Device = "auto",
) -> None:
    """A page to try a run on your own images. For research only, not for diagnosis."""
    from lesion_core.inference.classify import RunClassifier
    from lesion_core.inference.one_image import image_classifier
    from lesion_core.inference.unlike import unlikeness_of
    from lesion_core.models.trained import load_segmenter
    from lesion_core.seeding import make_deterministic
    from lesion_core.serve.app import serve as answer
    from lesion_core.serve.outlines import Outliner
    from lesion_core.training.device import job_device

    chosen = job_device(device or "auto")
    loaded = load_segmenter(segmenter, device=chosen)
    make_deterministic(loaded.run.threads)
    corrects = loaded if corrector is None and loaded.settings.kind == "sam" else None
    if corrector is not None:
        corrects = load_segmenter(corrector, device=chosen)
    classify = None
    if classifier is not None:
        classify = image_classifier(RunClassifier(classifier, chosen), segmenter_run=loaded.run.run_id)
    outliner = Outliner(loaded, corrects, classify, unlikeness_of(loaded, segmenter))
    typer.echo(f"http://{host}:{port}  for research only, not for diagnosis; Ctrl-C ends it")
    answer(outliner, host, port)


FOR_PEOPLE = (predict, serve, runs)
FOR_RULES = (
    train,
    score,
    pseudo_masks,
    audit_pseudo_masks,
    explain,
    robustness,
    gather_robustness,
    gather,
    pretrain,
)
