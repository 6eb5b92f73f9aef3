"""From a run to what it was made of: score rows, settings, weights, code, splits and images, all by hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lesion_core.errors import RunError
from lesion_core.files import canonical_json, read_json, read_parquet, sha256_file, sha256_text
from lesion_core.paths import Layout
from lesion_core.report.measures import Measure
from lesion_core.report.score_store import Store
from lesion_core.report.table_cells import measure_of
from lesion_core.scores import read_scores
from lesion_core.settings.run import task_of

SCORE_FILES = {"segmentation": "scores/segmentation.parquet", "classification": "scores/classification.parquet"}
OF_TIMES = ("resumed", "training_seconds", "step_seconds")  # of a run's extra: they differ between two equal results
WITHOUT_WEIGHTS = ("derived",)  # they answer with the weights of the runs that they are derived from

Side = tuple[str, Measure]


def sides_of(item: Mapping[str, Any]) -> list[Side]:
    """The runs behind a cell of a table, or behind a row of ``statistics/tests.csv``, each with what it measures."""
    if "run_ids" in item:
        return [(run_id, measure_of(item)) for run_id in item["run_ids"].split()]
    kind = "classification" if item["metric"] == "accuracy" else "segmentation"
    return [
        (run_id, Measure(kind, item["dataset"], item["metric"], item[prompt]))
        for runs, prompt in (("runs", "prompt"), ("other_runs", "other_prompt"))
        for run_id in item[runs].split()
    ]


@dataclass
class Lineage:
    """Hashes of one profile's results, each computed once and only when it is asked for.

    Attributes:
        root: ``results/<profile>``.
        store: the score store.
    """

    root: Path
    store: Store
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, root: Path) -> Lineage:
        """Read the score store.

        Raises:
            ScoreError: it is missing or broken.
        """
        return cls(Path(root), Store.read(root))

    def sha256(self, path: Path) -> str | None:
        """A file's SHA-256; None where there is no such file."""
        if path not in self._hashes and path.is_file():
            self._hashes[path] = sha256_file(path)
        return self._hashes.get(path)

    def run_dir(self, run_id: str) -> Path:
        """A run's folder.

        Raises:
            RunError: there is none.
        """
        for path in Layout(self.root).run_files("provenance.json", run_id):
            return path.parent
        raise RunError("The run has no provenance", file=self.root / "runs", ids=[run_id], remedy="train it again")

    def run(self, run_id: str) -> dict[str, Any]:
        """What a run was made of: settings and their hash, weights, code, inputs with whether they are still the same.

        Raises:
            RunError: its folder is missing.
        """
        folder = self.run_dir(run_id)
        content = read_json(folder / "provenance.json")
        inputs = {}
        for name, recorded in sorted(content["inputs"].items()):
            now = self.sha256(self.root / name)
            state = "unchanged" if now == recorded else "not here" if now is None else "changed since"
            inputs[name] = {"sha256": recorded, "state": state}
        return {
            "run_id": run_id,
            "task": task_of(folder),
            "seed": content["seed"],
            "device": content["device"],
            "settings": content["settings"],
            "settings_sha256": sha256_text(canonical_json(content["settings"])),
            "weights_sha256": self.sha256(folder / "weights.safetensors"),
            "code": content["code"],
            "inputs": inputs,
            "packages": content["packages"],
            "extra": {name: value for name, value in content["extra"].items() if name not in OF_TIMES},
        }

    def rows(self, run_id: str, measure: Measure) -> dict[str, Any]:
        """The rows behind one run's value: how many, where, and the file's hash."""
        path = self.root / SCORE_FILES.get(measure.kind, f"explain/{run_id}.csv")
        count = len(self.store.rows(run_id, measure))
        if measure.kind == "provenance":
            path, count = self.run_dir(run_id) / "provenance.json", 1
        return {"file": path.relative_to(self.root).as_posix(), "file_sha256": self.sha256(path), "rows": count}

    def gathered_faithfully(self, run_id: str, measure: Measure) -> bool:
        """Whether the store's rows behind a run's value are those of the run's own score file."""
        if measure.kind not in SCORE_FILES:
            return True
        folder = self.run_dir(run_id)
        name = f"scores_{measure.kind}.parquet" if task_of(folder) == "joint" else "scores.parquet"
        rows = read_scores(folder / name, measure.kind)
        own = Store.of(*((rows, []) if measure.kind == "segmentation" else ([], rows)))
        return own.rows(run_id, measure).equals(self.store.rows(run_id, measure))

    @cached_property
    def catalog(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(dataset, image id) -> the catalog's row: file, SHA-256, licence."""
        columns = ["dataset", "image_id", "path", "sha256", "licence"]
        rows = read_parquet(Layout(self.root).catalog, columns).to_pylist()
        return {(row["dataset"], row["image_id"]): row for row in rows}

    def images(self, dataset: str, image_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Catalog rows of images, sorted by id.

        Raises:
            RunError: the catalog lacks one.
        """
        wanted = sorted(set(image_ids))
        missing = [image for image in wanted if (dataset, image) not in self.catalog]
        if missing:
            raise RunError(
                f"Scored images of {dataset} are not in the catalog", file=Layout(self.root).catalog, ids=missing
            )
        return [self.catalog[dataset, image] for image in wanted]

    def split(self, run_id: str, dataset: str) -> dict[str, Any]:
        """The split file that a run's images were split by: its hash, the certificate's, and whether they agree."""
        layout, home = Layout(self.root), self.run(run_id)["settings"]["split_tables"]
        path = layout.split(home, dataset)
        now, certificate = self.sha256(path), layout.certificate(home)
        known = read_json(certificate)["splits"] if certificate.is_file() else {}
        certified = known.get(dataset, {}).get("sha256")
        state = "as certified" if now is not None and now == certified else "not as certified"
        name = path.relative_to(self.root).as_posix()
        return {"file": name, "sha256": now, "certified_sha256": certified, "state": state}


def images_sha256(images: list[dict[str, Any]]) -> str:
    """One hash of many images: over their ids and hashes, in order."""
    return sha256_text("\n".join(f"{image['image_id']} {image['sha256']}" for image in images))
