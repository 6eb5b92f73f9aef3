"""The layout of a results folder, ``results/<profile>/``: the one module that spells its paths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
class Layout:
    """Paths of one profile's results; ``root`` is ``results/<profile>``."""

    root: Path

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

    # data

    @property
    def made(self) -> Path:
        """Archives of synthetic images (smoke profile)."""
        return self.root / "made"

    def downloads(self, dataset: str) -> Path:
        """Folder of a dataset's verified archives."""
        return self.root / "downloads" / dataset

    def data(self, dataset: str) -> Path:
        """Folder of a dataset's unpacked files, with ``provenance.json``."""
        return self.root / "data" / dataset

    @property
    def catalog(self) -> Path:
        """The table of all images."""
        return self.root / "catalog" / "images.parquet"

    @property
    def edges(self) -> Path:
        """Pairs of images that must stay in one split, with the reason."""
        return self.root / "catalog" / "edges.parquet"

    @property
    def human_reference(self) -> Path:
        """How well people agree on each image that several annotated (IMA++); no rows without its tables."""
        return self.root / "catalog" / "human_reference.csv"

    @property
    def data_report(self) -> Path:
        """What the catalog found, JSON."""
        return self.root / "catalog" / "report.json"

    def overview(self, suffix: str) -> Path:
        """What the catalog found, as a table (csv) and a figure (pdf, png)."""
        return self.root / "protocols" / f"overview.{suffix}"

    @property
    def colours(self) -> Path:
        """Colour distances between datasets before and after harmonization, JSON."""
        return self.root / "protocols" / "colours.json"

    def colour_figure(self, suffix: str) -> Path:
        """Colour distances between datasets as a figure (pdf, png)."""
        return self.root / "protocols" / f"colours.{suffix}"

    def large_groups(self, suffix: str) -> Path:
        """Contact sheet of the groups of many images (pdf, png)."""
        return self.root / "protocols" / f"large_groups.{suffix}"

    # of a protocol under a split rule: ``home`` is ``<protocol>/<rule>``

    def split(self, home: str, dataset: str) -> Path:
        """A dataset's split table."""
        return self.root / "protocols" / home / "splits" / f"{dataset}.csv"

    def certificate(self, home: str) -> Path:
        """The leakage certificate of its split tables."""
        return self.root / "protocols" / home / "splits" / "certificate.json"

    def reference(self, home: str) -> Path:
        """The reference histogram, (3, 256) float64."""
        return self.root / "protocols" / home / "reference.npy"

    def pixels(self, home: str, dataset: str, size: int | str) -> Path:
        """Folder with images.npy, masks.npy, index.csv, contact_sheet.png."""
        return self.root / "protocols" / home / "pixels" / dataset / str(size)

    def weights(self, name: str) -> Path:
        """A foundation model's verified weights."""
        return self.root / "weights" / f"{name}.safetensors"

    @property
    def embeddings(self) -> Path:
        """Stored image embeddings of frozen encoders, shared by runs."""
        return self.root / "embeddings"

    # runs

    def run(self, place: str, run_id: str) -> Path:
        """A run's folder; ``place`` is its task, or ``ablations`` for a run on which nothing is built."""
        return self.root / "runs" / place / run_id

    def run_files(self, name: str, run_id: str = "*") -> list[Path]:
        """The file of that name in every run's folder that has it, or in that run's, sorted."""
        return sorted((self.root / "runs").glob(f"*/{run_id}/{name}"))

    def pseudo_masks(self, run_id: str, dataset: str) -> Path:
        """Folder of a segmenter run's masks for a whole dataset."""
        return self.root / "pseudo_masks" / run_id / dataset

    def explained(self, run_id: str, suffix: str) -> Path:
        """Where a run looks: scores (csv) and examples (npz)."""
        return self.root / "explain" / f"{run_id}.{suffix}"

    def robustness(self, run_id: str) -> Path:
        """A run's scores on corrupted images."""
        return self.root / "robustness" / f"{run_id}.csv"

    def scores(self, task: str) -> Path:
        """The score store: ``segmentation`` or ``classification``."""
        return self.root / "scores" / f"{task}.parquet"

    # what is read

    def table(self, name: str, suffix: str) -> Path:
        """One table in one format."""
        return self.root / "tables" / f"{name}.{suffix}"

    @property
    def cells(self) -> Path:
        """Every cell of every table, with its runs."""
        return self.root / "tables" / "cells.parquet"

    def statistics(self, name: str) -> Path:
        """``tests``, ``subgroups`` or ``robustness``."""
        return self.root / "statistics" / f"{name}.csv"

    @property
    def ledger(self) -> Path:
        """The verdict on each published number."""
        return self.root / "ledger" / "ledger.csv"

    @property
    def intervals(self) -> Path:
        """Confidence intervals of our numbers."""
        return self.root / "ledger" / "intervals.csv"

    @property
    def figures(self) -> Path:
        """Folder of figures as PDF and PNG."""
        return self.root / "figures"

    @property
    def figure_list(self) -> Path:
        """Names, titles and captions of the figures, JSON."""
        return self.figures / "figures.json"

    @property
    def all_figures(self) -> Path:
        """Every figure, a page each."""
        return self.figures / "all.pdf"

    def checklist(self, name: str, suffix: str) -> Path:
        """A reviewer's sheet (md), or a table that it links (csv)."""
        return self.root / "checklists" / f"{name}.{suffix}"

    def run_card(self, run_id: str) -> Path:
        """A run's model card."""
        return self.root / "cards" / "runs" / f"{run_id}.md"

    def dataset_card(self, dataset: str) -> Path:
        """A dataset's card."""
        return self.root / "cards" / "datasets" / f"{dataset}.md"

    def summary(self, method: str) -> Path:
        """A method's main numbers for `dvc metrics show`, JSON."""
        return self.root / "summary" / f"{method}.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    # records

    def rehearsal(self, suffix: str) -> Path:
        """What a rehearsal tells of each kind of run (csv), and the same to read (md)."""
        return self.root / f"rehearsal.{suffix}"

    @property
    def settings(self) -> Path:
        """The settings of the last call of Snakemake; commands read them from here."""
        return self.root / "settings.json"

    @property
    def manifest(self) -> Path:
        """SHA-256 of every result."""
        return self.root / "manifest.json"

    @property
    def snapshot(self) -> Path:
        """Snakemake's record of each file."""
        return self.root / "snapshot.json"

    @property
    def calls(self) -> Path:
        """One line for each call of Snakemake."""
        return self.root / "calls.jsonl"

    def log(self, name: str) -> Path:
        """What a job said."""
        return self.root / "logs" / f"{name}.txt"

    @property
    def benchmarks(self) -> Path:
        """Folder of what jobs took."""
        return self.root / "benchmarks"

    def benchmark(self, name: str) -> Path:
        """What a job took, by Snakemake."""
        return self.benchmarks / f"{name}.tsv"
