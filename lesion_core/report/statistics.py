"""Significance, at two levels that are never mixed: over seeds (as paper A, Tables 15 and 16) and over images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.errors import ScoreError
from lesion_core.files import write_csv
from lesion_core.paths import Layout
from lesion_core.report.formats import Grid, full_title, write_grid
from lesion_core.report.values import Store, truth_and_probabilities
from lesion_core.settings import CLASSES, Plan

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
    "p_mcnemar",
    "delong_melanoma_difference",
    "p_delong_melanoma",
    "too_small",
    "notes",
)
SEED, IMAGE = "seed", "image"


def write_statistics(root: Path, plan: Plan) -> None:
    """Write ``statistics/tests.csv`` and Tables 15 (segmentation) and 16 (classification).

    Raises:
        ScoreError: the score store is missing or broken, or two methods were scored on different images.
    """
    store = Store.read(root)
    tests = [*_segmentation_tests(store, plan), *_classification_tests(store, plan)]
    _adjust(tests)
    layout = Layout(root)
    for name, title in (
        ("table_15", "Significance of segmentation differences (proposed - other)"),
        ("table_16", "Significance of classification differences (proposed - other)"),
    ):
        _write_table(name, title, layout.table(name, "csv"), [test for test in tests if test["table"] == name], plan)
    write_csv(layout.root / "statistics" / "tests.csv", COLUMNS, tests)


@dataclass(frozen=True)
class Scored:
    """One run's value of every image: (value, lesion); the lesion is the image itself where none is known."""

    seed: int
    images: dict[str, tuple[float, str]]


def _segmentation_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    metric, proposed = plan.statistics.segmentation_metric, plan.statistics.segmentation_proposed
    tests = []
    for dataset in sorted({key[1] for key in store.segmentation}):
        own = _per_image(store, plan.runs.get(proposed, []), dataset, metric)
        for other in _others(plan, proposed):
            theirs = _per_image(store, plan.runs[other], dataset, metric)
            if own and theirs:
                tests.extend(_pair("table_15", dataset, metric, proposed, other, own, theirs, plan))
    return tests


def _classification_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    proposed = plan.statistics.classification_proposed
    tests = []
    for dataset in sorted({key[1] for key in store.classification}):
        own = _correct(store, plan.runs.get(proposed, []), dataset)
        for other in _others(plan, proposed):
            theirs = _correct(store, plan.runs[other], dataset)
            if not (own and theirs):
                continue
            by_seed, by_image = _pair("table_16", dataset, "accuracy", proposed, other, own, theirs, plan)
            runs = plan.runs[proposed][0], plan.runs[other][0]
            if all((run, dataset) in store.classification for run in runs):
                by_image |= _first_seed_tests(*(store.classification[run, dataset] for run in runs))
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
    found = (store.segmentation.get((run, dataset, "none", "native")) for run in runs)
    return [_scored(rows, [row[metric] for row in rows]) for rows in found if rows]


def _correct(store: Store, runs: list[str], dataset: str) -> list[Scored]:
    found = (store.classification.get((run, dataset)) for run in runs)
    return [_scored(rows, [float(row["label"] == row["predicted"]) for row in rows]) for rows in found if rows]


def _scored(rows: list[dict[str, Any]], values: list[float]) -> Scored:
    images = {row["image_id"]: (value, _lesion(row)) for row, value in zip(rows, values, strict=True)}
    return Scored(rows[0]["seed"], images)


def _lesion(row: dict[str, Any]) -> str:
    return row["lesion_id"] or row["image_id"]


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
    identity = {"table": table, "dataset": dataset, "metric": metric, "proposed": proposed, "other": other}
    lesions = [own[0].images[image][1] for image in images]
    a, b = (np.array([[run.images[image][0] for image in images] for run in runs]) for runs in (own, theirs))
    by_seed = _by_seed(own, theirs, a.mean(axis=1), b.mean(axis=1), other, plan)
    by_image = _by_image(a.mean(axis=0), b.mean(axis=0), lesions, plan)
    return {**identity, **by_seed}, {**identity, **by_image}


def _by_seed(
    own: list[Scored], theirs: list[Scored], a: np.ndarray, b: np.ndarray, other: str, plan: Plan
) -> dict[str, Any]:
    """Pairs are seeds: (S,) means over images of each side's runs, matched by seed."""
    from lesion_core.stats.paired import compare

    notes = []
    ours = {run.seed: value for run, value in zip(own, a, strict=True)}
    if len(plan.runs[other]) == 1 and len(ours) > 1:
        # a method without randomness has one run: with any seed it would give the same
        against = dict.fromkeys(ours, b[0])
        notes.append(f"{other} has no randomness: its one run stands against every seed")
    else:
        against = {run.seed: value for run, value in zip(theirs, b, strict=True)}
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
    from lesion_core.stats.bootstrap import bootstrap_means
    from lesion_core.stats.paired import compare

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
    if len(sizes) < 2:
        return found | {"notes": "; ".join((*result.notes, *notes))}
    interval = bootstrap_means(
        a - b,
        lesions,
        seed=plan.statistics.seed,
        resamples=plan.statistics.resamples,
        level=1.0 - plan.statistics.alpha,
    )
    return found | {
        "interval": "BCa, clustered by lesion",
        "ci_low": float(interval.bca_low[0]),
        "ci_high": float(interval.bca_high[0]),
        "notes": "; ".join((*result.notes, *notes, *interval.notes)),
    }


def _paired(result: Any, plan: Plan) -> dict[str, Any]:
    """What both levels report; ``n`` pairs were tested."""
    from lesion_core.stats.power import smallest_detectable_d_z

    detectable = smallest_detectable_d_z(result.n, plan.statistics.alpha) if result.n > 1 else math.nan
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


def _first_seed_tests(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """McNemar's exact test (image by image) and DeLong's of melanoma's AUC (by lesion), on the first seeds' runs."""
    from lesion_core.stats.classifiers import delong, mcnemar_exact

    truth, ours = truth_and_probabilities(own)
    _, other = truth_and_probabilities(theirs)
    correct = [np.array([row["label"] == row["predicted"] for row in rows]) for rows in (own, theirs)]
    found: dict[str, Any] = {"p_mcnemar": mcnemar_exact(*correct).p}
    melanoma = CLASSES.index("mel")
    positive = truth == melanoma
    lesions = np.array([_lesion(row) for row in own])
    if len(set(lesions[positive])) > 1 and len(set(lesions[~positive])) > 1:
        result = delong(positive, ours[:, melanoma], other[:, melanoma], lesions)
        found |= {"delong_melanoma_difference": result.difference, "p_delong_melanoma": result.p}
    return found


def _adjust(tests: list[dict[str, Any]]) -> None:
    """Holm over each family: one table, dataset and level."""
    from lesion_core.stats.multiple import holm

    families: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for test in tests:
        families.setdefault((test["table"], test["dataset"], test["level"]), []).append(test)
    for family in families.values():
        defined = [test for test in family if math.isfinite(test.get("p_wilcoxon", math.nan))]
        if defined:
            adjusted = holm(np.array([test["p_wilcoxon"] for test in defined]))
            for test, value in zip(defined, adjusted, strict=True):
                test["p_holm"] = float(value)
    for test in tests:
        test["too_small"] = "yes" if test.get("too_small", True) else ""
        for column in COLUMNS:
            value = test.get(column, "")
            test[column] = "" if isinstance(value, float) and math.isnan(value) else value


def _write_table(name: str, title: str, path: Path, tests: list[dict[str, Any]], plan: Plan) -> None:
    level = f"{100 * (1 - plan.statistics.alpha):g} % CI"
    columns = (
        "Compared with", "Dataset", "Metric", "Level", "n", "Lesions", "Difference", level, "Shapiro p", "t p",
        "Wilcoxon p", "smallest p", "Holm p", "d_z", "d_av", "detectable d_z", "Judgement",
    )  # fmt: skip
    rows = []
    for test in tests:
        interval = ""
        if test["ci_low"] != "":
            interval = f"[{_number(test['ci_low'], 100.0, 2)}, {_number(test['ci_high'], 100.0, 2)}]"
        rows.append(
            (
                test["other"],
                test["dataset"],
                test["metric"],
                test["level"],
                str(test["n"]),
                str(test["clusters"]),
                _number(test["difference"], 100.0, 2),
                interval,
                _p(test["shapiro_p"]),
                _p(test["p_t"]),
                _p(test["p_wilcoxon"]),
                _p(test["p_wilcoxon_smallest"]),
                _p(test["p_holm"]),
                _number(test["d_z"], 1.0, 2),
                _number(test["d_av"], 1.0, 2),
                _number(test["detectable_d_z"], 1.0, 2),
                judgement(test, plan.statistics.alpha),
            )
        )
    proposed = plan.statistics.segmentation_proposed if name == "table_15" else plan.statistics.classification_proposed
    notes = [
        f"Differences in percentage points, {proposed} minus the other, with {plan.profile} data. Level seed: pairs are"
        " seeds, as in paper A; interval from t. Level image: pairs are test images (mean over seeds), averaged within"
        f" lesions for the tests; interval from a BCa bootstrap clustered by lesion ({plan.statistics.resamples}"
        " resamples).",
        "smallest p: what Wilcoxon's test can reach with this n. Holm p: Wilcoxon's, over the comparisons of one"
        " dataset and level. detectable d_z: at 80 % power. An empty cell is not defined with this n.",
    ]
    write_grid(Grid(full_title(name, title), columns, rows, notes), path, COLUMNS, tests)


def judgement(test: dict[str, Any], alpha: float) -> str:
    """``n too small`` before anything else; then what Holm's p says at ``alpha``."""
    if test["too_small"]:
        return "n too small"
    p = test["p_holm"]
    return "" if p == "" else "different" if float(p) < alpha else "no difference shown"


def _number(value: Any, scale: float, decimals: int) -> str:
    return "" if value == "" else f"{scale * value:.{decimals}f}"


def _p(value: Any) -> str:
    if value == "":
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
