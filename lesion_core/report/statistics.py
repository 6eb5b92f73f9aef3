"""Significance, at two levels that are never mixed: over seeds (as paper A, Tables 15 and 16) and over images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lesion_core.files import write_csv
from lesion_core.paths import Layout
from lesion_core.report.formats import Grid, write_grid
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
        _write_table(layout.table(name, "csv"), title, [test for test in tests if test["table"] == name], plan)
    write_csv(layout.root / "statistics" / "tests.csv", COLUMNS, tests)


def _segmentation_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    metric, proposed = plan.statistics.segmentation_metric, plan.statistics.segmentation_proposed
    datasets = sorted({key[1] for key in store.segmentation})
    tests = []
    for dataset in datasets:
        own = _per_image(store, plan.runs.get(proposed, []), dataset, metric)
        for other in _others(plan, proposed):
            theirs = _per_image(store, plan.runs[other], dataset, metric)
            if own and theirs:
                tests.extend(_pair("table_15", dataset, metric, proposed, other, own, theirs, plan))
    return tests


def _classification_tests(store: Store, plan: Plan) -> list[dict[str, Any]]:
    proposed = plan.statistics.classification_proposed
    datasets = sorted({key[1] for key in store.classification})
    tests = []
    for dataset in datasets:
        own = _correct(store, plan.runs.get(proposed, []), dataset)
        for other in _others(plan, proposed):
            theirs = _correct(store, plan.runs[other], dataset)
            if not (own and theirs):
                continue
            pair = _pair("table_16", dataset, "accuracy", proposed, other, own, theirs, plan)
            runs = plan.runs[proposed][0], plan.runs[other][0]
            if all((run, dataset) in store.classification for run in runs):
                pair[-1] |= _first_seed_tests(*(store.classification[run, dataset] for run in runs))
            tests.extend(pair)
    return tests


def _others(plan: Plan, proposed: str) -> list[str]:
    own = set(plan.runs.get(proposed, []))
    return [name for name, runs in plan.runs.items() if name != proposed and not own & set(runs)]


Scored = dict[str, dict[str, tuple[float, str]]]


def _per_image(store: Store, runs: list[str], dataset: str, metric: str) -> Scored:
    """run -> image -> (value, lesion); native size, no prompt."""
    result: Scored = {}
    for run in runs:
        rows = store.segmentation.get((run, dataset, "none", "native"))
        if rows:
            result[run] = {row["image_id"]: (row[metric], row["lesion_id"] or row["image_id"]) for row in rows}
    return result


def _correct(store: Store, runs: list[str], dataset: str) -> Scored:
    result: Scored = {}
    for run in runs:
        rows = store.classification.get((run, dataset))
        if rows:
            result[run] = {
                row["image_id"]: (float(row["label"] == row["predicted"]), row["lesion_id"] or row["image_id"])
                for row in rows
            }
    return result


def _pair(
    table: str, dataset: str, metric: str, proposed: str, other: str, own: Scored, theirs: Scored, plan: Plan
) -> list[dict[str, Any]]:
    """The seed-level test, then the image-level test."""
    from lesion_core.errors import ScoreError
    from lesion_core.stats.bootstrap import bootstrap_means
    from lesion_core.stats.paired import compare

    images = sorted(next(iter(own.values())))
    for scored in (*own.values(), *theirs.values()):
        if sorted(scored) != images:
            raise ScoreError(
                f"{proposed} and {other} were scored on different images of {dataset}",
                ids=sorted(set(images) ^ set(scored)),
                remedy="score both again",
            )
    identity = {"table": table, "dataset": dataset, "metric": metric, "proposed": proposed, "other": other}
    a = np.array([[scored[image][0] for image in images] for scored in own.values()])
    b = np.array([[scored[image][0] for image in images] for scored in theirs.values()])
    lesions = [next(iter(own.values()))[image][1] for image in images]
    seeds = min(len(a), len(b))
    by_seed = compare(a[:seeds].mean(axis=1), b[:seeds].mean(axis=1), plan.statistics.alpha)
    notes = list(by_seed.notes)
    if len(a) != len(b):
        notes.append(f"{max(len(a), len(b))} and {seeds} seeds: the first {seeds} are paired")
    first = {**identity, "level": SEED, **_paired(by_seed, plan), "notes": "; ".join(notes)}
    first |= {"clusters": "", "interval": "t", "ci_low": by_seed.ci_low, "ci_high": by_seed.ci_high}
    by_image = compare(a.mean(axis=0), b.mean(axis=0), plan.statistics.alpha)
    interval = bootstrap_means(
        a.mean(axis=0) - b.mean(axis=0),
        lesions,
        seed=plan.statistics.seed,
        resamples=plan.statistics.resamples,
        level=1.0 - plan.statistics.alpha,
    )
    second = {**identity, "level": IMAGE, **_paired(by_image, plan)}
    second |= {"clusters": interval.clusters, "interval": "BCa, clustered by lesion"}
    second |= {"ci_low": float(interval.bca_low[0]), "ci_high": float(interval.bca_high[0])}
    second["notes"] = "; ".join((*by_image.notes, *interval.notes))
    return [first, second]


def _paired(result: Any, plan: Plan) -> dict[str, Any]:
    from lesion_core.stats.power import smallest_detectable_d_z

    detectable = smallest_detectable_d_z(result.n, plan.statistics.alpha) if result.n > 1 else math.nan
    return {
        "n": result.n,
        "difference": result.mean,
        "shapiro_p": result.shapiro_p,
        "p_t": result.p_t,
        "p_wilcoxon": result.p_wilcoxon,
        "p_wilcoxon_smallest": result.p_wilcoxon_smallest,
        "d_z": result.d_z,
        "d_av": result.d_av,
        "critical_d_z": result.critical_d_z,
        "detectable_d_z": detectable,
    }


def _first_seed_tests(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """McNemar's exact test and DeLong's test of melanoma's AUC, both on the first seed's predictions."""
    from lesion_core.stats.classifiers import delong, mcnemar_exact

    truth, ours = truth_and_probabilities(own)
    _, other = truth_and_probabilities(theirs)
    correct = [np.array([row["label"] == row["predicted"] for row in rows]) for rows in (own, theirs)]
    found: dict[str, Any] = {"p_mcnemar": mcnemar_exact(*correct).p}
    melanoma = CLASSES.index("mel")
    positive = truth == melanoma
    lesions = np.array([row["lesion_id"] or row["image_id"] for row in own])
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
        defined = [test for test in family if math.isfinite(test["p_wilcoxon"])]
        if defined:
            adjusted = holm(np.array([test["p_wilcoxon"] for test in defined]))
            for test, value in zip(defined, adjusted, strict=True):
                test["p_holm"] = float(value)
    for test in tests:
        for column in COLUMNS:
            value = test.get(column, "")
            test[column] = "" if isinstance(value, float) and math.isnan(value) else value


def _write_table(path: Path, title: str, tests: list[dict[str, Any]], plan: Plan) -> None:
    columns = (
        "Compared with", "Dataset", "Level", "n", "Difference", "95 % CI", "Shapiro p", "t p", "Wilcoxon p",
        "smallest p", "Holm p", "d_z", "d_av", "detectable d_z",
    )  # fmt: skip
    rows = []
    for test in tests:
        small = "n too small" if test["level"] == SEED and test["n"] < 2 else ""
        rows.append(
            (
                test["other"],
                test["dataset"],
                test["level"],
                str(test["n"]),
                _number(test["difference"], 100.0, 2),
                small or f"[{_number(test['ci_low'], 100.0, 2)}, {_number(test['ci_high'], 100.0, 2)}]",
                small or _p(test["shapiro_p"]),
                small or _p(test["p_t"]),
                small or _p(test["p_wilcoxon"]),
                _p(test["p_wilcoxon_smallest"]),
                small or _p(test["p_holm"]),
                small or _number(test["d_z"], 1.0, 2),
                small or _number(test["d_av"], 1.0, 2),
                small or _number(test["detectable_d_z"], 1.0, 2),
            )
        )
    notes = [
        f"Differences in percentage points, with {plan.profile} data. Level seed: pairs are seeds, as in paper A;"
        " interval from t. Level image: pairs are test images (mean over seeds), interval from a BCa bootstrap"
        f" clustered by lesion ({plan.statistics.resamples} resamples).",
        "smallest p: what Wilcoxon's test can reach with this n. detectable d_z: at 80 % power."
        " Holm over the comparisons of one dataset and level.",
    ]
    write_grid(Grid(title, columns, rows, notes), path, COLUMNS, tests)


def _number(value: Any, scale: float, decimals: int) -> str:
    return "" if value == "" else f"{scale * value:.{decimals}f}"


def _p(value: Any) -> str:
    if value == "":
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
