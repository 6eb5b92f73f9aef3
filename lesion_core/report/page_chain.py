"""What a click on a cell shows: every cell's chain, compact enough to be embedded in the page."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lesion_core.report.images import MaskArchive
from lesion_core.report.lineage import Lineage, images_sha256, sides_of
from lesion_core.report.measures import Measure
from lesion_core.report.table_cells import value_text
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
        return self._add("cells", cell, {"text": value_text(cell)})

    def add_test(self, test: dict[str, str]) -> int:
        """Make a row of ``statistics/tests.csv`` known; returns its number."""
        return self._add("tests", test, {})

    def _add(self, where: str, item: dict[str, Any], more: dict[str, Any]) -> int:
        record = {key: value for key, value in item.items() if value not in (None, "") and not key.startswith("best")}
        sides = sides_of(item)
        for key in ("run_ids", "other_runs"):
            record.pop(key, None)
        record |= {"runs": [run_id for run_id, _ in sides], "rows": [], **more}
        for run_id, measure in sides:
            self.add_run(run_id)
            rows = self.chain.rows(run_id, measure)
            record["rows"].append([rows["file"], rows["rows"]])
            if measure.kind != "provenance":  # it tells of times: its hash would differ between two equal results
                self.content["files"][rows["file"]] = rows["file_sha256"]
        run_id, measure = sides[0]
        if measure.kind != "provenance":
            record |= self._images(run_id, measure)
        if where == "cells" and (measure.kind, measure.averaging, measure.minus) == ("segmentation", "image", None):
            record["shown"] = self._shown(item["method"], run_id, measure)
        self.content[where].append(record)
        return len(self.content[where]) - 1

    def _shown(self, method: str, run_id: str, measure: Measure) -> list[list[Any]]:
        """[image id, SHA-256, value, mask's SHA-256 or None] of the images of lowest, middle and highest value.

        A run's masks are kept under the prompt that its method is meant for, and under no other.
        """
        if measure.metric not in COLUMNS["segmentation"]:
            return []
        rows = self.chain.store.rows(run_id, measure).sort_values([measure.metric, "image_id"])
        shown = rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})]
        with ExitStack() as stack:
            kept = measure.prompt == self.plan.prompt_of(method)
            masks = stack.enter_context(MaskArchive(self.chain.root, run_id)) if kept else None
            return [
                [
                    name,
                    self.chain.images(measure.dataset, [name])[0]["sha256"],
                    value,
                    masks.sha256(measure.dataset, name) if masks else None,
                ]
                for name, value in zip(shown["image_id"], shown[measure.metric].tolist(), strict=True)
            ]

    def _images(self, run_id: str, measure: Measure) -> dict[str, Any]:
        """The file that split a run's images, and the number of their list."""
        split = self.chain.split(run_id, measure.dataset)
        self.content["splits"].setdefault(split["file"], split)
        ids = sorted(set(self.chain.store.rows(run_id, measure)["image_id"]))
        key = (measure.dataset, *ids)
        if key not in self._sets:
            images = self.chain.images(measure.dataset, ids)
            self._sets[key] = len(self.content["images"])
            pairs = [[image["image_id"], image["sha256"]] for image in images]
            self.content["images"].append({"sha256": images_sha256(images), "list": pairs})
        return {"split": split["file"], "images": self._sets[key]}
