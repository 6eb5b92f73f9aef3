"""Where things lie under ``results/<profile>/``: the one place that knows the layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")  # of photographs and masks, in any case


@dataclass(frozen=True)
class Layout:
    """Paths of one profile's results; ``root`` is ``results/<profile>``."""

    root: Path

    @property
    def made(self) -> Path:
        """Archives of made images (smoke profile)."""
        return self.root / "made"

    def downloads(self, dataset: str) -> Path:
        """Folder of a dataset's verified archives."""
        return self.root / "downloads" / dataset

    def data(self, dataset: str) -> Path:
        """Folder of a dataset's unpacked files, with ``manifest.csv``."""
        return self.root / "data" / dataset

    @property
    def catalog(self) -> Path:
        """The table of all images."""
        return self.root / "catalog" / "images.parquet"

    @property
    def edges(self) -> Path:
        """Pairs of images that must stay in one split, with the reason."""
        return self.root / "catalog" / "edges.parquet"

    def split(self, dataset: str) -> Path:
        """A dataset's split table."""
        return self.root / "splits" / f"{dataset}.csv"

    @property
    def certificate(self) -> Path:
        """The leakage certificate."""
        return self.root / "splits" / "certificate.json"

    @property
    def reference(self) -> Path:
        """The reference histogram, (3, 256) float64."""
        return self.root / "harmonized" / "reference.npy"

    @property
    def colours(self) -> Path:
        """Colour distances between datasets before and after harmonization, JSON."""
        return self.root / "harmonized" / "colours.json"

    def harmonized(self, dataset: str, size: int) -> Path:
        """Folder with images.npy, masks.npy, index.csv, contact_sheet.png."""
        return self.root / "harmonized" / dataset / str(size)

    def weights(self, name: str) -> Path:
        """A foundation model's verified weights."""
        return self.root / "weights" / f"{name}.safetensors"

    @property
    def embeddings(self) -> Path:
        """Stored image embeddings of frozen encoders, shared by runs."""
        return self.root / "embeddings"

    def run(self, place: str, run_id: str) -> Path:
        """A run's folder; ``place`` is its task, or ``ablations`` for a run on which nothing is built."""
        return self.root / "runs" / place / run_id

    def pseudo_masks(self, run_id: str, dataset: str) -> Path:
        """Folder of a segmenter run's masks for a whole dataset."""
        return self.root / "pseudo_masks" / run_id / dataset

    def scores(self, task: str) -> Path:
        """The score store: ``segmentation`` or ``classification``."""
        return self.root / "scores" / f"{task}.parquet"

    def table(self, name: str, suffix: str) -> Path:
        """One table in one format."""
        return self.root / "tables" / f"{name}.{suffix}"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def manifest(self) -> Path:
        """SHA-256 of every result."""
        return self.root / "manifest.json"
