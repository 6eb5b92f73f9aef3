"""Which results the present matrix is made of: a results folder also keeps runs of earlier settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lesion_core.paths import Layout, pixels_of, run_of
from lesion_core.settings import ClassificationMethod, Plan, SegmentationMethod
from lesion_core.settings.run import ABLATIONS, Run


@dataclass(frozen=True)
class Current:
    """A matrix, as far as results are named after it.

    Attributes:
        places: run id -> its folder under ``runs/``.
        pixels: home and side of the harmonized arrays that its runs read.
    """

    places: dict[str, str]
    pixels: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Current:
        """The matrix of these runs."""
        runs = list(runs)
        return cls({run.run_id: run.place for run in runs}, _pixels(runs))

    @classmethod
    def of_results(cls, root: Path, plan: Plan) -> Current:
        """The matrix of a plan whose runs are finished under ``root``.

        Raises:
            RunError: a run's settings are missing or cannot be read.
        """
        folders = run_folders(root, plan)
        return cls({folder.name: folder.parent.name for folder in folders}, _pixels(map(Run.load, folders)))

    def __or__(self, other: Current) -> Current:
        return Current(self.places | other.places, self.pixels | other.pixels)

    def owns(self, parts: tuple[str, ...]) -> bool:
        """Whether a result, by the parts of its path relative to ``root``, is of this matrix or of no run at all."""
        if (pixels := pixels_of(parts)) is not None:
            return pixels in self.pixels
        run_id = run_of(parts)
        if run_id is None:
            return True
        # a run that became an ablation, or is none any more, lies in its new place too
        return run_id in self.places and (parts[0] != "runs" or parts[1] == self.places[run_id])


def _pixels(runs: Iterable[Run]) -> frozenset[tuple[str, int]]:
    trained = [(run, run.spec) for run in runs]
    kinds = SegmentationMethod | ClassificationMethod
    return frozenset((run.pixels, spec.model.image_size) for run, spec in trained if isinstance(spec, kinds))


def run_folders(root: Path, plan: Plan) -> list[Path]:
    """Folders of the plan's runs, sorted by id; of a run without a folder, where it should be."""
    ablations = set(plan.ablations)
    folders = []
    for run_id in sorted(plan.run_ids):
        if run_id in ablations:
            folders.append(Layout(root).run(ABLATIONS, run_id))
            continue
        found = [path for path in sorted((root / "runs").glob(f"*/{run_id}")) if path.parent.name != ABLATIONS]
        folders.append(found[0] if found else Layout(root).run("missing", run_id))
    return folders
