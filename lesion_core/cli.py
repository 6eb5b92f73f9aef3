"""The command line: one subcommand per rule, ``lesion predict``, and the one reader of params.yaml in Python.

A rule hands a command exactly the sections it declares (``--settings`` JSON); a person leaves that out and the
command reads params.yaml with ``--profile``. Everything is imported inside the commands: ``--help`` must be instant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lesion_core.cli_checks import feasible, feasible_effect, feasible_rates, trace
from lesion_core.cli_sharing import audit, crate, dvc_stages, manifest, plan, summary

if TYPE_CHECKING:
    from lesion_core.runs import Run

# Before torch is imported: huge pages, as for the jobs of the workflow; page faults took a third of a SAM job's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Skin-lesion segmentation and classification, from download to a verdict on each published claim.",
)

Given = Annotated[
    str | None,
    typer.Option("--settings", help="Sections of the settings as JSON (rules use this); default: params.yaml."),
]
Profile = Annotated[str | None, typer.Option("--profile", help="smoke, mini or paper; default: params.yaml's.")]
Root = Annotated[Path, typer.Option("--root", help="Results folder, results/<profile>.")]
Out = Annotated[Path, typer.Option("--out", help="What is written.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


def _settings(given: str | None, profile: str | None) -> Any:
    from lesion_core import config

    if given is not None:
        return config.sections(given)
    settings = config.load(profile)
    object.__setattr__(settings, "plan", config.plan(settings))
    return settings


def _one_run(given: str | None, profile: str | None, run_id: str | None) -> Run:
    from lesion_core import config
    from lesion_core.errors import SettingsError

    if given is not None:
        return config.sections(given).run
    runs = config.expand(config.load(profile))
    if run_id not in runs:
        raise SettingsError(f"run '{run_id}' is not in the matrix", ids=runs, remedy="take one of these ids")
    return runs[run_id]


@app.command()
def synthetic(out: Out, settings: Given = None, profile: Profile = None) -> None:
    """Draw made images and pack them as the official archives."""
    from lesion_core.data.synthetic import write_mirror
    from lesion_core.errors import SettingsError

    section = _settings(settings, profile).synthetic
    if section is None:
        raise SettingsError("synthetic: this profile has no made images", remedy="use --profile smoke")
    write_mirror(section, out)


@app.command()
def download(dataset: str, out: Out, settings: Given = None, profile: Profile = None) -> None:
    """Fetch and verify a dataset's files, from the mirror or the official addresses."""
    from lesion_core.data.download import fetch_dataset

    given = _settings(settings, profile)
    fetch_dataset(
        dataset,
        out,
        mirror=given.mirror,
        ph2=given.data.ph2,
        retries=given.data.retries,
        timeout=given.data.timeout_seconds,
    )


@app.command()
def unpack(dataset: str, downloads: Annotated[Path, typer.Option("--downloads")], out: Out) -> None:
    """Unpack a dataset's archives safely."""
    from lesion_core.data.unpack import unpack_dataset

    unpack_dataset(dataset, downloads, out)


@app.command()
def weights(name: str, out: Out, settings: Given = None, profile: Profile = None) -> None:
    """Fetch and verify a foundation model's weights, or take those in the package."""
    from lesion_core.models.foundation import write_foundation

    given = _settings(settings, profile)
    write_foundation(name, out, mirror=given.mirror, retries=given.data.retries, timeout=given.data.timeout_seconds)


@app.command()
def catalog(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Build the table of all images, their groups and the data report."""
    from lesion_core.data.catalog import build_catalog
    from lesion_core.paths import Layout

    given = _settings(settings, profile)
    layout = Layout(root)
    build_catalog(
        {name: layout.data(name) for name in given.data.datasets},
        root,
        given.duplicates,
        custom=given.data.custom,
        out_images=layout.catalog,
        out_edges=layout.edges,
        out_report=layout.catalog.with_name("report.json"),
    )


@app.command()
def splits(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Split by group, and write the leakage certificate."""
    from lesion_core.data.splits import build_splits
    from lesion_core.paths import Layout

    layout = Layout(root)
    build_splits(layout.catalog, layout.edges, _settings(settings, profile).splits, layout.certificate.parent)


@app.command()
def leakage(root: Root) -> None:
    """What datasets share, and whether a segmenter's training photograph tests a classifier; exit status 1 if so."""
    from lesion_core.data.leakage import tell_leakage

    text, clean = tell_leakage(root)
    typer.echo(text)
    if not clean:
        raise typer.Exit(1)


@app.command()
def reference(
    root: Root,
    size: Annotated[int, typer.Option("--size")],
    settings: Given = None,
    profile: Profile = None,
) -> None:
    """The median histogram of the training images."""
    from lesion_core.data.reference import reference_histogram
    from lesion_core.paths import Layout

    layout = Layout(root)
    section = _settings(settings, profile).harmonization
    reference_histogram(
        layout.catalog, layout.certificate.parent, root, layout.reference, layout.colours, size=size, settings=section
    )


@app.command(name="data-report")
def data_report(root: Root) -> None:
    """A table and figures of what the catalog found, and of colours before and after."""
    from lesion_core.report.data_report import write_data_report

    write_data_report(root)


@app.command()
def harmonize(
    dataset: str,
    size: int,
    root: Root,
    settings: Given = None,
    profile: Profile = None,
) -> None:
    """Bring a dataset to one size and one appearance."""
    from lesion_core.data.harmonized_arrays import harmonize_dataset
    from lesion_core.paths import Layout

    layout = Layout(root)
    harmonize_dataset(
        dataset,
        size,
        layout.catalog,
        layout.certificate.parent,
        layout.reference,
        root,
        layout.harmonized(dataset, size),
        _settings(settings, profile).harmonization,
    )


@app.command()
def train(
    root: Root,
    run_id: Annotated[str | None, typer.Option("--run", help="A run of the matrix, by id.")] = None,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Train one run; goes on from its last checkpoint if it was interrupted."""
    from lesion_core import observe

    observe.begin()
    run = _one_run(settings, profile, run_id)
    os.environ["OMP_NUM_THREADS"] = str(run.threads)
    from importlib import import_module

    from lesion_core.files import canonical_json
    from lesion_core.training.launch import launch, launched, watch_launcher

    if run.processes > 1 and run.spec.training.epochs and not launched():
        given = canonical_json({"run": run.model_dump(mode="json")})
        options = ["--root", str(root), "--device", device, "--settings", given]
        launch([sys.executable, "-m", "lesion_core.cli", "train", *options], run.processes)
        return
    watch_launcher()

    from lesion_core.paths import Layout
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.distributed import process_group
    from lesion_core.training.engine import resolve_device

    make_deterministic(run.threads)
    module = import_module(f"lesion_core.training.{run.task}")
    device = resolve_device(device)
    with process_group(device):
        module.train_run(run, Layout(root).run(run.task, run.run_id), root, device)


@app.command(name="pseudo-masks")
def pseudo_masks(
    run_dir: Annotated[Path, typer.Option("--segmenter", help="A segmentation run's folder.")],
    dataset: str,
    root: Root,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """A segmenter's masks for a whole dataset."""
    from lesion_core.inference.load import load_segmenter
    from lesion_core.inference.pseudo_masks import write_pseudo_masks
    from lesion_core.paths import Layout
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    given = _settings(settings, profile)
    segmenter = load_segmenter(run_dir, device=resolve_device(device))
    make_deterministic(segmenter.run.threads)
    layout = Layout(root)
    write_pseudo_masks(
        segmenter,
        layout.harmonized(dataset, segmenter.size),
        layout.pseudo_masks(segmenter.run.run_id, dataset),
        batch_size=given.scoring.batch_size,
        device=resolve_device(device),
    )


@app.command(name="audit-pseudo-masks")
def audit_pseudo_masks(
    run_id: Annotated[str, typer.Option("--segmenter", help="A segmentation run's id.")],
    dataset: str,
    size: Annotated[int, typer.Option("--size", help="Side of its masks in pixels.")],
    root: Root,
    settings: Given = None,
    profile: Profile = None,
) -> None:
    """Dice and IoU of pseudo-masks against published masks, by class and site."""
    from lesion_core.inference.audit import audit_pseudo_masks as audit

    audit(run_id, dataset, size, root, _settings(settings, profile).statistics)


@app.command()
def score(
    task: str,
    run_dir: Annotated[Path, typer.Option("--run", help="A run's folder.")],
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Score a run on the test images: TASK is segmentation or classification."""
    from lesion_core.runs import Run
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    scoring = _settings(settings, profile).scoring
    run = Run.load(run_dir)
    make_deterministic(run.threads)
    device = resolve_device(device)
    if task == "segmentation":
        from lesion_core.inference.load import load_segmenter
        from lesion_core.inference.score_segmentation import score_segmentation

        segmenter = load_segmenter(run_dir, device=device)
        score_segmentation(segmenter, run, root, scoring, out, run_dir / "test_masks.zip", device=device)
    else:
        from lesion_core.inference.score_classification import score_classification

        score_classification(run_dir, run, root, scoring, out, device=device)


@app.command(name="score-derived")
def score_derived(root: Root, out: Out, settings: Given = None, device: Device = "auto") -> None:
    """Score a run that trains nothing: test-time augmentation, or an ensemble of seeds."""
    from lesion_core.inference.score_derived import score_derived as score_run
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    given = _settings(settings, None)
    make_deterministic(given.run.threads)
    score_run(given.run, root, given.scoring, out, device=resolve_device(device))


@app.command()
def explain(
    run_dir: Annotated[Path, typer.Option("--run", help="A segmentation or classification run's folder.")],
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Where a run looks on test images: Grad-CAM and attention roll-out against the true masks."""
    from lesion_core.explain.score import explain_run
    from lesion_core.runs import Run
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    given = _settings(settings, profile)
    run = Run.load(run_dir)
    make_deterministic(run.threads)
    explain_run(run_dir, run, root, given.explain, given.scoring, out, device=resolve_device(device))


@app.command()
def robustness(
    run_dir: Annotated[Path, typer.Option("--run", help="A classification or joint run's folder.")],
    root: Root,
    out: Out,
    settings: Given = None,
    profile: Profile = None,
    device: Device = "auto",
) -> None:
    """Accuracy and calibration of a run on corrupted test photographs."""
    from lesion_core.inference.robustness import measure_robustness
    from lesion_core.runs import Run
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    given, run = _settings(settings, profile), Run.load(run_dir)
    make_deterministic(run.threads)
    datasets = given.scoring.classification_on
    measure_robustness(run_dir, run, root, datasets, given.robustness, out, device=resolve_device(device))


@app.command(name="gather-robustness")
def gather_robustness(out: Out, tables: Annotated[list[Path] | None, typer.Argument()] = None) -> None:
    """Join the runs' robustness tables."""
    from lesion_core.inference.robustness import gather_robustness as join

    join(tables or [], out)


@app.command()
def gather(kind: str, out: Out, scores: list[Path]) -> None:
    """Join the runs' scores into one store: KIND is segmentation or classification."""
    from lesion_core.scores import gather as join

    join(scores, kind, out)


@app.command()
def tables(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Every table, ours beside published, as .csv, .md and .tex."""
    from lesion_core.report.tables import write_tables

    write_tables(root, _settings(settings, profile).plan)


@app.command()
def statistics(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Paired tests, effect sizes and intervals (tables 15 and 16)."""
    from lesion_core.report.statistics import write_statistics

    write_statistics(root, _settings(settings, profile).plan)


@app.command()
def subgroups(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Classification metrics by sex, age, site and way of diagnosis, with intervals."""
    from lesion_core.report.subgroups import write_subgroups

    given = _settings(settings, profile)
    write_subgroups(root, given.plan, given.subgroups)


@app.command()
def figures(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """Every figure, as PDF and PNG."""
    from lesion_core.report.figures import write_figures

    write_figures(root, _settings(settings, profile).plan)


@app.command()
def ledger(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """A verdict on each published number."""
    from lesion_core.report.ledger import write_ledger

    write_ledger(root, _settings(settings, profile).plan)


@app.command()
def report(root: Root, settings: Given = None, profile: Profile = None) -> None:
    """The page: one file that opens offline."""
    from lesion_core.report.page import write_page

    write_page(root, _settings(settings, profile).plan)


@app.command()
def readme(
    root: Root,
    file: Annotated[Path, typer.Option("--readme")] = Path("README.md"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the section is up to date.")] = False,
) -> None:
    """Write the README's results section from a run's tables, and keep those under docs/<profile>."""
    from lesion_core.report.readme import store_tables, update_readme

    update_readme(root, file, check=check)
    store_tables(root, file.parent / "docs" / root.resolve().name, check=check)


@app.command()
def predict(
    segmenter: Annotated[Path, typer.Option("--segmenter", help="A segmentation or joint run's folder.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of photographs of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and predictions.csv.")],
    classifier: Annotated[
        Path | None, typer.Option("--classifier", help="A classification or joint run's folder.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Masks (and classes) for your own photographs."""
    from lesion_core.inference.load import load_segmenter
    from lesion_core.inference.predict import list_photographs, predict_folder
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device

    list_photographs(images)
    device = resolve_device(device)
    loaded = load_segmenter(segmenter, device=device)
    make_deterministic(loaded.run.threads)
    classify = None
    if classifier is not None:
        from lesion_core.inference.photograph import photograph_classifier

        classify = photograph_classifier(classifier, device)
    predict_folder(loaded, images, out, classify=classify, device=device)


@app.command()
def pretrain(
    out: Out,
    work: Annotated[Path, typer.Option("--work", help="Folder for the made images, checkpoints and history.")],
    settings: Given = None,
    profile: Profile = None,
    threads: Annotated[int, typer.Option("--threads")] = 2,
    device: Device = "auto",
) -> None:
    """Train sam_vit_t, the embedded foundation model, on made images."""
    from lesion_core.seeding import make_deterministic
    from lesion_core.training.engine import resolve_device
    from lesion_core.training.pretrain import pretrain as run_pretraining

    make_deterministic(threads)
    run_pretraining(_settings(settings, profile).pretrain, out, work, device=resolve_device(device), threads=threads)


@app.command()
@app.command()
def runs(profile: Profile = None) -> None:
    """The experiment matrix, expanded: one line per run."""
    from lesion_core import config

    for run in config.expand(config.load(profile)).values():
        typer.echo(f"{run.task:<15} {run.run_id}")


@app.command()
def bench(root: Root) -> None:
    """Seconds and peak memory per rule, from the last run."""
    from lesion_core.report.bench import bench_table

    typer.echo(bench_table(root))


for _command in (trace, feasible, feasible_effect, feasible_rates, audit, crate, manifest, plan, summary, dvc_stages):
    app.command()(_command)


def main() -> None:
    """Entry point: typed errors become a message on stderr and exit status 2."""
    from lesion_core.errors import LesionError

    try:
        app()
    except LesionError as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
