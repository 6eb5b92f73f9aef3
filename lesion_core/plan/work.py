"""How much a run computes: its optimisation steps, counted from the settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesion_core.files import read_csv
from lesion_core.paths import Layout
from lesion_core.settings import Settings, SplitRule
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.kinds import learns
from lesion_core.settings.run import Run

# Images of each release as it is fetched: ISIC 2018 Task 1 and Task 3 training sets, HAM10000 (Tschandl et al., Sci
# Data 5:180161, 2018), PH2 (Mendonca et al., EMBC 2013), ISIC 2016 and 2017 in all parts, ISIC 2019 training set.
RELEASED = {
    "isic2018_task1": 2594,
    "isic2018_task3": 10015,
    "ham10000": 10015,
    "ph2": 200,
    "isic2016": 1279,
    "isic2017": 2750,
    "isic2019": 25331,
}
RELEASED_PARTS = {"isic2016": (900, 0), "isic2017": (2000, 150)}  # training and validation images
Counts = dict[str, tuple[int, int]]  # dataset -> training and validation images


def image_counts(settings: Settings, root: Path | None = None) -> dict[str, Counts]:
    """Split tables (``<protocol>/<rule>``) -> dataset -> training and validation images.

    A dataset has as many images as its release (synthetic: as asked for), shared out as the split rule says.

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
    homes = settings.homes
    found = {}
    for home in sorted({homes.splits(home) for home in homes.materials}):
        rule = homes.materials[home].splits
        counts = {name: _shared_out(name, size, rule) for name, size in sizes.items()}
        for name in settings.data.datasets:
            path = None if root is None else Layout(root).split(home, name)
            if path is not None and path.is_file():
                split = Counter(row["split"] for row in read_csv(path))
                counts[name] = (split["train"], split["val"])
        found[home] = counts
    return found


def _shared_out(name: str, size: int, rule: SplitRule) -> tuple[int, int]:
    """Training and validation images of a dataset of ``size`` images under a split rule."""
    asked = dict[str, Any](rule.parts.items()).get(name)
    if asked == "release":
        training, validation = RELEASED_PARTS[name]
        held_out = 0 if validation else round(training * rule.val / (rule.train + rule.val))
        return training - held_out, validation or held_out
    shares = [rule.train, rule.val, rule.test] if asked is None else asked
    return round(size * shares[0] / sum(shares)), round(size * shares[1] / sum(shares))


def training_steps(run: Run, images: Mapping[str, Counts]) -> int:
    """Optimisation steps of a training job that is not stopped early, of all stages; 0 for what does not learn.

    Args:
        run: of any task.
        images: of ``image_counts``; the run's own split tables count.
    """
    if isinstance(run.spec, DerivedMethod) or not learns(run):
        return 0
    training = run.spec.training
    count = sum(images[run.split_tables].get(name, (0, 0))[0] for name in run.spec.train_on)
    epoch = max(1, count // max(1, min(training.batch_size * training.accumulation, count)))
    if reconstruction := getattr(run.spec, "reconstruction", None):
        # stage 2 takes two steps a batch, one of each kind; stage 1 knows the one kind
        return (2 * training.epochs + reconstruction.epochs) * epoch
    return training.epochs * epoch
