"""Significance within each table, at two levels that are never mixed: over seeds and over images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.files import write_csv
from lesion_core.paths import Layout
from lesion_core.report.classifier_tests import classifier_tests
from lesion_core.report.measures import Rows, lesion_of
from lesion_core.report.score_store import Store
from lesion_core.report.statistics_tables import write_table
from lesion_core.report.table_cells import dataset_of, is_oracle
from lesion_core.settings import Plan, TableRow
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.multiple import holm
from lesion_core.stats.paired import compare
from lesion_core.stats.power import smallest_detectable_d_z

COLUMNS = (
    "table",
    "compared",
    "dataset",
    "metric",
    "level",
    "proposed",
    "prompt",
    "other",
    "other_prompt",
    "n",
    "clusters",
    "difference",
    "ci_low",
    "ci_high",
    "interval",
    "shapiro_p",
    "p_t",
    "p_wilcoxon",
    "p_wilcoxon_smallest",
    "p_holm",
    "d_z",
    "d_av",
    "critical_d_z",
    "detectable_d_z",
    "seed_pairs",
    "p_mcnemar",
    "p_mcnemar_range",
    "p_mcnemar_smallest",
    "p_mcnemar_holm",
    "p_mcnemar_by_lesion",
    "p_mcnemar_by_lesion_range",
    "p_mcnemar_by_lesion_holm",
    "delong_melanoma_difference",
    "p_delong_melanoma",
    "p_delong_melanoma_range",
    "p_delong_melanoma_holm",
    "too_small",
    "notes",
    "runs",
    "other_runs",
)
CORRECTED = {  # p -> its value corrected by Holm over the family
    "p_wilcoxon": "p_holm",
    "p_mcnemar": "p_mcnemar_holm",
    "p_mcnemar_by_lesion": "p_mcnemar_by_lesion_holm",
    "p_delong_melanoma": "p_delong_melanoma_holm",
}
FAMILY = ("table", "compared", "metric", "level")
SEED, IMAGE = "seed", "image"
SAMPLE = "sample"


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
    write_csv(layout.statistics("tests"), COLUMNS, tests)


def all_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Every comparison of a proposed row with another row of its table, at both levels; rows of ``COLUMNS``.

    A family of Holm's correction is the tests of one compared table, metric and level.

    Raises:
        ScoreError: two methods were scored on different images.
    """
    tests: list[dict[str, Any]] = []
    for name, spec in plan.tests.items():
        seen: set[tuple[Any, ...]] = set()
        for table in spec.of:
            for pair in _comparisons(plan, table):
                runs = [tuple(plan.runs[method]) for method in pair.methods]
                key = (pair.dataset, pair.metric, *zip(runs, (pair.proposed.prompt, pair.other.prompt), strict=True))
                if key not in seen:
                    seen.add(key)
                    tests += _tests_of(store, plan, name, table, pair)
    _add_intervals(tests, plan)
    _adjust(tests)
    return tests


@dataclass(frozen=True)
class Comparison:
    """Two rows of one table, on one dataset by one metric."""

    proposed: TableRow
    other: TableRow
    dataset: str
    metric: str

    @property
    def methods(self) -> tuple[str, str]:
        """The methods of both."""
        return str(self.proposed.method), str(self.other.method)


def _comparisons(plan: Plan, name: str) -> Iterator[Comparison]:
    """A table's proposed rows, each with the rows that it can be compared with: see `is_fair`."""
    table = plan.tables[name]
    kinds = {"segmentation": ("segmentation",), "classification": ("classification",)}
    for kind in kinds.get(table.task, ("segmentation", "classification")):
        named = [row.model_copy(update={"method": row.scored_by(kind)}) for row in table.rows]
        rows = [row for row in named if plan.runs.get(row.method or "")]
        metric = plan.statistics.segmentation_metric if kind == "segmentation" else "accuracy"
        for proposed in (row for row in rows if row.proposed):
            dataset = dataset_of(table, metric, proposed)
            for other in rows:
                pair = Comparison(proposed, other, dataset, metric)
                own, theirs = (plan.runs[method] for method in pair.methods)
                same = own == theirs and other.prompt == proposed.prompt
                if not same and dataset_of(table, metric, other) == dataset and is_fair(plan, kind, proposed, other):
                    yield pair


def is_fair(plan: Plan, task: str, first: TableRow, second: TableRow) -> bool:
    """Whether both learnt from the same datasets, or one from none, and both get the same prompts from the truth."""
    learnt = [plan.trained_on.get(row.method or "", {}).get(task, []) for row in (first, second)]
    oracle = [row.prompt if is_oracle(row.prompt) else None for row in (first, second)]
    return oracle[0] == oracle[1] and (learnt[0] == learnt[1] or not all(learnt))


@dataclass(frozen=True)
class Scored:
    """One run's value of every image: (value, lesion); the lesion is the image itself where none is known."""

    run_id: str
    seed: int
    images: dict[str, tuple[float, str]]


def _tests_of(store: Store, plan: Plan, name: str, compared: str, pair: Comparison) -> list[dict[str, Any]]:
    """The tests of one comparison: over seeds, and over images; none where a side has no scores."""
    runs = [plan.runs[method] for method in pair.methods]
    if pair.metric == "accuracy":
        own, theirs = (_correct(store, one, pair.dataset) for one in runs)
    else:
        prompts = (pair.proposed.prompt, pair.other.prompt)
        own, theirs = (_per_image(store, one, pair, prompt) for one, prompt in zip(runs, prompts, strict=True))
    if not (own and theirs):
        return []
    by_seed, by_image = _pair(name, compared, pair, own, theirs, plan)
    if pair.metric == "accuracy":
        against, _ = _opponents(own, theirs, pair.methods[1], plan)
        matched = [(run.run_id, against[run.seed].run_id) for run in own if run.seed in against]
        found = [(store.classification[a, pair.dataset], store.classification[b, pair.dataset]) for a, b in matched]
        by_image |= classifier_tests(found) if found else {}
    return [by_seed, by_image]


def _per_image(store: Store, runs: list[str], pair: Comparison, prompt: str) -> list[Scored]:
    """One entry per scored run, at native size, under the row's prompt."""
    found = (store.segmentation.get((run, pair.dataset, prompt, "native")) for run in runs)
    return [_scored(rows, [dict[str, Any](row)[pair.metric] for row in rows]) for rows in found if rows]


def _correct(store: Store, runs: list[str], dataset: str) -> list[Scored]:
    found = (store.classification.get((run, dataset)) for run in runs)
    return [_scored(rows, [float(row["label"] == row["predicted"]) for row in rows]) for rows in found if rows]


def _scored(rows: Rows, values: list[float]) -> Scored:
    images = {row["image_id"]: (value, lesion_of(row)) for row, value in zip(rows, values, strict=True)}
    return Scored(rows[0]["run_id"], rows[0]["seed"], images)


def _pair(
    name: str, compared: str, pair: Comparison, own: list[Scored], theirs: list[Scored], plan: Plan
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The seed-level test and the image-level test."""
    images = sorted(own[0].images)
    for scored in (*own, *theirs):
        if sorted(scored.images) != images:
            raise ScoreError(
                f"{pair.proposed.method} and {pair.other.method} were scored on different images of {pair.dataset}",
                ids=sorted(set(images) ^ set(scored.images)),
                remedy="score both again",
            )
    identity = {
        "table": name,
        "compared": compared,
        "dataset": pair.dataset,
        "metric": pair.metric,
        "proposed": pair.proposed.method,
        "prompt": pair.proposed.prompt,
        "other": pair.other.method,
        "other_prompt": pair.other.prompt,
        "runs": " ".join(run.run_id for run in own),
        "other_runs": " ".join(run.run_id for run in theirs),
    }
    other = str(pair.other.method)
    lesions = [own[0].images[image][1] for image in images]
    a, b = (np.array([[run.images[image][0] for image in images] for run in runs]) for runs in (own, theirs))
    by_seed = _by_seed(own, theirs, a.mean(axis=1), b.mean(axis=1), other, plan)
    by_image = _by_image(a.mean(axis=0), b.mean(axis=0), lesions, plan)
    return {**identity, **by_seed}, {**identity, **by_image}


def _opponents(own: list[Scored], theirs: list[Scored], other: str, plan: Plan) -> tuple[dict[int, Scored], list[str]]:
    """Whom each of our seeds stands against, by seed; and a note where that is one run for all."""
    if len(plan.runs[other]) > 1 or len(own) == 1:
        return {run.seed: run for run in theirs}, []
    note = f"{other} has one run: it stands against every seed, and a spread of its own would not be seen"
    return dict.fromkeys((run.seed for run in own), theirs[0]), [note]


def _by_seed(
    own: list[Scored], theirs: list[Scored], a: np.ndarray, b: np.ndarray, other: str, plan: Plan
) -> dict[str, Any]:
    """Pairs are seeds: (S,) means over images of each side's runs, matched by seed."""
    ours = {run.seed: value for run, value in zip(own, a, strict=True)}
    values = {run.run_id: value for run, value in zip(theirs, b, strict=True)}
    opponents, notes = _opponents(own, theirs, other, plan)
    against = {seed: values[run.run_id] for seed, run in opponents.items()}
    seeds = sorted(ours.keys() & against.keys())
    if not seeds:
        return {"level": SEED, "n": 0, "notes": "n too small: no seed was run with both methods"}
    if len(seeds) < max(len(ours), len(against)):
        notes.append(f"only seeds {', '.join(map(str, seeds))} were run with both methods")
    result = compare(
        np.array([ours[seed] for seed in seeds]), np.array([against[seed] for seed in seeds]), plan.statistics.alpha
    )
    return {
        "level": SEED,
        **_paired(result, plan),
        "n": len(seeds),
        "difference": result.mean,
        "interval": "t",
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "notes": "; ".join((*result.notes, *notes)),
    }


def _by_image(a: np.ndarray, b: np.ndarray, lesions: list[str], plan: Plan) -> dict[str, Any]:
    """Pairs are test images, (N,) means over seeds; images of one lesion are not independent, so tests pair lesions."""
    _, cluster = np.unique(lesions, return_inverse=True)
    sizes = np.bincount(cluster)
    notes = []
    if len(sizes) < len(lesions):
        notes.append(f"tests pair the means of {len(sizes)} lesions, since images of one lesion are not independent")
    result = compare(np.bincount(cluster, a) / sizes, np.bincount(cluster, b) / sizes, plan.statistics.alpha)
    found = {
        "level": IMAGE,
        **_paired(result, plan),
        "n": len(lesions),
        "clusters": len(sizes),
        "difference": float(np.mean(a - b)),
    }
    notes = [*result.notes, *notes]
    # what the bootstrap needs; all comparisons of a dataset share its resamples, see `_add_intervals`
    return found | {"notes": "; ".join(notes), SAMPLE: (tuple(lesions), a - b)}


def _add_intervals(tests: list[dict[str, Any]], plan: Plan) -> None:
    """BCa intervals clustered by lesion; comparisons on the same images cost one set of resamples."""
    shared: dict[tuple[str, ...], list[tuple[dict[str, Any], np.ndarray]]] = {}
    for test in tests:
        if SAMPLE in test:
            lesions, difference = test.pop(SAMPLE)
            if len(set(lesions)) > 1:
                shared.setdefault(lesions, []).append((test, difference))
    for lesions, members in shared.items():
        interval = bootstrap_means(
            np.column_stack([difference for _, difference in members]),
            list(lesions),
            seed=plan.statistics.seed,
            resamples=plan.statistics.resamples,
            level=1.0 - plan.statistics.alpha,
        )
        for place, (test, _) in enumerate(members):
            test["interval"] = "BCa, clustered by lesion"
            test["ci_low"], test["ci_high"] = float(interval.low[place]), float(interval.high[place])
            test["notes"] = "; ".join(note for note in (test["notes"], *interval.notes) if note)


def _paired(result: Any, plan: Plan) -> dict[str, Any]:
    """What both levels report; ``n`` pairs were tested."""
    detectable = (
        smallest_detectable_d_z(result.n, plan.statistics.alpha, plan.statistics.power) if result.n > 1 else math.nan
    )
    return {
        "shapiro_p": result.shapiro_p,
        "p_t": result.p_t,
        "p_wilcoxon": result.p_wilcoxon if result.n > 1 else math.nan,
        "p_wilcoxon_smallest": result.p_wilcoxon_smallest,
        "d_z": result.d_z,
        "d_av": result.d_av,
        "critical_d_z": result.critical_d_z,
        "detectable_d_z": detectable,
        "too_small": result.n_too_small,
    }


def _adjust(tests: list[dict[str, Any]]) -> None:
    """Holm over each family; each kind of p by itself."""
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for test in tests:
        families.setdefault(tuple(test[name] for name in FAMILY), []).append(test)
    for family in families.values():
        for p, corrected in CORRECTED.items():
            defined = [test for test in family if math.isfinite(test.get(p, math.nan))]
            adjusted = holm(np.array([test[p] for test in defined]))
            for test, value in zip(defined, adjusted, strict=True):
                test[corrected] = float(value)
    for test in tests:
        test["too_small"] = "yes" if test.get("too_small", True) else ""
        for column in COLUMNS:
            value = test.get(column, "")
            test[column] = "" if isinstance(value, float) and math.isnan(value) else value
