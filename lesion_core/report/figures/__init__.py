"""Every figure of the report, as vector PDF and PNG, drawn from scores, histories and scored masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.backends.backend_pdf import PdfPages

from lesion_core.files import atomic_path, remove_others, write_json
from lesion_core.paths import Layout
from lesion_core.progress import say
from lesion_core.report.figures import (
    agreement,
    classification,
    contours,
    explanations,
    segmentation,
    subgroups,
    training,
)
from lesion_core.report.figures.style import Drawn, Source
from lesion_core.settings import Plan
from lesion_core.settings.paper import Figure

# What a paper's file asks for.
KINDS: dict[str, Callable[[Source, Figure], Drawn | None]] = {
    "contours": contours.contours,
    "explanations": explanations.of_method,
}
# Ours.
FIGURES: dict[str, Callable[[Source], Drawn | None]] = {
    "learning_curves": training.learning_curves,
    "dice_distribution": segmentation.dice_distribution,
    "prompt_worth": segmentation.prompt_worth,
    "native_and_model_size": segmentation.native_and_model_size,
    "bland_altman": agreement.bland_altman,
    "effects": segmentation.effects,
    "roc": classification.roc,
    "precision_recall": classification.precision_recall,
    "reliability": classification.reliability,
    "confusion": classification.confusion,
    "subgroups": subgroups.subgroups,
    "explanations": explanations.explanations,
}


def figures_of(plan: Plan) -> dict[str, Callable[[Source], Drawn | None]]:
    """The papers' figures, then ours, by name."""
    asked = {name: lambda source, own=figure: KINDS[own.kind](source, own) for name, figure in plan.figures.items()}
    return asked | FIGURES


def write_figures(root: Path, plan: Plan) -> None:
    """Write ``figures/<name>.pdf`` and ``.png``, ``all.pdf`` (a page each), last their captions: ``figures.json``.

    Other figures are removed.

    Raises:
        ScoreError: the score store is missing or broken.
    """
    source, layout = Source.read(root, plan), Layout(root)
    listed = []
    with atomic_path(layout.all_figures) as partial, PdfPages(partial, metadata={"CreationDate": None}) as pages:
        partial.touch()  # stays empty where there is no figure
        for name, draw in figures_of(plan).items():
            drawn = draw(source)
            if drawn is None:
                say(f"figure {name}: no scores for it in this profile")
                continue
            if plan.rehearsed:
                drawn.figure.text(0.5, 0.5, "REHEARSED", rotation=30, size=40, alpha=0.3, ha="center", va="center")
            drawn.save(layout.figures, name)
            pages.savefig(drawn.figure, dpi=drawn.dpi)
            listed.append({"name": name, "title": drawn.title, "caption": drawn.caption})
    remove_others(layout.figures, (".pdf", ".png"), {item["name"] for item in listed})
    write_json(layout.figure_list, listed)
