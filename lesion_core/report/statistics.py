"""Significance, at two levels that are never mixed: over seeds (as paper A, Tables 15 and 16) and over images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
from lesion_core.report.statistics_tables import TITLES, write_table
from lesion_core.settings import Plan
from lesion_core.stats.bootstrap import bootstrap_means
from lesion_core.stats.multiple import holm
from lesion_core.stats.paired import compare
from lesion_core.stats.power import smallest_detectable_d_z

COLUMNS = (
    "table",
    "dataset",
    "metric",
    "level",
    "proposed",
    "other",
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
SEED, IMAGE = "seed", "image"
SAMPLE = "sample"


def write_statistics(root: Path, plan: Plan) -> None:
    """Write ``statistics/tests.csv`` and Tables 15 (segmentation) and 16 (classification).

    Raises:
        ScoreError: the score store is missing or broken, or two methods were scored on different images.
    """
    tests = all_tests(Store.read(root), plan)
    layout = Layout(root)
    for name in TITLES:
        write_table(name, layout.table(name, "csv"), COLUMNS, [test for test in tests if test["table"] == name], plan)
    write_csv(layout.statistics("tests"), COLUMNS, tests)


def all_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """Every comparison with the proposed methods, at both levels, corrected over its family; rows of ``COLUMNS``.

    Raises:
        ScoreError: two methods were scored on different images.
    """
    tests = [*_segmentation_tests(store, plan), *_classification_tests(store, plan)]
    _add_intervals(tests, plan)
    _adjust(tests, plan.statistics.family)
    return tests


@dataclass(frozen=True)
class Scored:
    """One run's value of every image: (value, lesion); the lesion is the image itself where none is known."""

    run_id: str
    seed: int
    images: dict[str, tuple[float, str]]


def _segmentation_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    metric, proposed = plan.statistics.segmentation_metric, plan.statistics.segmentation_proposed
    tests: list[dict[str, Any]] = []
    for dataset in sorted({key[1] for key in store.segmentation}):
        own = _per_image(store, plan.runs.get(proposed, []), dataset, metric)
        for other in _others(plan, proposed):
            theirs = _per_image(store, plan.runs[other], dataset, metric)
            if own and theirs:
                tests.extend(_pair("table_15", dataset, metric, proposed, other, own, theirs, plan))
    return tests


def _classification_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    proposed = plan.statistics.classification_proposed
    tests: list[dict[str, Any]] = []
    for dataset in sorted({key[1] for key in store.classification}):
        own = _correct(store, plan.runs.get(proposed, []), dataset)
        for other in _others(plan, proposed):
            theirs = _correct(store, plan.runs[other], dataset)
            if not (own and theirs):
                continue
            by_seed, by_image = _pair("table_16", dataset, "accuracy", proposed, other, own, theirs, plan)
            against, _ = _opponents(own, theirs, other, plan)
            pairs = [(run.run_id, against[run.seed].run_id) for run in own if run.seed in against]
            if pairs:
                found = [(store.classification[a, dataset], store.classification[b, dataset]) for a, b in pairs]
                by_image |= classifier_tests(found)
            tests.extend((by_seed, by_image))
    return tests


def _others(plan: Plan, proposed: str) -> list[str]:
    """All other methods; names that share their runs are one comparison, or Holm would count it twice."""
    seen = set(plan.runs.get(proposed, []))
    names = []
    for name, runs in plan.runs.items():
        if name != proposed and not seen & set(runs):
            names.append(name)
            seen.update(runs)
    return names


def _per_image(store: Store, runs: list[str], dataset: str, metric: str) -> list[Scored]:
    """One entry per scored run; native size, no prompt."""
    found: Iterable[Rows | None] = (store.segmentation.get((run, dataset, "none", "native")) for run in runs)
    return [_scored(rows, [row[metric] for row in rows]) for rows in found if rows]


def _correct(store: Store, runs: list[str], dataset: str) -> list[Scored]:
    found = (store.classification.get((run, dataset)) for run in runs)
    return [_scored(rows, [float(row["label"] == row["predicted"]) for row in rows]) for rows in found if rows]


def _scored(rows: Rows, values: list[float]) -> Scored:
    images = {row["image_id"]: (value, lesion_of(row)) for row, value in zip(rows, values, strict=True)}
    return Scored(rows[0]["run_id"], rows[0]["seed"], images)


def _pair(
    table: str,
    dataset: str,
    metric: str,
    proposed: str,
    other: str,
    own: list[Scored],
    theirs: list[Scored],
    plan: Plan,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The seed-level test and the image-level test."""
    images = sorted(own[0].images)
    for scored in (*own, *theirs):
        if sorted(scored.images) != images:
            raise ScoreError(
                f"{proposed} and {other} were scored on different images of {dataset}",
                ids=sorted(set(images) ^ set(scored.images)),
                remedy="score both again",
            )
    identity = {
        "table": table,
        "dataset": dataset,
        "metric": metric,
        "proposed": proposed,
        "other": other,
        "runs": " ".join(run.run_id for run in own),
        "other_runs": " ".join(run.run_id for run in theirs),
    }
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


def _adjust(tests: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Holm over each family, that is, the tests which agree in all of ``names``; each kind of p by itself."""
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for test in tests:
        families.setdefault(tuple(test[name] for name in names), []).append(test)
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
