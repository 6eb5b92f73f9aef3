"""A paper's file checked: what is wrong in it, what would run, which pairs cannot be true, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lesion_core.errors import SettingsError
from lesion_core.papers.published import effects, of_claim, of_table, pairs
from lesion_core.settings import Settings, Table, TableRow
from lesion_core.settings.load import load
from lesion_core.settings.matrix import expand, plan
from lesion_core.settings.paper import FILLED, Paper
from lesion_core.settings.papers import FOLDER, read_paper
from lesion_core.settings.yaml_file import line_of

PROFILES: tuple[Literal["smoke", "mini", "paper"], ...] = ("smoke", "mini", "paper")
# A method that nothing scales down for the smoke profile: it would take hours on a CPU, or download weights.
LARGEST_SIDE = 256
DOWNLOADED = ("encoder_weights", "pretrained")
SMALL_SAM = "sam_vit_t"
OF_METHOD = re.compile(r"(methods|bases)\.([\w+-]+)((?:\.\w+)*)")


@dataclass
class Checked:
    """What was found in a paper's file; every text begins with the line where there is one.

    Attributes:
        paper: None where the file itself is refused.
        errors: why the file, or a profile's plan with it, is refused.
        runs: profile -> method -> seeds, of what would run with this paper alone.
        impossible: Dice with IoU or SD that cannot be true.
        small_sd: the same with an SD that cannot be one over images.
        only_if: how many more are possible only if the scores of single images differ.
        effects: what is said of each d and each claim p < value.
        quoted: table -> labels of the rows without a method.
        missing: what keeps a row or a number from being compared or checked.
    """

    path: Path
    paper: Paper | None = None
    errors: list[str] = field(default_factory=list)
    runs: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    impossible: list[str] = field(default_factory=list)
    small_sd: list[str] = field(default_factory=list)
    only_if: int = 0
    effects: list[str] = field(default_factory=list)
    quoted: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is refused and nothing is missing; an impossible pair is no fault of the file."""
        return not (self.errors or self.missing)


def check_paper(path: Path) -> Checked:
    """Read a paper's file, plan every profile with it alone, and look for what is missing.

    Args:
        path: ``workflow/papers/<name>.yaml`` of a checkout.

    Raises:
        SettingsError: the file does not lie in a checkout, or there is none.
    """
    path, found = path.resolve(), Checked(path)
    checkout = path.parents[len(FOLDER.parts)]
    if path.parent != checkout / FOLDER or not (checkout / "params.yaml").is_file():
        remedy = f"put it into {FOLDER} of a checkout: a paper is planned together with params.yaml"
        raise SettingsError("The file does not lie among the papers of a checkout", file=path, remedy=remedy)
    try:
        paper = read_paper(path)
    except SettingsError as error:
        found.errors.append(str(error))
        return found
    found.paper = paper
    settings: dict[str, Settings] = {}
    for profile in PROFILES:
        own = paper.profiles.get(profile)
        if not (paper.methods or paper.methods_of_tables()) or (own and own.run == []):
            found.runs[profile] = {}
            continue
        try:
            settings[profile] = load(profile, {"papers": [path.stem]}, checkout)
        except SettingsError as error:
            found.errors += [text for text in _located(error, path, paper) if text not in found.errors]
            continue
        seeds = {run_id: run.seed for run_id, run in expand(settings[profile]).items()}
        made = plan(settings[profile]).runs
        found.runs[profile] = {name: [seeds[run_id] for run_id in runs] for name, runs in made.items()}
    _judge(found, path, paper)
    found.missing += _unnamed_places(path, paper)
    if "paper" in settings:
        found.missing += _unfilled(path, paper, settings["paper"])
    if "smoke" in settings and "paper" in settings:
        found.missing += _not_scaled(settings["smoke"], settings["paper"], list(found.runs["smoke"]))
    return found


def _located(error: SettingsError, path: Path, paper: Paper) -> Iterator[str]:
    """An error's lines, those on a method or base of this file with the line that it stands in."""
    if error.file != "params.yaml":  # a paper's file: it says the lines itself
        yield str(error)
        return
    lines = error.message.splitlines()
    for text in map(str.strip, lines[1:] or lines):
        place = (key := OF_METHOD.match(text)) and _place(paper, key[2], key[3].split(".")[1:])
        yield f"line {line_of(path, place)}: {text}" if place else text


def _place(paper: Paper, name: str, keys: list[str]) -> tuple[str, ...] | None:
    """Where a method's key stands in this file: with it, or with what it extends; None where it is another file's."""
    kinds = {"protocols": paper.protocols, "bases": paper.bases, "methods": paper.methods}
    waiting = [name]
    for at in waiting:
        for kind, written in kinds.items():
            if at in written:
                if not keys or keys[0] in written[at]:
                    return (kind, at, *keys)
                extends = written[at].get("extends", [])
                waiting += reversed(extends if isinstance(extends, list) else [extends])
    return ("methods", name) if name in paper.methods else None


def _rows(path: Path, paper: Paper) -> Iterator[tuple[str, Table, TableRow, str]]:
    """(table's name, table, row, the row's line as text) of every row."""
    for name, table in paper.tables.items():
        for number, row in enumerate(table.rows):
            yield name, table, row, f"line {line_of(path, ('tables', name, 'rows', number))}: {name}, {row.label}"


def _judge(found: Checked, path: Path, paper: Paper) -> None:
    places = {(name, row.label): place for name, _, row, place in _rows(path, paper)}
    numbers = [item for name, table in paper.tables.items() for item in of_table(name, table)]
    for pair in pairs(numbers):
        text = f"{places[pair.dice.table, pair.dice.row]}: {pair.verdict.explanation}"
        if pair.verdict.verdict == "impossible":
            found.impossible.append(text)
        elif pair.verdict.verdict == "SD not over images":
            found.small_sd.append(text)
        elif pair.verdict.verdict == "possible only with spread":
            found.only_if += 1
    for number, claim in enumerate(paper.claims):
        numbers += of_claim(path.stem, claim, paper.tables)
        places[claim.table, claim.label] = f"line {line_of(path, ('claims', number))}: {claim.table}, {claim.label}"
    for effect in effects(numbers):
        told = [item for item in (effect.d, effect.claim) if item]
        words = ", ".join(f"{'d =' if item is effect.d else 'p <'} {item.printed}" for item in told)
        text = f"{places[told[0].table, told[0].row]}, {words}: {effect.t.explanation}"
        if effect.wilcoxon.verdict == "impossible":
            text += f" Wilcoxon: {effect.wilcoxon.explanation}"
        found.effects.append(text)
    unknown = [item for item in numbers if item.metric in ("cohens_d", "p_below") and item.n is None]
    found.effects += [f"{places[item.table, item.row]}: not judged, for n (pairs) is not told" for item in unknown]
    for name, _, row, _ in _rows(path, paper):
        if row.method is None:
            found.quoted.setdefault(name, []).append(row.label)


def _unnamed_places(path: Path, paper: Paper) -> Iterator[str]:
    for _, table, row, place in _rows(path, paper):
        if row.published and row.where is None and table.where is None:
            yield f"{place}: no `where`: the place of its numbers in the paper is missing"


def _unfilled(path: Path, paper: Paper, settings: Settings) -> Iterator[str]:
    """What keeps our value from standing beside a published one in the paper profile."""
    scoring = settings.scoring
    scored = {"segmentation": scoring.segmentation_on, "classification": scoring.classification_on}
    for _, table, row, place in _rows(path, paper):
        if row.method is None:
            continue
        spec = settings.methods[row.method]
        tasks = (
            ["segmentation", "classification"]
            if spec.task == "joint" or row.segmenter
            else [spec.task.replace("derived", "classification")]
        )
        able = {metric for task in tasks for metric in FILLED[task]}
        if unable := [metric for metric in table.metrics if metric not in able and table.task != "both"]:
            yield f"{place}: {row.method} is a {spec.task} method and cannot fill {', '.join(unable)}"
        if row.segmenter and settings.methods[row.segmenter].task != "segmentation":
            yield f"{place}: {row.segmenter} is a {settings.methods[row.segmenter].task} method, not a segmenter"
        if beside := [metric for metric in row.published if metric in able and metric not in table.metrics]:
            yield f"{place}: {', '.join(beside)} is published; list it in the table's `metrics` to have ours beside it"
        for task in tasks:
            dataset = row.dataset or (task == "segmentation" and table.segmentation_dataset) or table.dataset
            if table.task in (task, "both") and dataset not in scored[task]:
                key = "data.datasets" if dataset not in settings.data.datasets else f"scoring.{task}_on"
                yield f"{place}: {dataset} is not in {key} of the paper profile"
        if row.prompt != "none" and (spec.task != "segmentation" or spec.model.kind != "sam"):
            yield f"{place}: {row.method} takes no prompt, so it has no score under {row.prompt}"


def _not_scaled(smoke: Settings, full: Settings, names: list[str]) -> Iterator[str]:
    for name in names:
        small, whole = smoke.methods[name], full.methods[name]
        training, model, large = getattr(small, "training", None), getattr(small, "model", None), []
        if training is not None and training.epochs and _work(small) >= _work(whole):
            large.append("training.epochs")
        if model is not None:
            large += ["model.image_size"] if model.image_size > LARGEST_SIDE else []
            large += [f"model.{key}" for key in DOWNLOADED if getattr(model, key, None)]
            large += ["model.backbone"] if model.kind == "sam" and model.backbone != SMALL_SAM else []
        if large:
            yield f"profiles.smoke does not scale {name} down: {', '.join(large)}"


def _work(spec: Any) -> float:
    """Epochs times pixels, as far as a method says them."""
    return spec.training.epochs * getattr(getattr(spec, "model", None), "image_size", 1) ** 2


def check_text(found: Checked) -> str:
    """What was found, for a terminal."""
    lines = []
    if found.paper is not None:
        reference = found.paper.reference
        lines += [f"{reference.short}: {reference.title} (read: {reference.read})"]
    lines += _listed("Refused", found.errors)
    lines += _listed(
        "Runs with this paper alone: method and seeds",
        [
            f"{profile:<6}{len({(name, seed) for name, seeds in runs.items() for seed in seeds}):>4}: "
            + ("; ".join(f"{name} {', '.join(map(str, seeds))}" for name, seeds in runs.items()) or "nothing")
            for profile, runs in found.runs.items()
        ],
    )
    if found.runs and not any(found.runs.values()):
        lines += ["", "Nothing runs: all rows are quoted, or the profiles run nothing. Their arithmetic is checked."]
    lines += _listed("Arithmetically impossible", found.impossible)
    lines += _listed("SD that cannot be one over images", found.small_sd)
    lines += _listed("Effects: d and p of n pairs", found.effects)
    if found.only_if:
        lines += ["", f"Pairs that need images of unlike scores: {found.only_if} (`lesion feasible` says how unlike)"]
    lines += _listed("Quoted only", [f"{table}: {'; '.join(labels)}" for table, labels in found.quoted.items()])
    lines += _listed("Missing", found.missing)
    if found.is_good:
        lines += ["", "Nothing is wrong and nothing is missing."]
    return "\n".join(lines)


def _listed(title: str, texts: list[str]) -> list[str]:
    return ["", title, *(f"  {text}" for text in texts)] if texts else []
