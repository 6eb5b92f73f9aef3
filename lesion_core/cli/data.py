"""Commands of the data stages: from download to harmonized pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lesion_core.cli.options import Dataset, HomeName, NewRoot, OptionalRoot, Profile, Root, sections


def synthetic(root: NewRoot, profile: Profile = None) -> None:
    """Draw synthetic images and pack them as the official archives."""
    from lesion_core.acquire.synthetic import write_mirror
    from lesion_core.errors import SettingsError
    from lesion_core.paths import Layout

    section = sections("synthetic", root, profile).synthetic
    if section is None:
        raise SettingsError("synthetic: this profile has no synthetic images", remedy="use --profile smoke")
    write_mirror(section, Layout(root).made)


def download(
    root: NewRoot,
    dataset: Annotated[str | None, typer.Argument(help="As the settings call it, e.g. ham10000.")] = None,
    profile: Profile = None,
    pins: Annotated[
        bool, typer.Option("--pins", help="Print the SHA-256 of files that were pinned at their first download.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Fetch nothing if a file of any dataset of the settings cannot be had.")
    ] = False,
) -> None:
    """Fetch and verify a dataset's files, from the mirror or the official addresses."""
    from lesion_core.acquire.download import FILES, fetch_dataset, pinned
    from lesion_core.acquire.http import Patience
    from lesion_core.acquire.sources import require_sources
    from lesion_core.paths import Layout

    if pins:
        typer.echo("\n".join(pinned(root)) or "No file is pinned: each has an official checksum.")
        return
    if dataset is None:
        raise typer.BadParameter("name a dataset, or ask for --pins")
    given, layout = sections("download", root, profile), Layout(root)
    how = {
        "mirror": given.mirror if given.synthetic is None else str(layout.made),
        "ph2": given.data.ph2,
        "patience": Patience(given.data.retries, given.data.timeout_seconds),
    }
    wanted = {name for name in given.data.datasets if together and name != "custom"} | {dataset} - {"custom"}
    waiting = {name: layout.downloads(name) for name in wanted if not (layout.downloads(name) / FILES).is_file()}
    require_sources(waiting, **how)
    fetch_dataset(dataset, layout.downloads(dataset), **how)


def unpack(dataset: Dataset, root: Root) -> None:
    """Unpack a dataset's archives safely."""
    from lesion_core.acquire.unpack import unpack_dataset
    from lesion_core.paths import Layout

    unpack_dataset(dataset, Layout(root).downloads(dataset), Layout(root).data(dataset))


def weights(
    name: Annotated[str, typer.Argument(help="E.g. sam_vit_b, resnet34.imagenet.")],
    root: NewRoot,
    profile: Profile = None,
) -> None:
    """Fetch and verify published weights, or take those in the package."""
    from lesion_core.acquire.http import Patience
    from lesion_core.models.published_weights import write_weights
    from lesion_core.paths import Layout

    given = sections("weights", root, profile)
    patience, draw = Patience(given.data.retries, given.data.timeout_seconds), given.rehearsal is not None
    write_weights(name, Layout(root).weights(name), mirror=given.mirror, patience=patience, draw=draw)


def human_reference(
    root: NewRoot,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Folder of IMA++'s masks: score them instead of reading the tables.")
    ] = None,
    profile: Profile = None,
) -> None:
    """How well people agree on each image that several annotated (IMA++): from the mirror, else its official tables."""
    from lesion_core.acquire.download import fetch_reference
    from lesion_core.acquire.http import Patience
    from lesion_core.catalog.human_reference import reference_of, tables_folder, write_reference
    from lesion_core.paths import Layout
    from lesion_core.progress import say

    given, layout = sections("human-reference", root, profile), Layout(root)
    folder = None
    if given.synthetic is None and (given.mirror is None or "://" in given.mirror):
        patience = Patience(given.data.retries, given.data.timeout_seconds)
        out = layout.downloads("imaplusplus")
        folder = fetch_reference("imaplusplus", out, mirror=given.mirror, patience=patience)
    elif given.synthetic is None:
        folder = tables_folder(Path(given.mirror).expanduser())
    if folder is None:
        say("IMA++'s tables are not in the mirror: the human reference stays empty")
    write_reference([] if folder is None else reference_of(folder, masks), layout.human_reference)


def catalog(root: Root, profile: Profile = None) -> None:
    """Build the table of all images, their groups and the data report."""
    from lesion_core.catalog.table import build_catalog
    from lesion_core.paths import Layout

    given, layout = sections("catalog", root, profile), Layout(root)
    build_catalog(
        {name: layout.data(name) for name in given.data.datasets},
        root,
        given.duplicates,
        custom=given.data.custom,
        few=None if given.rehearsal is None else given.rehearsal.images,
        out_images=layout.catalog,
        out_edges=layout.edges,
        out_report=layout.data_report,
    )


def data_report(root: Root) -> None:
    """A table and figures of what the catalog found, and of colours before and after."""
    from lesion_core.report.data_report import write_data_report

    write_data_report(root)


def splits(home: HomeName, root: Root, profile: Profile = None) -> None:
    """Split as a rule says, and write the leakage certificate."""
    from lesion_core.catalog.splits import build_splits
    from lesion_core.paths import Layout

    layout = Layout(root)
    material = sections("splits", root, profile).homes.materials[home]
    build_splits(layout.catalog, layout.edges, material.splits, layout.certificate(home).parent)


def leakage(
    root: OptionalRoot = None,
    releases: Annotated[
        Path | None, typer.Option("--releases", help="Folder of the releases' id lists: count what they share instead.")
    ] = None,
    home: Annotated[str, typer.Option("--splits", help="Which split tables, as PROTOCOL/RULE.")] = "shared/leak_free",
) -> None:
    """What datasets share, and whether a segmenter's training image tests a classifier; exit status 1 if so.

    Without --root: what the official parts share, as known; with --releases what lists of ids give beside it. Exit
    status then: 1 where a count is not the known one, or the folder holds no list; 2 where a list cannot be read.
    """
    from lesion_core.catalog.leakage import tell_leakage
    from lesion_core.catalog.releases import tell_releases
    from lesion_core.errors import SettingsError

    if releases is not None and root is not None:
        raise SettingsError("Give --root or --releases, not both", remedy="lesion leakage --root results/mini")
    text, clean = tell_releases(releases) if root is None else tell_leakage(root, home)
    typer.echo(text)
    if not clean:
        raise typer.Exit(1)


def reference(home: HomeName, root: Root, profile: Profile = None) -> None:
    """The median histogram of the training images of a protocol."""
    from lesion_core.paths import Layout
    from lesion_core.pixels.reference import reference_histogram
    from lesion_core.record import observe, outputs

    observe.begin()
    layout, homes = Layout(root), sections("reference", root, profile).homes
    splits_dir, out = layout.certificate(homes.splits(home)).parent, layout.reference(home)
    reference_histogram(layout.catalog, splits_dir, root, out, homes.materials[home].harmonization)
    outputs.record_job(out.with_name(outputs.NAME), root, [out])


def colours(home: HomeName, root: Root, profile: Profile = None) -> None:
    """Colour distances between datasets before and after a protocol's harmonization."""
    from lesion_core.paths import Layout
    from lesion_core.pixels.reference import read_reference, write_colours

    layout, homes = Layout(root), sections("reference", root, profile).homes
    splits_dir, section = layout.certificate(homes.splits(home)).parent, homes.materials[home].harmonization
    wanted = read_reference(layout.reference(home)) if section.histogram == "specification" else None
    write_colours(layout.catalog, splits_dir, root, wanted, layout.colours, section)


def harmonize(
    home: HomeName,
    dataset: Dataset,
    size: Annotated[int, typer.Argument(min=1, help="Side of the square images in pixels.")],
    root: Root,
    profile: Profile = None,
) -> None:
    """Bring a dataset to one size and a protocol's appearance."""
    from lesion_core.paths import Layout
    from lesion_core.pixels.harmonized_arrays import harmonize_dataset
    from lesion_core.record import observe, outputs

    observe.begin()
    layout, homes = Layout(root), sections("harmonize", root, profile).homes
    out, splits_dir = layout.pixels(home, dataset, size), layout.certificate(homes.splits(home)).parent
    section = homes.materials[home].harmonization
    harmonize_dataset(dataset, size, layout.catalog, splits_dir, layout.reference(home), root, out, section)
    outputs.record_job(out / outputs.NAME, root, outputs.arrays_of(out))


FOR_PEOPLE = (leakage,)
FOR_RULES = (
    synthetic,
    download,
    unpack,
    weights,
    human_reference,
    catalog,
    data_report,
    splits,
    reference,
    colours,
    harmonize,
)
