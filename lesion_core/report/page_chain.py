"""What a click on a cell shows: every cell's chain, compact enough to be embedded in the page."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lesion_core.report.images import MaskArchive
from lesion_core.report.lineage import SCORE_FILES, Lineage
from lesion_core.report.measures import Measure
from lesion_core.report.table_cells import measure_of, value_text
from lesion_core.report.trace import images_sha256
from lesion_core.scores import COLUMNS
from lesion_core.settings import Plan


class ChainData:
    """Cells, the runs and splits that they came from, and the images; each stands once and is pointed at.

    Attributes:
        content: {cells, tests, runs, splits, files, images}; ``images`` are lists of [id, SHA-256].
    """

    def __init__(self, chain: Lineage, plan: Plan) -> None:
        self.chain, self.plan = chain, plan
        self.content: dict[str, Any] = {"cells": [], "tests": [], "runs": {}, "splits": {}, "files": {}, "images": []}
        self._sets: dict[tuple[str, ...], int] = {}

    def add_run(self, run_id: str) -> None:
        """Make a run known."""
        if run_id not in self.content["runs"]:
            self.content["runs"][run_id] = self.chain.run(run_id)

    def add_cell(self, cell: dict[str, Any]) -> int:
        """Make a cell with a value known; returns its number."""
        measure, run_ids = measure_of(cell), cell["run_ids"].split()
        record = {key: value for key, value in cell.items() if value is not None and not key.startswith("best")}
        record |= {"runs": run_ids, "text": value_text(cell), "rows": []}
        record.pop("run_ids")
        for run_id in run_ids:
            self.add_run(run_id)
            if measure.kind == "provenance":
                name, rows = f"{self.chain.run_dir(run_id).relative_to(self.chain.root)}/provenance.json", 1
            else:
                name = SCORE_FILES.get(measure.kind, f"explain/{run_id}.csv")
                rows = len(self.chain.store.rows(run_id, measure))
            record["rows"].append([name, rows])
            if measure.kind != "provenance":  # it tells of times: its hash would differ between two equal results
                self.content["files"][name] = self.chain.sha256(self.chain.root / name)
        if measure.kind != "provenance":
            ids = tuple(row["image_id"] for row in self.chain.store.rows(run_ids[0], measure))
            record |= self._images(run_ids[0], measure.dataset, ids)
        if measure.kind == "segmentation" and measure.averaging == "image" and measure.minus is None:
            record["shown"] = self._shown(cell["method"], run_ids[0], measure)
        self.content["cells"].append(record)
        return len(self.content["cells"]) - 1

    def add_test(self, test: dict[str, str], kind: str) -> int:
        """Make a row of ``statistics/tests.csv`` known; returns its number."""
        run_ids = [*test["runs"].split(), *test["other_runs"].split()]
        for run_id in run_ids:
            self.add_run(run_id)
        name = SCORE_FILES[kind]
        self.content["files"][name] = self.chain.sha256(self.chain.root / name)
        store = self.chain.store.segmentation if kind == "segmentation" else self.chain.store.classification
        sides = [(run_id, test["prompt"]) for run_id in test["runs"].split()]
        sides += [(run_id, test["other_prompt"]) for run_id in test["other_runs"].split()]
        tails = {run_id: (prompt, "native") if kind == "segmentation" else () for run_id, prompt in sides}
        rows = {run_id: store.get((run_id, test["dataset"], *tails[run_id]), []) for run_id in run_ids}
        record: dict[str, Any] = {key: value for key, value in test.items() if value and key != "other_runs"}
        record |= {"runs": run_ids, "rows": [[name, len(rows[run_id])] for run_id in run_ids]}
        record |= self._images(run_ids[0], test["dataset"], tuple(row["image_id"] for row in rows[run_ids[0]]))
        self.content["tests"].append(record)
        return len(self.content["tests"]) - 1

    def _shown(self, method: str, run_id: str, measure: Measure) -> list[list[Any]]:
        """[image id, SHA-256, value, mask's SHA-256 or None] of the images of lowest, middle and highest value.

        A run's masks are kept under the prompt that its method is meant for, and under no other.
        """
        if measure.metric not in COLUMNS["segmentation"]:
            return []
        values = [(row[measure.metric], row["image_id"]) for row in self.chain.store.rows(run_id, measure)]
        ordered = sorted(values)
        places = sorted({0, len(ordered) // 2, len(ordered) - 1})
        found = {
            row["image_id"]: row["sha256"] for row in self.chain.images(measure.dataset, (name for _, name in ordered))
        }
        with ExitStack() as stack:
            kept = measure.prompt == self.plan.prompt_of(method)
            masks = stack.enter_context(MaskArchive(self.chain.root, run_id)) if kept else None
            return [
                [name, found[name], value, masks.sha256(measure.dataset, name) if masks else None]
                for value, name in (ordered[place] for place in places)
            ]

    def _images(self, run_id: str, dataset: str, ids: tuple[str, ...]) -> dict[str, Any]:
        """The file that split a run's images, and the number of their list."""
        split = self.chain.split(run_id, dataset)
        self.content["splits"].setdefault(split["file"], split)
        key = (dataset, *sorted(set(ids)))
        if key not in self._sets:
            images = self.chain.images(dataset, ids)
            self._sets[key] = len(self.content["images"])
            pairs = [[image["image_id"], image["sha256"]] for image in images]
            self.content["images"].append({"sha256": images_sha256(images), "list": pairs})
        return {"split": split["file"], "images": self._sets[key]}
