"""What a segmenter's confidence is worth: its relation to the Dice on validation images, and the Dice to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import KFold, cross_val_predict

from lesion_core.errors import FormatError
from lesion_core.files import read_json, write_json
from lesion_core.inference.refine import refine_mask
from lesion_core.inference.segments import Segments
from lesion_core.metrics.segmentation import confusion, dice
from lesion_core.paths import Layout
from lesion_core.pixels.datasets import Harmonized
from lesion_core.progress import say
from lesion_core.settings.run import Run

FILES = {"segmentation": "scores_calibration.json", "joint": "scores_segmentation_calibration.json"}
MOST_IMAGES = 200  # of each dataset, evenly taken
LEAST_IMAGES = 30  # a curve through fewer says nothing
BINS = 5
FOLDS = 5
BINARY = 128


def confidence(probability: np.ndarray, mask: np.ndarray) -> float:
    """Mean of p inside the mask and 1 - p outside, each side counting half; 0.5 where the mask is empty or full."""
    if not mask.any() or mask.all():
        return 0.5
    return float(0.5 * probability[mask].mean() + 0.5 * (1.0 - probability[~mask]).mean())


@dataclass(frozen=True)
class ExpectedDice:
    """A non-decreasing line from confidence to Dice, by isotonic regression.

    Attributes:
        n: validation images behind it.
        confidence, dice: its corners, ascending; straight between them, level outside.
    """

    n: int
    confidence: tuple[float, ...]
    dice: tuple[float, ...]

    def of(self, confidence: float) -> float:
        """The Dice to expect at a confidence."""
        return float(np.interp(confidence, self.confidence, self.dice))

    def stored(self) -> dict[str, Any]:
        """As JSON has it; see ``read``."""
        return asdict(self)

    @classmethod
    def read(cls, value: Mapping[str, Any] | None) -> ExpectedDice | None:
        """The inverse of ``stored``; None of None."""
        return None if value is None else cls(int(value["n"]), tuple(value["confidence"]), tuple(value["dice"]))


def calibrate_confidence(segmenter: Segments, run_dir: Path, *, batch_size: int = 8) -> None:
    """Relate confidence to Dice on validation images of the segmenter's training datasets, at the model's size.

    Writes ``FILES`` of the run's task: ``n``, ``fitted_on``, means; ``spearman`` (null where all confidences or all
    Dice are equal); ``bins`` of equally many images; ``map``, see ``ExpectedDice``, with its mean absolute error on
    images left out (``error``, five folds) beside that of the mean Dice alone (``error_of_mean``). ``map`` is null for
    fewer than 30 images. A run that learnt with clicks has no prediction of its own, so n is 0.
    """
    run, root = Run.load(run_dir), Layout.of_run(run_dir)
    found: dict[str, Any] = {"run_id": run.run_id, "fitted_on": [], "n": 0, "map": None}
    if segmenter.run.segmentation.model.unaided_prompt is not None:
        datasets = sorted(segmenter.run.segmentation.train_on)
        folders = [root.pixels(segmenter.run.pixels, name, segmenter.size) for name in datasets]
        pairs = np.array([pair for folder in folders for pair in _pairs(segmenter, folder, batch_size)]).reshape(-1, 2)
        found |= {"fitted_on": datasets, "n": len(pairs)} | relation(pairs[:, 0], pairs[:, 1])
    write_json(run_dir / FILES[run.task], found)


def relation(confidences: np.ndarray, dices: np.ndarray) -> dict[str, Any]:
    """How confidence and Dice, float64 (n,), go together; see ``calibrate_confidence``."""
    if len(dices) < LEAST_IMAGES:
        return {"map": None}
    constant = np.ptp(confidences) == 0 or np.ptp(dices) == 0
    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    left_out = cross_val_predict(line, confidences, dices, cv=KFold(FOLDS, shuffle=True, random_state=0))
    line.fit(confidences, dices)
    corners = ExpectedDice(len(dices), tuple(line.X_thresholds_.tolist()), tuple(line.y_thresholds_.tolist()))
    return {
        "mean_confidence": float(confidences.mean()),
        "mean_dice": float(dices.mean()),
        "spearman": None if constant else float(spearmanr(confidences, dices).statistic),
        "bins": [
            {"n": len(part), "mean_confidence": float(confidences[part].mean()), "mean_dice": float(dices[part].mean())}
            for part in np.array_split(np.argsort(confidences, kind="stable"), BINS)
        ],
        "map": corners.stored(),
        "error": float(np.abs(left_out - dices).mean()),
        "error_of_mean": float(np.abs(dices - dices.mean()).mean()),
    }


def expected_dice_of(run_dir: Path) -> ExpectedDice | None:
    """The stored line of a run; None, and told, where it was not scored or had too few validation images.

    Raises:
        FormatError: the file is damaged.
    """
    path = run_dir / FILES[Run.load(run_dir).task]
    try:
        found = ExpectedDice.read(read_json(path)["map"]) if path.is_file() else None
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"This is no calibration ({error})", file=path, remedy="score the run again") from error
    if found is None:
        say(f"the run was not scored, or on fewer than {LEAST_IMAGES} validation images: no column expected_dice")
    return found


def _pairs(segmenter: Segments, folder: Path, batch_size: int) -> list[tuple[float, float]]:
    """Confidence and Dice of a dataset's validation images."""
    data, extraction = Harmonized.open(folder), segmenter.run.extraction
    rows = data.rows("val", with_mask=True)
    rows = rows[:: -(-len(rows) // MOST_IMAGES) or 1]
    pairs = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        sizes = [(data.index[row]["height"], data.index[row]["width"]) for row in batch]
        for row, probability in zip(
            batch, segmenter.maps(np.stack([data.image(r) for r in batch]), sizes), strict=True
        ):
            mask = refine_mask(probability, extraction)
            pairs.append((confidence(probability, mask), float(dice(confusion(mask, data.soft_mask(row) >= BINARY)))))
    return pairs
