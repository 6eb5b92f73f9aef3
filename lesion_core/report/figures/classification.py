"""Figures of classification scores, on the first dataset that classifiers are scored on."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix

from lesion_core.metrics.calibration import ece, log_probabilities, softmax
from lesion_core.metrics.classification import auc, average_precision
from lesion_core.report.figures.style import (
    MARKERS,
    PALETTE,
    Drawn,
    Source,
    dataset_name,
    legend_below,
    method_name,
    new_figure,
)
from lesion_core.report.values import truth_and_probabilities
from lesion_core.settings import CLASSES


def _dataset(source: Source) -> str | None:
    datasets = sorted({key[1] for key in source.store.classification})
    return "ham10000" if "ham10000" in datasets else (datasets[0] if datasets else None)


def roc(source: Source) -> Drawn | None:
    """ROC of melanoma against the rest, first seed of each method."""
    dataset = _dataset(source)
    if dataset is None:
        return None
    figure, axes = new_figure(4.6, 5.0)
    axis = axes[0][0]
    for number, (name, runs) in enumerate(source.classifiers(dataset).items()):
        truth, probabilities = truth_and_probabilities(source.store.classification[runs[0], dataset])
        positive, score = truth == CLASSES.index("mel"), probabilities[:, CLASSES.index("mel")]
        if not positive.any() or positive.all():
            return None
        order = np.argsort(-score, kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
        sensitivity = np.r_[0.0, np.cumsum(positive[order])[last] / positive.sum()]
        false_positive = np.r_[0.0, np.cumsum(~positive[order])[last] / (~positive).sum()]
        label = f"{method_name(name)} ({auc(positive, score):.3f})"
        axis.plot(false_positive, sensitivity, color=PALETTE[number % len(PALETTE)], label=label, lw=1.4)
    axis.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"Melanoma, {dataset_name(dataset)}", aspect="equal")
    legend_below(figure, axis, "AUC", columns=2)
    return Drawn(figure, "ROC of melanoma", "Melanoma against all other classes; first seed of each method.")


def precision_recall(source: Source) -> Drawn | None:
    """Precision against recall of melanoma, first seed of each method."""
    dataset = _dataset(source)
    if dataset is None:
        return None
    figure, axes = new_figure(4.6, 5.0)
    axis = axes[0][0]
    share = 0.0
    for number, (name, runs) in enumerate(source.classifiers(dataset).items()):
        truth, probabilities = truth_and_probabilities(source.store.classification[runs[0], dataset])
        positive, score = truth == CLASSES.index("mel"), probabilities[:, CLASSES.index("mel")]
        if not positive.any() or positive.all():
            return None
        share = float(positive.mean())
        order = np.argsort(-score, kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
        hits = np.cumsum(positive[order])[last]
        label = f"{method_name(name)} ({average_precision(positive, score):.3f})"
        color = PALETTE[number % len(PALETTE)]
        # the step from one threshold to the next has the later one's precision, as average precision counts it
        axis.step(hits / positive.sum(), hits / (last + 1), where="pre", color=color, label=label, lw=1.4)
    axis.axhline(share, color="#999999", lw=0.8, ls=":")
    axis.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set(title=f"Melanoma, {dataset_name(dataset)}", aspect="equal")
    legend_below(figure, axis, "average precision", columns=2)
    return Drawn(
        figure,
        "Precision and recall of melanoma",
        "Melanoma against all other classes; first seed of each method. Dotted: the share of melanomas.",
    )


def reliability(source: Source) -> Drawn | None:
    """Confidence against accuracy in ten bins, raw and at the fitted temperature, first seed of each network."""
    dataset = _dataset(source)
    if dataset is None:
        return None
    figure, axes = new_figure(7.4, 4.6, 1, 2)
    for number, (name, runs) in enumerate(source.classifiers(dataset).items()):
        if name == "majority":
            continue
        rows = source.store.classification[runs[0], dataset]
        truth, raw = truth_and_probabilities(rows)
        states = (raw, softmax(log_probabilities(raw), rows[0]["temperature"]))
        before, after = (ece(truth, probabilities) for probabilities in states)
        for axis, probabilities in zip(axes[0], states, strict=True):
            confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
            bins = np.minimum((confidence * 10).astype(int), 9)
            used = [bin_ for bin_ in range(10) if (bins == bin_).sum() >= 3]
            axis.plot(
                [confidence[bins == bin_].mean() for bin_ in used],
                [correct[bins == bin_].mean() for bin_ in used],
                marker=MARKERS[number % len(MARKERS)],
                ms=3.5,
                color=PALETTE[number % len(PALETTE)],
                label=f"{method_name(name)} ({before:.3f}, {after:.3f})",
            )
    for axis, state in zip(axes[0], ("as given", "at the fitted temperature"), strict=True):
        axis.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":")
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.set(title=f"{dataset_name(dataset)}, {state}")
    legend_below(figure, axes[0][0], "ECE before and after", columns=2)
    return Drawn(
        figure,
        "Reliability before and after temperature scaling",
        "Accuracy by confidence, bins of a tenth with at least three images; first seed. The temperature was fitted to"
        " validation images. Expected calibration error (ECE) over 15 bins.",
    )


def confusion(source: Source) -> Drawn | None:
    """Row-normalised confusion matrices of the proposed classifier and the unfused one, all seeds together."""
    dataset = _dataset(source)
    if dataset is None:
        return None
    methods = {name: runs for name, runs in source.classifiers(dataset).items() if name not in ("majority",)}
    columns = min(2, len(methods))
    lines = -(-len(methods) // columns)
    figure, axes = new_figure(3.4 * columns, 3.2 * lines, lines, columns)
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, (name, runs) in zip(axes.flat, methods.items(), strict=False):
        matrix = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
        for run in runs:
            truth, probabilities = truth_and_probabilities(source.store.classification[run, dataset])
            matrix += confusion_matrix(truth, probabilities.argmax(axis=1), labels=range(len(CLASSES)))
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axis.grid(visible=False)
        for row in range(len(CLASSES)):
            for column in range(len(CLASSES)):
                color = "white" if share[row, column] > 0.55 else "black"
                axis.text(column, row, matrix[row, column], ha="center", va="center", fontsize=6.5, color=color)
        axis.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right")
        axis.set_yticks(range(len(CLASSES)), CLASSES)
        axis.set(title=method_name(name), xlabel="predicted", ylabel="true")
    caption = f"Counts of test images of {dataset_name(dataset)}, all seeds; shade: share of the true class."
    return Drawn(figure, "Confusion", caption)
