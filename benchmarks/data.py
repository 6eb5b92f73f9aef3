"""`make bench-data`: harmonization and augmentation beside scikit-image and albumentations; the cost of each step."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.made import drawn, enlarged, save_jpeg
from benchmarks.plain_augmentation import plain_chain
from benchmarks.scaling import AUGMENTED_SIZE, scaling
from benchmarks.turns import both, faster, goal, in_turns, machine, show
from lesion_core.acquire.images import read_image
from lesion_core.acquire.opencv import single_thread
from lesion_core.pixels import histogram
from lesion_core.pixels.augment import Augmenter
from lesion_core.pixels.harmonize import harmonize_image, prepare_image, read_original
from lesion_core.pixels.masks import harmonize_mask
from lesion_core.pixels.resize import resize_square
from lesion_core.settings import Augmentation, Harmonization
from lesion_core.settings import load as config

IMAGES = 4
MATCHED = (256, 512, 1024)
LARGE = (3000, 4000)  # 12 megapixels
ROUGH_SIGMA = 8.0  # the plain chain's fastest plausible elastic field


def matching(rounds: int, template: np.ndarray, original: np.ndarray) -> None:
    """Histogram specification beside ``skimage.exposure.match_histograms`` on the same arrays."""
    from skimage.exposure import match_histograms

    rows = []
    for size in MATCHED:
        image, like = resize_square(original, size), resize_square(template, size)
        counts = histogram.channel_histograms(like)
        identical = np.array_equal(
            histogram.specify_histogram(image, counts), match_histograms(image, like, channel_axis=-1)
        )
        # As many images as make one of the largest: one small image alone would time what the other left in the cache.
        images = [image.copy() for _ in range((MATCHED[-1] // size) ** 2)]
        taken = in_turns(
            {
                "ours": lambda images=images, counts=counts: _for_each(
                    images, lambda each, counts=counts: histogram.specify_histogram(each, counts)
                ),
                "skimage": lambda images=images, like=like: _for_each(
                    images, lambda each, like=like: match_histograms(each, like, channel_axis=-1)
                ),
            },
            rounds,
        )
        ratio = faster(taken["skimage"], taken["ours"], 3)
        milliseconds = [both(taken[name], len(images)) for name in ("skimage", "ours")]
        rows.append((size, *milliseconds, ratio, identical))
    headings = ("Size", "scikit-image, ms", "Ours, ms", "Ratio", "Bit-identical")
    show("Histogram specification beside skimage.exposure.match_histograms", headings, rows)


def _for_each(images: Sequence[np.ndarray], work: Callable[[np.ndarray], object]) -> None:
    """Work on images one after the other, dropping the results, as a loop that writes them away does."""
    for image in images:
        work(image)


def harmonization(rounds: int, folder: Path, template: np.ndarray, settings: Harmonization) -> None:
    """A 600 x 450 JPEG to 1024: decode, resize, match; beside two chains a user would write."""
    import cv2
    from PIL import Image
    from skimage.exposure import match_histograms
    from skimage.transform import resize

    size = 1024
    paths = [save_jpeg(drawn(number, 450, 600)[0], folder / f"{number}.jpg") for number in range(IMAGES)]
    like = resize_square(template, size)
    reference = histogram.channel_histograms(like)

    def ours() -> None:
        for path in paths:
            harmonize_image(read_original(path, size, settings), size, reference, settings, [])

    def skimage_resize() -> None:
        for path in paths:
            image = np.asarray(Image.open(path))
            large = np.rint(resize(image, (size, size), preserve_range=True)).astype(np.uint8)
            match_histograms(large, like, channel_axis=-1)

    def opencv_resize() -> None:
        for path in paths:
            large = cv2.resize(np.asarray(Image.open(path)), (size, size), interpolation=cv2.INTER_CUBIC)
            match_histograms(large, like, channel_axis=-1)

    taken = in_turns({"ours": ours, "skimage": skimage_resize, "opencv": opencv_resize}, rounds)
    rows = [
        ("ours", both(taken["ours"], IMAGES), ""),
        (
            "decode, skimage resize (linear), skimage matching",
            both(taken["skimage"], IMAGES),
            faster(taken["skimage"], taken["ours"], 4),
        ),
        (
            "decode, OpenCV resize (cubic, as ours), skimage matching",
            both(taken["opencv"], IMAGES),
            f"{faster(taken['opencv'], taken['ours'])} (no goal: only the matching differs)",
        ),
    ]
    show("Harmonization of a 600 x 450 JPEG to 1024", ("Chain", "ms per image", "Times ours"), rows)


def scaled_decoding(rounds: int, folder: Path, settings: Harmonization) -> None:
    """12-megapixel JPEGs to 512: the opt-in decoder scaling beside decoding every pixel."""
    size = 512
    paths = [save_jpeg(enlarged(number, *LARGE, 4), folder / f"large{number}.jpg") for number in range(2)]
    scaled = settings.model_copy(update={"scaled_decoding": True})
    reference = histogram.channel_histograms(resize_square(drawn(9, 450, 600)[0], size))
    plain = settings.model_copy(update={"scaled_decoding": False})

    def run(chosen: Harmonization) -> list[np.ndarray]:
        return [harmonize_image(read_original(path, size, chosen), size, reference, chosen, []) for path in paths]

    differences = {
        histogram_mode: np.mean(
            [
                np.abs(whole.astype(int) - reduced).mean()
                for whole, reduced in zip(
                    run(plain.model_copy(update={"histogram": histogram_mode})),
                    run(scaled.model_copy(update={"histogram": histogram_mode})),
                    strict=True,
                )
            ]
        )
        for histogram_mode in ("none", "specification")
    }
    taken = in_turns({"whole": lambda: run(plain), "scaled": lambda: run(scaled)}, max(3, rounds // 3))
    rows = [
        (
            both(taken["whole"], len(paths)),
            both(taken["scaled"], len(paths)),
            faster(taken["whole"], taken["scaled"], 2.2),
            f"{differences['none']:.2f}",
            f"{differences['specification']:.2f}",
        )
    ]
    headings = (
        "Whole, ms",
        "Scaled, ms",
        "Ratio",
        "Mean difference after resizing, grey levels",
        "After specification",
    )
    show("12-megapixel JPEG to 512 with harmonization.scaled_decoding", headings, rows)


def augmentation(rounds: int, settings: Augmentation) -> None:
    """Images with masks per second and core, beside the plain albumentations chain."""
    image, mask = drawn(1, AUGMENTED_SIZE, AUGMENTED_SIZE)
    mask = mask.astype(np.uint8) * 255
    batch = 20
    augment = Augmenter(settings)
    matched = plain_chain(settings, AUGMENTED_SIZE)
    rough = plain_chain(settings, AUGMENTED_SIZE, elastic_sigma=ROUGH_SIGMA)

    def ours() -> None:
        for number in range(batch):
            augment(image, mask, "benchmark", number)

    def plain(chain) -> None:
        for _ in range(batch):
            chain(image=image, mask=mask)

    taken = in_turns({"ours": ours, "matched": lambda: plain(matched), "rough": lambda: plain(rough)}, rounds)
    rows = [("ours", f"{goal(batch / taken['ours'].median, 250)}; {batch / taken['ours'].fastest:.0f}", "")]
    for name, label in (("matched", "albumentations, equal elastic field"), ("rough", "albumentations, rougher field")):
        each = f"{batch / taken[name].median:.0f}; {batch / taken[name].fastest:.0f}"
        rows.append((label, each, faster(taken[name], taken["ours"])))
    show(
        f"Augmentation at {AUGMENTED_SIZE} with masks",
        ("Chain", "Images per second and core", "Ours is faster by"),
        rows,
    )


def steps(rounds: int, folder: Path, settings: Harmonization) -> None:
    """Where the time of one harmonized image and mask goes."""
    path = folder / "1.jpg"
    original, mask = drawn(1, 450, 600)
    rows = []
    for size in (256, 512, 1024):
        image = resize_square(original, size)
        counts = histogram.channel_histograms(image)
        reference = histogram.channel_histograms(resize_square(drawn(9, 450, 600)[0], size))
        tables = histogram.specification_tables(counts, reference)
        candidates = {
            "decode": lambda: read_image(path),
            "resize": lambda size=size: resize_square(original, size),
            "grey world (optional)": lambda size=size: prepare_image(
                original, size, settings.model_copy(update={"colour": "grey_world"}), []
            ),
            "hair removal (optional)": lambda size=size: prepare_image(
                original, size, settings.model_copy(update={"hair_removal": True}), []
            ),
            "histogram": lambda image=image: histogram.channel_histograms(image),
            "tables": lambda counts=counts, reference=reference: histogram.specification_tables(counts, reference),
            "look-up": lambda image=image, tables=tables: histogram.apply_tables(image, tables),
            "mask": lambda size=size: harmonize_mask(mask, size, settings),
        }
        taken = {name: seconds.median for name, seconds in in_turns(candidates, max(3, rounds // 3)).items()}
        for name in ("grey world (optional)", "hair removal (optional)"):
            taken[name] -= taken["resize"]
        rows.append((size, *(f"{1e3 * seconds:.2f}" for seconds in taken.values())))
    names = ("decode", "resize", "grey world", "hair removal", "histogram", "tables", "look-up", "mask")
    show("Cost of each step, 600 x 450 JPEG, ms", ("Size", *names), rows)


def augmentation_steps(rounds: int, settings: Augmentation) -> None:
    """What each transform of the pipeline costs alone."""
    image, mask = drawn(1, AUGMENTED_SIZE, AUGMENTED_SIZE)
    mask = mask.astype(np.uint8) * 255
    pipelines = {"nothing": Augmenter([]), "all": Augmenter(settings)}
    pipelines |= {str(entry["transform"]): Augmenter([entry]) for entry in settings}
    taken = in_turns(
        {
            name: lambda augment=augment: [augment(image, mask, "benchmark", key) for key in range(10)]
            for name, augment in pipelines.items()
        },
        rounds,
    )
    rows = [(name, both(seconds, 10)) for name, seconds in taken.items()]
    show(f"Cost of each transform of the augmentation at {AUGMENTED_SIZE} with mask", ("Transform", "ms"), rows)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds; medians are shown")
    rounds = parser.parse_args().rounds
    settings = config.load()
    harmonize = settings.harmonization
    augmented = settings.methods["unet"].augmentation
    template = drawn(9, 450, 600)[0]
    print(f"# Data benchmarks\n\nCore seconds on one thread, but for the scaling. {machine()}")
    print("Medians of the rounds; behind them, in brackets or after a semicolon, the fastest round.")
    with tempfile.TemporaryDirectory() as name, single_thread():
        folder = Path(name)
        matching(rounds, template, drawn(1, 450, 600)[0])
        harmonization(rounds, folder, template, harmonize)
        scaled_decoding(rounds, folder, harmonize)
        augmentation(rounds, augmented)
        steps(rounds, folder, harmonize)
        augmentation_steps(rounds, augmented)
        scaling(rounds, folder, harmonize, augmented)


if __name__ == "__main__":
    main()
