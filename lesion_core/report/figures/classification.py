"""Figures of classification scores, on the first dataset that classifiers are scored on."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from lesion_core.metrics.calibration import ece, log_probabilities, softmax
from lesion_core.metrics.classification import auc, average_precision
from lesion_core.report.figures.style import (
    GUIDE,
    Drawn,
    Source,
    colour,
    heatmap,
    legend_below,
    marker,
    new_figure,
    panels,
)
from lesion_core.report.formats import dataset_name
from lesion_core.report.measures import MELANOMA, truth_and_probabilities
from lesion_core.settings import CLASSES

UNIT: dict[str, Any] = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02), "aspect": "equal"}


def _dataset(source: Source) -> str | None:
    datasets = sorted({key[1] for key in source.store.classification})
    return "ham10000" if "ham10000" in datasets else (datasets[0] if datasets else None)


def roc(source: Source) -> Drawn | None:
    """ROC of melanoma against the rest, a curve per seed."""
    return _melanoma(source, recall=False)


def precision_recall(source: Source) -> Drawn | None:
    """Precision against recall of melanoma, a curve per seed."""
    return _melanoma(source, recall=True)


def _melanoma(source: Source, *, recall: bool) -> Drawn | None:
    """Curves of one colour per method; None where no method was scored on images of both kinds."""
    dataset = _dataset(source)
    figure, axes = new_figure(4.6, 5.0)
    axis = axes[0][0]
    shares = []
    for number, (name, runs) in enumerate(source.classifiers(dataset or "").items()):
        found = [truth_and_probabilities(source.store.classification[run, dataset or ""]) for run in runs]
        seeds = [(truth == MELANOMA, probabilities[:, MELANOMA]) for truth, probabilities in found]
        positive = seeds[0][0]
        if not positive.any() or positive.all():
            continue
        shares.append(float(positive.mean()))
        value = np.mean([(average_precision if recall else auc)(*seed) for seed in seeds])
        for seed, (positive, score) in enumerate(seeds):
            line: dict[str, Any] = {"color": colour(number), "lw": 0.6 if seed else 1.4}
            line["label"] = None if seed else f"{source.plan.name_of(name)} ({value:.3f})"
            if recall:
                precision, sensitivity, _ = precision_recall_curve(positive, score)
                precision[-1] = precision[-2]  # scikit-learn's last point, precision 1 at recall 0, is no threshold's
                # the step from one threshold to the next has the later one's precision, as average precision counts it
                axis.step(sensitivity, precision, where="post", **line)
            else:
                false_positive, sensitivity, _ = roc_curve(positive, score)
                axis.plot(false_positive, sensitivity, **line)
    if not shares:
        return None
    title = f"Melanoma, {dataset_name(dataset or '')}"
    caption = "Melanoma against all other classes. Thick: the first seed, thin: others; numbers: means over seeds."
    if recall:
        axis.axhline(shares[0], **GUIDE)
        axis.set(xlabel="recall", ylabel="precision", title=title, **UNIT)
        legend_below(figure, axis, "average precision", columns=2)
        return Drawn(figure, "Precision and recall of melanoma", f"{caption} Dotted: the share of melanomas.")
    axis.plot([0, 1], [0, 1], **GUIDE)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title=title, **UNIT)
    legend_below(figure, axis, "AUC", columns=2)
    return Drawn(figure, "ROC of melanoma", caption)


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
        states = (raw, softmax(log_probabilities(raw), float(rows["temperature"].iloc[0])))
        before, after = (ece(truth, probabilities) for probabilities in states)
        for axis, probabilities in zip(axes[0], states, strict=True):
            confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
            bins = np.minimum((confidence * 10).astype(int), 9)
            used = [bin_ for bin_ in range(10) if (bins == bin_).sum() >= 3]
            axis.plot(
                [confidence[bins == bin_].mean() for bin_ in used],
                [correct[bins == bin_].mean() for bin_ in used],
                marker=marker(number),
                ms=3.5,
                color=colour(number),
                label=f"{source.plan.name_of(name)} ({before:.3f}, {after:.3f})",
            )
    for axis, state in zip(axes[0], ("as given", "at the fitted temperature"), strict=True):
        axis.plot([0, 1], [0, 1], **GUIDE)
        axis.set(xlabel="confidence", ylabel="accuracy", title=f"{dataset_name(dataset)}, {state}", **UNIT)
    legend_below(figure, axes[0][0], "ECE before and after", columns=2)
    caption = (
        "Accuracy by confidence, bins of a tenth with at least three images; first seed. The temperature was fitted to"
        " validation images. Expected calibration error (ECE) over 15 bins."
    )
    return Drawn(figure, "Reliability before and after temperature scaling", caption)


def confusion(source: Source) -> Drawn | None:
    """Row-normalised confusion matrix of each classifier, all seeds together."""
    dataset = _dataset(source)
    methods = {name: runs for name, runs in source.classifiers(dataset or "").items() if name != "majority"}
    if dataset is None or not methods:
        return None
    figure, axes = panels(len(methods), 2, 3.4, 3.2)
    for axis, (name, runs) in zip(axes, methods.items(), strict=True):
        found = [truth_and_probabilities(source.store.classification[run, dataset]) for run in runs]
        truth = np.concatenate([truth for truth, _ in found])
        answers = np.concatenate([probabilities.argmax(axis=1) for _, probabilities in found])
        matrix = confusion_matrix(truth, answers, labels=range(len(CLASSES)))
        share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        heatmap(axis, share, matrix, CLASSES, CLASSES)
        axis.set(title=source.plan.name_of(name), xlabel="predicted", ylabel="true")
    caption = f"Counts of test images of {dataset_name(dataset)}, all seeds; shade: share of the true class."
    return Drawn(figure, "Confusion", caption)
