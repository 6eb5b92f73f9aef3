"""The layout of a results folder, ``results/<profile>/``: the one module that spells its paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")  # of images and masks, in any case


@dataclass(frozen=True)
class Entry:
    """A file or folder at the top of a results folder.

    Attributes:
        name: relative to the root; the longest name that fits a path is its entry.
        kind: ``product``: a result that the manifest vouches for; ``record``: tells of times and machines, and so
            differs between equal results; ``source``: what products are made from and may be deleted then; ``scratch``:
            a cache.
        run_at: which part of a path below the root names a run (a folder, or a file's stem); None: no run's.
        side_at: which part names the side of harmonized images.
    """

    name: str
    kind: Literal["product", "record", "source", "scratch"]
    run_at: int | None = None
    side_at: int | None = None


ENTRIES = (
    Entry("made", "source"),
    Entry("downloads", "source"),
    Entry("data", "product"),
    Entry("catalog", "product"),
    Entry("protocols", "product", side_at=5),
    Entry("weights", "product"),
    Entry("embeddings", "scratch"),
    Entry("runs", "product", run_at=2),
    Entry("pseudo_masks", "product", run_at=1),
    Entry("scores", "product"),
    Entry("explain", "product", run_at=1),
    Entry("robustness", "product", run_at=1),
    Entry("tables", "product"),
    Entry("statistics", "product"),
    Entry("ledger", "product"),
    Entry("figures", "product"),
    Entry("checklists", "product"),
    Entry("cards/datasets", "product"),
    Entry("cards/runs", "product", run_at=2),
    Entry("summary", "product"),
    Entry("report.html", "product"),
    Entry("rehearsal.csv", "record"),
    Entry("rehearsal.md", "record"),
    Entry("manifest.json", "record"),
    Entry("manifest.json.sig", "record"),  # by ssh-keygen, see docs/reproducing.md
    Entry("settings.json", "record"),
    Entry("snapshot.json", "record"),
    Entry("calls.jsonl", "record"),
    Entry("logs", "record"),
    Entry("benchmarks", "record"),
)
PRODUCTS = tuple(entry.name for entry in ENTRIES if entry.kind == "product")


def entry_of(parts: tuple[str, ...]) -> Entry | None:
    """The entry that a path belongs to, by its parts relative to the root; None: to none (not made by the pipeline)."""
    name = "/".join(parts)
    fits = [entry for entry in ENTRIES if name == entry.name or name.startswith(f"{entry.name}/")]
    return max(fits, key=lambda entry: len(entry.name), default=None)


def run_of(parts: tuple[str, ...]) -> str | None:
    """The id of the run that a result belongs to, by its path's parts relative to the root; None: to no single run."""
    entry = entry_of(parts)
    if entry is None or entry.run_at is None or len(parts) <= entry.run_at:
        return None
    return parts[entry.run_at].split(".")[0]


def pixels_of(parts: tuple[str, ...]) -> tuple[str, int] | None:
    """Home and side, in pixels, of the harmonized images that a file belongs to; None: to none."""
    entry = entry_of(parts)
    if entry is None or entry.side_at is None or len(parts) <= entry.side_at + 1:
        return None
    return ("/".join(parts[1:3]), int(parts[entry.side_at])) if parts[entry.side_at].isdecimal() else None


@dataclass(frozen=True)
class Fixed:
    """A path of `Layout` that no name decides: an attribute. ``what`` lies there."""

    place: str
    what: str

    def __get__(self, layout: Layout, owner: type) -> Path:
        return layout.root / self.place


@dataclass(frozen=True)
class Named:
    """A path of `Layout` with names in it: a function of them, in their order. ``what`` lies there."""

    place: str
    what: str

    def __get__(self, layout: Layout, owner: type) -> Callable[..., Path]:
        names = [name for _, name, _, _ in Formatter().parse(self.place) if name]
        return lambda *given: layout.root / self.place.format(**dict(zip(names, given, strict=True)))


@dataclass(frozen=True)
class Layout:
    """Paths of one profile's results; ``root`` is ``results/<profile>``.

    ``home`` is ``<protocol>/<rule>``: a protocol under a split rule. ``place`` is a run's task, or ``ablations`` for a
    run on which nothing is built.
    """

    root: Path

    made = Fixed("made", "archives of synthetic images (smoke profile)")
    downloads = Named("downloads/{dataset}", "folder of a dataset's verified archives")
    data = Named("data/{dataset}", "folder of a dataset's unpacked files, with provenance.json")
    catalog = Fixed("catalog/images.parquet", "the table of all images")
    edges = Fixed("catalog/edges.parquet", "pairs of images that must stay in one split, with the reason")
    data_report = Fixed("catalog/report.json", "what the catalog found")
    human_reference = Fixed("catalog/human_reference.csv", "how well people agree on an image; empty without IMA++")
    overview = Named("protocols/overview.{suffix}", "what the catalog found, as table (csv) and figure (pdf, png)")
    colours = Fixed("protocols/colours.json", "colour distances between datasets before and after harmonization")
    colour_figure = Named("protocols/colours.{suffix}", "the same as a figure (pdf, png)")
    large_groups = Named("protocols/large_groups.{suffix}", "contact sheet of the groups of many images (pdf, png)")
    split = Named("protocols/{home}/splits/{dataset}.csv", "a dataset's split table")
    certificate = Named("protocols/{home}/splits/certificate.json", "the leakage certificate of the split tables")
    reference = Named("protocols/{home}/reference.npy", "the reference histogram, (3, 256) float64")
    pixels = Named("protocols/{home}/pixels/{dataset}/{size}", "images.npy, masks.npy, index.csv, contact_sheet.png")
    weights = Named("weights/{name}.safetensors", "a foundation model's verified weights")
    embeddings = Fixed("embeddings", "stored image embeddings of frozen encoders, shared by runs")

    run = Named("runs/{place}/{run_id}", "a run's folder")
    pseudo_masks = Named("pseudo_masks/{run_id}/{dataset}", "folder of a segmenter run's masks for a whole dataset")
    explained = Named("explain/{run_id}.{suffix}", "where a run looks: scores (csv) and examples (npz)")
    robustness = Named("robustness/{run_id}.csv", "a run's scores on corrupted images")
    scores = Named("scores/{task}.parquet", "the score store: segmentation or classification")

    table = Named("tables/{name}.{suffix}", "one table in one format")
    cells = Fixed("tables/cells.parquet", "every cell of every table, with its runs")
    statistics = Named("statistics/{name}.csv", "tests, subgroups or robustness")
    ledger = Fixed("ledger/ledger.csv", "the verdict on each published number")
    intervals = Fixed("ledger/intervals.csv", "confidence intervals of our numbers")
    figures = Fixed("figures", "folder of figures as PDF and PNG")
    figure_list = Fixed("figures/figures.json", "names, titles and captions of the figures")
    all_figures = Fixed("figures/all.pdf", "every figure, a page each")
    checklist = Named("checklists/{name}.{suffix}", "a reviewer's sheet (md), or a table that it links (csv)")
    run_card = Named("cards/runs/{run_id}.md", "a run's model card")
    dataset_card = Named("cards/datasets/{dataset}.md", "a dataset's card")
    summary = Named("summary/{method}.json", "a method's main numbers for `dvc metrics show`")
    report = Fixed("report.html", "the page")

    rehearsal = Named("rehearsal.{suffix}", "what a rehearsal tells of each kind of run (csv, and md to read)")
    settings = Fixed("settings.json", "the settings of the last call of Snakemake; commands read them from here")
    manifest = Fixed("manifest.json", "SHA-256 of every result")
    snapshot = Fixed("snapshot.json", "Snakemake's record of each file")
    calls = Fixed("calls.jsonl", "one line for each call of Snakemake")
    log = Named("logs/{name}.txt", "what a job said")
    benchmarks = Fixed("benchmarks", "folder of what jobs took")
    benchmark = Named("benchmarks/{name}.tsv", "what a job took, by Snakemake")

    @classmethod
    def of_run(cls, run_dir: str | Path) -> Layout:
        """The results that a run's folder, ``runs/<place>/<run_id>``, belongs to."""
        return cls(Path(run_dir).resolve().parents[2])

    def products(self) -> Iterator[Path]:
        """All files that exist of all products, sorted."""
        tops = [self.root / name for name in PRODUCTS]
        yield from sorted(
            path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()
        )

    def run_files(self, name: str, run_id: str = "*") -> list[Path]:
        """The file of that name in every run's folder that has it, or in that run's, sorted."""
        return sorted((self.root / "runs").glob(f"*/{run_id}/{name}"))
