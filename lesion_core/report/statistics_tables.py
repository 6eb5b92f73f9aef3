"""Tables 15 and 16 as they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion_core.report.formats import Grid, dataset_name, metric_name, prompt_name, write_grid
from lesion_core.settings import Plan

TOO_SMALL = "n too small"
P_VALUES = {
    "Shapiro p": "shapiro_p",
    "t p": "p_t",
    "Wilcoxon p": "p_wilcoxon",
    "smallest p": "p_wilcoxon_smallest",
    "Holm p": "p_holm",
}
EFFECTS = {"d_z": "d_z", "d_av": "d_av", "detectable d_z": "detectable_d_z"}
CLASSIFICATION = {  # heading -> column that only classification tests have
    "McNemar p": "p_mcnemar",
    "smallest McNemar p": "p_mcnemar_smallest",
    "McNemar p by lesion": "p_mcnemar_by_lesion",
    "DeLong p": "p_delong_melanoma",
}


def write_table(title: str, path: Path, csv_columns: Sequence[str], tests: list[dict[str, Any]], plan: Plan) -> None:
    """Write a table of tests as .csv, .md and .tex."""
    further = CLASSIFICATION if any(test["metric"] == "accuracy" for test in tests) else {}
    level = f"{100 * (1 - plan.statistics.alpha):g} % CI"

    def row(test: dict[str, Any]) -> list[str]:
        low, high = (_number(test[end], 100.0) for end in ("ci_low", "ci_high"))
        return [
            test["compared"],
            named(plan, test["proposed"], test["prompt"]),
            named(plan, test["other"], test["other_prompt"]),
            *(dataset_name(test["dataset"]), metric_name(test["metric"]), test["level"]),
            *(str(test["n"]), str(test["clusters"]), _number(test["difference"], 100.0)),
            f"[{low}, {high}]" if low else "",
            *(_p(test[column]) for column in P_VALUES.values()),
            *(_number(test[column]) for column in EFFECTS.values()),
            *(_p(test[column]) for column in further.values()),
            judgement(test, plan.statistics.alpha),
        ]

    first = ("Table", "Proposed", "Compared with", "Dataset", "Metric", "Level", "n", "Lesions", "Difference", level)
    columns = (*first, *P_VALUES, *EFFECTS, *further, "Judgement")
    notes = [
        f"Differences in percentage points, proposed minus the other, with {plan.profile} data. Level seed: pairs are"
        " seeds; interval from t. Level image: pairs are test images (mean over seeds), averaged within"
        f" lesions for the tests; interval from a BCa bootstrap clustered by lesion ({plan.statistics.resamples}"
        " resamples).",
        "smallest p: what Wilcoxon's test can reach with this n. Holm p: Wilcoxon's, corrected over the tests of one"
        f" compared table, metric and level. detectable d_z: at {100 * plan.statistics.power:g} % power."
        " An empty cell is not defined with this n.",
    ]
    if further:
        notes.append(
            "McNemar: exact, image by image; by lesion: Durkalski's, since images of one lesion are not independent."
            " DeLong: melanoma's AUC, by lesion. These three are made for every pair of seeds and combined by Rüger's"
            " rule: K/k times the k-th smallest of K, k the upper median, valid under any dependence; the .csv"
            " has the range over pairs and Holm's correction of each."
        )
    write_grid(Grid(title, columns, list(map(row, tests)), notes), path, csv_columns, tests, plan)


def named(plan: Plan, method: str, prompt: str) -> str:
    """A method and, where it gets one, its prompt, as they are called in print."""
    return plan.name_of(method) if prompt == "none" else f"{plan.name_of(method)}, {prompt_name(prompt)}"


def judgement(test: dict[str, Any], alpha: float) -> str:
    """``n too small`` and why, before anything else; then what Holm's p and the interval of the difference say.

    Where they disagree it says so, and the interval speaks: it needs no correction of p and no ranks.
    """
    if test["too_small"]:
        reasons = [note for note in str(test["notes"]).split("; ") if note.startswith(TOO_SMALL)]
        return reasons[0] if reasons else TOO_SMALL
    p = test["p_holm"]
    if p == "":
        return ""
    by_test = float(p) < alpha
    if test["ci_low"] == "":
        return "different" if by_test else "no difference shown"
    apart = float(test["ci_low"]) > 0 or float(test["ci_high"]) < 0
    found = "different" if apart else "no difference shown"
    if apart == by_test:
        return found
    return f"{found}, by the interval; Holm's p ({float(p):.3g}) disagrees"


def _number(value: Any, scale: float = 1.0) -> str:
    return "" if value == "" else f"{scale * value:.2f}"


def _p(value: Any) -> str:
    if value == "":
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
