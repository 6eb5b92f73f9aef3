"""Commands that check a finished result and hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lesion_core.cli.options import Device, Profile, Root, sections


def summary(root: Root, profile: Profile = None) -> None:
    """The main tables for `dvc metrics`."""
    from lesion_core.sharing.summary import write_summary

    write_summary(root, sections("summary", root, profile).plan)


def snapshot(root: Root) -> None:
    """Keep Snakemake's records of a finished result beside it: what `lesion restore` hands back after a pull."""
    from lesion_core.sharing.snapshot import save

    save(root)


def restore(root: Root) -> None:
    """After `dvc pull`, `dvc checkout` or a copy: files of the recorded content count as made when they were."""
    from lesion_core.sharing.snapshot import restore as hand_back

    restored, changed = hand_back(root)
    for name in changed:
        typer.echo(f"another content than recorded, so Snakemake will see it as new: {name}")
    typer.echo(f"{restored} files restored")


def manifest(root: Root, profile: Profile = None) -> None:
    """Hash a finished pipeline's results: what `lesion audit` compares with."""
    from lesion_core.audit.manifest import write_manifest
    from lesion_core.settings.matrix import plan
    from lesion_core.settings.stored import recorded, stored
    from lesion_core.sharing.snapshot import made_so_far

    settings = stored(root, profile)
    write_manifest(root, recorded(settings), plan(settings), made_so_far(root))


def audit(
    root: Root,
    recompute: Annotated[int, typer.Option("--recompute", min=0, help="Scores and images to compute anew.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of what is computed anew.")] = 0,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.0, help="Largest difference of a recomputed score; other machines differ."),
    ] = 0.0,
    only: Annotated[list[str] | None, typer.Option("--only", help="Ask this question alone; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the answers there.")] = None,
    device: Device = "cpu",
) -> None:
    """Is everything in a results folder what it claims to be? Exit status 1 where something is not."""
    from lesion_core.audit.answer import FAILED
    from lesion_core.audit.command import audit as ask
    from lesion_core.files import write_json
    from lesion_core.settings.load import REPOSITORY

    lock = REPOSITORY / "requirements.lock"
    answers = ask(root, lock, count=recompute, seed=seed, tolerance=tolerance, device=device or "cpu", only=only)
    for answer in answers:
        typer.echo(answer.text())
    if out is not None:
        write_json(out, [answer.record() for answer in answers])
    failed = sum(answer.verdict == FAILED for answer in answers)
    typer.echo(f"{failed} of {len(answers)} answers failed" if failed else f"{len(answers)} answers, none failed")
    if failed:
        raise typer.Exit(1)


def cache(
    root: Root,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what the present matrix does not need.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --prune: say what would go, and leave it.")] = False,
) -> None:
    """What a results folder holds, how large it is, and what of it is current; --prune deletes the rest."""
    from lesion_core.sharing import cache as results

    parts = results.contents(root)
    typer.echo(results.table(parts))
    if not prune:
        return
    for part in parts:
        for unit in sorted(part.units) if part.stale else ():
            typer.echo(f"{'would delete' if dry_run else 'deleting'} {part.name}: {unit}")
    if not dry_run:
        typer.echo(f"freed {results.prune(root) / 1e6:,.1f} MB")


def crate(
    root: Root,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    agent: Annotated[
        str | None, typer.Option("--agent", help="Who ran it: a name or an ORCID; left out if not given.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="With the page, figures and masks, which show images.")
    ] = False,
) -> None:
    """Export a finished result as a Workflow Run RO-Crate; images stay out."""
    from lesion_core.sharing.crate import write_crate

    write_crate(root, out, agent=agent, images=images)


def export(
    run: Annotated[Path, typer.Argument(help="A segmentation, classification or joint run's folder.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="File to write; a card, FILE.md, lies beside it.")],
    int8: Annotated[bool, typer.Option("--int8", help="In 8 bits, where the scores on validation stay.")] = False,
    part: Annotated[
        Literal["segmenter", "classifier"] | None, typer.Option("--part", help="Of a joint run. Default: segmenter.")
    ] = None,
) -> None:
    """Write a run as an ONNX file, which `lesion predict --onnx` or `--classifier-onnx` reads without torch."""
    from lesion_core.settings.run import Run

    if part == "classifier" or (part is None and Run.load(run).task == "classification"):
        from lesion_core.inference.onnx_classifier import export_classifier as write
    else:
        from lesion_core.inference.onnx_export import export_segmenter as write
    for name, value in write(run, onnx, int8=int8).items():
        typer.echo(f"{name}: {value:.6g}")


def plan(
    profile: Profile = None,
    rates: Annotated[
        Path | None, typer.Option("--rates", help="A finished results folder to measure in, or a rehearsal.csv.")
    ] = None,
    card_tflops: Annotated[
        float | None,
        typer.Option(
            "--card-tflops", help="With a rehearsal.csv: 10^12 operations a second of the card you will have."
        ),
    ] = None,
    least: Annotated[
        float, typer.Option("--least", help="With --card-tflops: seconds that its shortest step takes.")
    ] = 0.03,
    watts: Annotated[float, typer.Option("--watts", help="Of the card, for the energy.")] = 700.0,
    seconds: Annotated[
        list[str] | None,
        typer.Option("--seconds", help="KIND=SECONDS of one step, where you know it; may be repeated."),
    ] = None,
    counts: Annotated[
        Path | None, typer.Option("--counts", help="Results whose splits are made: their images are counted.")
    ] = None,
) -> None:
    """What a profile costs: runs x steps x measured seconds a step, with the arithmetic."""
    from lesion_core.plan import table
    from lesion_core.plan.rates import measured_rates, stated_rates
    from lesion_core.plan.rehearsal import rates_of_rehearsal
    from lesion_core.plan.work import image_counts
    from lesion_core.settings import load as config

    settings = config.load(profile)
    runs = config.expand(settings)
    known = {}
    if rates is not None:
        known = rates_of_rehearsal(rates, card_tflops, least) if rates.is_file() else measured_rates(rates)
    known |= stated_rates(seconds or [], runs)
    typer.echo(table.cost_table(image_counts(settings, counts), runs, known, table.owners(settings), watts))


def rehearsal(root: Root) -> None:
    """What a rehearsal tells so far: rehearsal.csv and rehearsal.md, one row for each kind of run."""
    from lesion_core.paths import Layout
    from lesion_core.plan.rehearsal import write_rehearsal
    from lesion_core.settings.load import load
    from lesion_core.settings.matrix import expand
    from lesion_core.settings.stored import stored

    settings = stored(root)
    paper = load("paper", {"papers": sorted(settings.papers)})
    write_rehearsal(root, expand(settings), expand(paper), settings.compute.gpu_memory_mb)
    typer.echo(Layout(root).rehearsal("md").read_text(encoding="utf-8"))


def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Copy Snakefile, rules, papers' files and settings into a folder, to run the pipeline there without a checkout."""
    from lesion_core.sharing.project import start_project

    start_project(folder)
    typer.echo(f"Now: cd {folder}; snakemake --cores all --resources gpu=1 --config profile=smoke")


FOR_PEOPLE = (init, plan, rehearsal, audit, cache, restore, crate, export)
FOR_RULES = (manifest, snapshot, summary)
