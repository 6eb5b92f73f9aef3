"""Learning curves."""

from __future__ import annotations

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.report.figures.style import PALETTE, Drawn, Source, method_name, new_figure

SCORES = ("val_balanced_accuracy", "val_dice")  # what the best epoch is chosen by, first of them that a history has
LINE = {"lw": 1.2, "marker": ".", "ms": 3}


def learning_curves(source: Source) -> Drawn | None:
    """Loss and validation score by epoch, one panel per trained method, one line per seed."""
    curves = []
    for name, runs in source.plan.runs.items():
        for folder in Layout(source.root).run_files("history.csv"):
            if folder.parent.name in runs:
                rows = read_csv(folder)
                if rows and "epoch" in rows[0]:  # classical methods have no epochs
                    curves.append((name, folder.parent.name, rows))
    methods = list(dict.fromkeys(name for name, _, _ in curves))
    if not methods:
        return None
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(methods))
    lines = -(-len(methods) // columns)
    figure, axes = new_figure(7.2, 2.2 * lines, lines, columns)
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, methods, strict=False):
        twin = axis.twinx()
        twin.grid(visible=False)
        validation, longest = "", 1
        for number, (_, _, rows) in enumerate(curve for curve in curves if curve[0] == name):
            style = ("-", "--", ":", "-.")[number % 4]
            epochs = [int(row["epoch"]) for row in rows]
            longest = max(longest, *epochs)
            loss = next((key for key in rows[0] if key.startswith("train_loss")), None)
            score = next((key for key in SCORES if key in rows[0]), None)
            if loss:
                axis.plot(epochs, [float(row[loss]) for row in rows], style, color=PALETTE[1], **LINE)
            if score:
                validation = score.removeprefix("val_").replace("_", " ")
                twin.plot(epochs, [float(row[score]) for row in rows], style, color=PALETTE[0], **LINE)
        axis.set_title(method_name(name))
        axis.set_xlabel("epoch")
        axis.set_ylabel("training loss", color=PALETTE[1])
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axis.set_xlim(0.5, longest + 0.5)
        twin.set_ylabel(f"validation\n{validation}", color=PALETTE[0])
    caption = "Training loss (orange) and validation score (blue) by epoch; one line style per seed."
    return Drawn(figure, "Learning curves", caption)
