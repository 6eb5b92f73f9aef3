"""How much a run computes: its optimisation steps, counted from the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.settings import Settings
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.kinds import learns
from lesion_core.settings.run import Run

# Images of each release that can train: ISIC 2018 Task 1 and Task 3 training sets, HAM10000 (Tschandl et al., Sci
# Data 5:180161, 2018), PH2 (Mendonca et al., EMBC 2013), ISIC 2016 and 2017 training sets, ISIC 2019 training set.
RELEASED = {
    "isic2018_task1": 2594,
    "isic2018_task3": 10015,
    "ham10000": 10015,
    "ph2": 200,
    "isic2016": 900,
    "isic2017": 2000,
    "isic2019": 25331,
}


def image_counts(settings: Settings, root: Path | None = None) -> dict[str, tuple[int, int]]:
    """Dataset -> training and validation images: by its release (synthetic: as many as asked) and the splits' shares.

    Args:
        settings: of the profile.
        root: results whose splits are made: their own counts come first.
    """
    made = settings.synthetic
    sizes = dict(RELEASED)
    if made is not None:
        lesions = round(made.ham10000_lesions * made.images_per_lesion)
        sizes |= {"isic2018_task1": made.isic2018_task1, "ham10000": lesions, "isic2018_task3": made.isic2018_task3}
        sizes["ph2"] = made.ph2
    shares = settings.splits
    counts = {name: (round(size * shares.train), round(size * shares.val)) for name, size in sizes.items()}
    for name in settings.data.datasets:
        path = None if root is None else Layout(root).split("shared/leak_free", name)
        if path is not None and path.is_file():
            found = Counter(row["split"] for row in read_csv(path))
            counts[name] = (found["train"], found["val"])
    return counts


def training_steps(run: Run, images: Mapping[str, tuple[int, int]]) -> int:
    """Optimisation steps of a training job that is not stopped early, of all stages; 0 for what does not learn.

    Args:
        run: of any task.
        images: dataset -> training and validation images.
    """
    if isinstance(run.spec, DerivedMethod) or not learns(run):
        return 0
    training = run.spec.training
    count = sum(images.get(name, (0, 0))[0] for name in run.spec.train_on)
    epoch = max(1, count // max(1, min(training.batch_size * training.accumulation, count)))
    if reconstruction := getattr(run.spec, "reconstruction", None):
        # stage 2 takes two steps a batch, one of each kind; stage 1 knows the one kind
        return (2 * training.epochs + reconstruction.epochs) * epoch
    return training.epochs * epoch
