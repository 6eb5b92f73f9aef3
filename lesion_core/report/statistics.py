"""Significance within each table, at two levels that are never mixed: over seeds and over images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesion_core.errors import ScoreError
from lesion_core.paths import Layout
from lesion_core.report.classifier_tests import classifier_tests
from lesion_core.report.formats import write_rows
from lesion_core.report.measures import lesions_of
from lesion_core.report.score_store import Store
from lesion_core.report.statistics_tables import write_table
from lesion_core.report.table_cells import dataset_of, is_oracle
from lesion_core.settings import Plan, TableRow
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.multiple import holm
from lesion_core.stats.paired import compare
from lesion_core.stats.power import smallest_detectable_d_z

IDENTITY = ("table", "compared", "dataset", "metric", "level", "proposed", "prompt", "other", "other_prompt")
PAIRED = ("shapiro_p", "p_t", "p_wilcoxon", "p_wilcoxon_smallest", "p_holm", "d_z", "d_av", "critical_d_z")
MCNEMAR, BY_LESION, DELONG = "p_mcnemar", "p_mcnemar_by_lesion", "p_delong_melanoma"
COLUMNS = (
    *(*IDENTITY, "n", "clusters", "difference", "ci_low", "ci_high", "interval", *PAIRED, "detectable_d_z"),
    *("seed_pairs", MCNEMAR, f"{MCNEMAR}_range", f"{MCNEMAR}_smallest", f"{MCNEMAR}_holm"),
    *(BY_LESION, f"{BY_LESION}_range", f"{BY_LESION}_holm"),
    *("delong_melanoma_difference", DELONG, f"{DELONG}_range", f"{DELONG}_holm"),
    *("too_small", "notes", "runs", "other_runs"),
)
CORRECTED = {"p_wilcoxon": "p_holm"} | {p: f"{p}_holm" for p in (MCNEMAR, BY_LESION, DELONG)}  # by Holm, per family
FAMILY = ["table", "compared", "metric", "level"]
SEED, IMAGE = "seed", "image"


def write_statistics(root: Path, plan: Plan) -> None:
    """Write ``statistics/tests.csv`` and the plan's tables of tests.

    Raises:
        ScoreError: the score store is missing or broken, or two methods were scored on different images.
    """
    tests = all_tests(Store.read(root), plan)
    layout = Layout(root)
    for name, spec in plan.tests.items():
        own = [test for test in tests if test["table"] == name]
        write_table(spec.title, layout.table(name, "csv"), COLUMNS, own, plan)
    write_rows(layout.statistics("tests"), COLUMNS, tests, plan)


def all_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Every comparison of a proposed row with another row of its table, at both levels; rows of ``COLUMNS``.

    A family of Holm's correction is the tests of one compared table, metric and level. What is not defined is empty.

    Raises:
        ScoreError: two methods were scored on different images.
    """
    tests: list[dict[str, Any]] = []
    samples: dict[tuple[str, ...], list[tuple[dict[str, Any], np.ndarray]]] = {}  # by the images' lesions
    for name, spec in plan.tests.items():
        seen: set[tuple[Any, ...]] = set()
        for compared in spec.of:
            for pair in _comparisons(plan, compared):
                if (key := pair.key(plan)) in seen:
                    continue
                seen.add(key)
                sides = pair.sides(store, plan)
                if all(sides):
                    identity = {"table": name, "compared": compared, **pair.identity(sides)}
                    by_image, lesions, difference = _by_image(pair, sides, plan)
                    tests += [identity | _by_seed(pair, sides, plan), identity | by_image]
                    samples.setdefault(lesions, []).append((tests[-1], difference))
    _add_intervals(samples, plan)
    _correct(tests)
    return [{column: _text(test, column) for column in COLUMNS} for test in tests]


@dataclass(frozen=True)
class Side:
    """One method's scored runs; ``values`` is a frame of image id x seed."""

    runs: dict[int, str]
    rows: list[pd.DataFrame]
    values: pd.DataFrame

    def __bool__(self) -> bool:
        return bool(self.runs)


@dataclass(frozen=True)
class Comparison:
    """Two rows of one table, on one dataset by one metric."""

    proposed: TableRow
    other: TableRow
    dataset: str
    metric: str

    def key(self, plan: Plan) -> tuple[Any, ...]:
        """What is compared, whatever its names."""
        rows = (self.proposed, self.other)
        return (self.dataset, self.metric, *((tuple(plan.runs[str(row.method)]), row.prompt) for row in rows))

    def sides(self, store: Store, plan: Plan) -> tuple[Side, Side]:
        """Both methods' values of each image at native size (a hit counts 1), under the rows' prompts.

        Raises:
            ScoreError: they were scored on different images.
        """
        own, other = (self._side(store, plan, row) for row in (self.proposed, self.other))
        if own and other:
            images = {*own.rows[0]["image_id"]}
            for rows in (*own.rows, *other.rows):
                if {*rows["image_id"]} != images:
                    raise ScoreError(
                        f"{self.proposed.method} and {self.other.method} were scored on different images of"
                        f" {self.dataset}",
                        ids=sorted(images ^ {*rows["image_id"]}),
                        remedy="score both again",
                    )
        return own, other

    def _side(self, store: Store, plan: Plan, row: TableRow) -> Side:
        found = []
        for run in plan.runs[str(row.method)]:
            if self.metric == "accuracy":
                rows = store.classification.get((run, self.dataset))
            else:
                rows = store.segmentation.get((run, self.dataset, row.prompt, "native"))
            if rows is not None:
                hits = rows["label"] == rows["predicted"] if self.metric == "accuracy" else rows[self.metric]
                found.append(rows.assign(**{self.metric: hits.astype("float64")}))
        seeds = {int(rows["seed"].iloc[0]): rows for rows in found}
        values = pd.DataFrame({seed: rows.set_index("image_id")[self.metric] for seed, rows in seeds.items()})
        return Side({seed: rows["run_id"].iloc[0] for seed, rows in seeds.items()}, found, values)

    def identity(self, sides: tuple[Side, Side]) -> dict[str, Any]:
        """What a row of the tests is called."""
        named: dict[str, Any] = {"dataset": self.dataset, "metric": self.metric}
        named |= {"proposed": self.proposed.method, "prompt": self.proposed.prompt}
        named |= {"other": self.other.method, "other_prompt": self.other.prompt}
        return named | {
            key: " ".join(side.runs.values()) for key, side in zip(("runs", "other_runs"), sides, strict=True)
        }

    def one_for_all(self, sides: tuple[Side, Side], plan: Plan) -> bool:
        """Whether the other has a single run, which stands against every seed of ours."""
        return len(plan.runs[str(self.other.method)]) == 1 < len(sides[0].runs)

    def opponents(self, sides: tuple[Side, Side], plan: Plan) -> dict[int, int]:
        """The other's seed that each of our seeds stands against."""
        own, other = (side.runs for side in sides)
        if self.one_for_all(sides, plan):
            return dict.fromkeys(own, next(iter(other)))
        return {seed: seed for seed in own if seed in other}


def _comparisons(plan: Plan, name: str) -> Iterator[Comparison]:
    """A table's proposed rows, each with the rows that it can be compared with: see `is_fair`."""
    table = plan.tables[name]
    for kind in ("segmentation", "classification") if table.task == "both" else (table.task,):
        named = [row.model_copy(update={"method": row.scored_by(kind)}) for row in table.rows]
        rows = [row for row in named if plan.runs.get(row.method or "")]
        metric = plan.statistics.segmentation_metric if kind == "segmentation" else "accuracy"
        for proposed in (row for row in rows if row.proposed):
            dataset = dataset_of(table, metric, proposed)
            for other in rows:
                own, theirs = (plan.runs[str(row.method)] for row in (proposed, other))
                same = own == theirs and other.prompt == proposed.prompt
                if not same and dataset_of(table, metric, other) == dataset and is_fair(plan, kind, proposed, other):
                    yield Comparison(proposed, other, dataset, metric)


def is_fair(plan: Plan, task: str, first: TableRow, second: TableRow) -> bool:
    """Whether both learnt from the same datasets, or one from none, and both get the same prompts from the truth."""
    learnt = [plan.trained_on.get(row.method or "", {}).get(task, []) for row in (first, second)]
    oracle = [row.prompt if is_oracle(row.prompt) else None for row in (first, second)]
    return oracle[0] == oracle[1] and (learnt[0] == learnt[1] or not all(learnt))


def _by_seed(pair: Comparison, sides: tuple[Side, Side], plan: Plan) -> dict[str, Any]:
    """Pairs are seeds, matched by number: means over images of each side's runs."""
    own, other = (side.runs for side in sides)
    against = pair.opponents(sides, plan)
    if not against:
        return {"level": SEED, "n": 0, "notes": "n too small: no seed was run with both methods"}
    notes = []
    if pair.one_for_all(sides, plan):
        other_name = pair.other.method
        notes.append(
            f"{other_name} has one run: it stands against every seed, and a spread of its own would not be seen"
        )
    elif len(against) < max(len(own), len(other)):
        notes.append(f"only seeds {', '.join(map(str, sorted(against)))} were run with both methods")
    means = [{seed: float(side.values[seed].to_numpy().mean()) for seed in side.runs} for side in sides]
    a, b = (
        np.array(part) for part in zip(*((means[0][s], means[1][against[s]]) for s in sorted(against)), strict=True)
    )
    found, result = _paired(a, b, plan)
    found |= {"n": len(against), "difference": result.mean, "interval": "t"}
    return {
        "level": SEED,
        **found,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "notes": "; ".join((*result.notes, *notes)),
    }


def _by_image(
    pair: Comparison, sides: tuple[Side, Side], plan: Plan
) -> tuple[dict[str, Any], tuple[str, ...], np.ndarray]:
    """Pairs are test images, means over seeds; images of one lesion are not independent, so tests pair lesions.

    Returns:
        the test, and for its interval the lesion of each image and (N,) differences
    """
    lesions = lesions_of(sides[0].rows[0])
    a, b = (side.values.to_numpy().T.mean(axis=0) for side in sides)
    _, cluster = np.unique(lesions.astype(str), return_inverse=True)
    sizes = np.bincount(cluster)
    found, result = _paired(np.bincount(cluster, a) / sizes, np.bincount(cluster, b) / sizes, plan)
    notes = [*result.notes]
    if len(sizes) < len(lesions):
        notes.append(f"tests pair the means of {len(sizes)} lesions, since images of one lesion are not independent")
    found |= {"level": IMAGE, "n": len(lesions), "clusters": len(sizes), "difference": float(np.mean(a - b))}
    if pair.metric == "accuracy" and (against := pair.opponents(sides, plan)):
        rows = [{int(own["seed"].iloc[0]): own for own in side.rows} for side in sides]
        found |= classifier_tests([(rows[0][seed], rows[1][other]) for seed, other in against.items()])
    return found | {"notes": "; ".join(notes)}, tuple(lesions), a - b


def _paired(a: np.ndarray, b: np.ndarray, plan: Plan) -> tuple[dict[str, Any], Any]:
    """What both levels report, of (n,) paired values."""
    result = compare(a, b, plan.statistics.alpha)
    found = {name: getattr(result, name) for name in PAIRED if name != "p_holm"}
    found["detectable_d_z"] = math.nan
    if result.n > 1:
        found["detectable_d_z"] = smallest_detectable_d_z(result.n, plan.statistics.alpha, plan.statistics.power)
    else:
        found["p_wilcoxon"] = math.nan
    return found | {"too_small": result.n_too_small}, result


def _add_intervals(samples: dict[tuple[str, ...], list[tuple[dict[str, Any], np.ndarray]]], plan: Plan) -> None:
    """BCa intervals clustered by lesion; comparisons on the same images cost one set of resamples."""
    rule = plan.statistics
    for lesions, members in samples.items():
        if len(set(lesions)) < 2:
            continue
        differences = np.column_stack([difference for _, difference in members])
        drawn = bootstrap_means(
            differences, list(lesions), seed=rule.seed, resamples=rule.resamples, level=1.0 - rule.alpha
        )
        for (test, _), low, high in zip(members, drawn.low, drawn.high, strict=True):
            test |= {"interval": "BCa, clustered by lesion", "ci_low": float(low), "ci_high": float(high)}
            test["notes"] = "; ".join(note for note in (test["notes"], *drawn.notes) if note)


def _correct(tests: list[dict[str, Any]]) -> None:
    """Holm over each family; each kind of p by itself."""
    for p, corrected in CORRECTED.items():
        families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for test in tests:
            if math.isfinite(test.get(p, math.nan)):
                families.setdefault(tuple(test[name] for name in FAMILY), []).append(test)
        for family in families.values():
            for test, value in zip(family, holm(np.array([test[p] for test in family])), strict=True):
                test[corrected] = float(value)


def _text(test: dict[str, Any], column: str) -> Any:
    if column == "too_small":
        return "yes" if test.get(column, True) else ""
    value = test.get(column, "")
    return "" if isinstance(value, float) and math.isnan(value) else value
