"""Learning curves."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import MaxNLocator

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.report.figures.style import PALETTE, Drawn, Source, panels

SCORES = ("val_balanced_accuracy", "val_dice")  # what the best epoch is chosen by, first of them that a history has


def learning_curves(source: Source) -> Drawn | None:
    """Loss and validation score by epoch, one panel per trained method, one line per seed."""
    curves: dict[str, list[list[dict[str, str]]]] = {}
    for name, runs in source.plan.runs.items():
        for path in Layout(source.root).run_files("history.csv"):
            rows = read_csv(path) if path.parent.name in runs else []
            if rows and "epoch" in rows[0]:  # classical methods have no epochs
                curves.setdefault(name, []).append(rows)
    if not curves:
        return None
    figure, axes = panels(len(curves), 3, 2.4, 2.2)
    for axis, (name, seeds) in zip(axes, curves.items(), strict=True):
        twin = axis.twinx()
        twin.grid(visible=False)
        axis.set(title=source.plan.name_of(name), xlabel="epoch")
        axis.set_ylabel("training loss", color=PALETTE[1])
        twin.set_ylabel("validation\n", color=PALETTE[0])
        for number, rows in enumerate(seeds):
            line: dict[str, Any] = {"ls": ("-", "--", ":", "-.")[number % 4], "lw": 1.2, "marker": ".", "ms": 3}
            epochs = [int(row["epoch"]) for row in rows]
            loss = next((key for key in rows[0] if key.startswith("train_loss")), None)
            score = next((key for key in SCORES if key in rows[0]), None)
            if loss:
                axis.plot(epochs, [float(row[loss]) for row in rows], color=PALETTE[1], **line)
            if score:
                twin.set_ylabel(f"validation\n{score.removeprefix('val_').replace('_', ' ')}")
                twin.plot(epochs, [float(row[score]) for row in rows], color=PALETTE[0], **line)
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        axis.set_xlim(0.5, max(int(row["epoch"]) for rows in seeds for row in rows) + 0.5)
    caption = "Training loss (orange) and validation score (blue) by epoch; one line style per seed."
    return Drawn(figure, "Learning curves", caption)
