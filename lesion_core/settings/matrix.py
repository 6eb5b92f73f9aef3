"""The experiment matrix expanded into runs: which methods, with what they need, and which seeds of each."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from lesion_core.settings import NETWORKS, DerivedMethod, Plan, Robustness, Settings
from lesion_core.settings.as_published import SUFFIX
from lesion_core.settings.base import Prompt
from lesion_core.settings.kinds import rehearsed_as
from lesion_core.settings.run import Run


def needs(settings: Settings, name: str) -> list[tuple[str, str, str]]:
    """(key, needed method, needed task) of one method."""
    method = settings.methods[name]
    if method.task == "classification" and method.masks not in (None, "true"):
        return [("masks", str(method.masks), "segmentation")]
    if method.task == "joint":
        return [
            ("segmenter", method.segmenter, "segmentation"),
            ("classifier", method.classifier, "classification"),
        ]
    if method.task == "derived":
        return [("of", member, "classification") for member in method.of]
    return []


def closure(settings: Settings, problems: list[str]) -> list[str]:
    """The matrix's methods, then its ablations, and all that they need, in an order that can be run."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered or name not in settings.methods:
            return
        for key, needed, task in needs(settings, name):
            other = settings.methods.get(needed)
            if other is None or other.task != task:
                problems.append(f"methods.{name}.{key}: '{needed}' is not a {task} method")
                continue
            visit(needed)
        ordered.append(name)

    for name in (*settings.matrix.methods, *settings.matrix.ablations):
        visit(name)
    return ordered


def expand(settings: Settings) -> dict[str, Run]:
    """The experiment matrix as runs by id, in an order that can be run; equal settings share one run."""
    return _expanded(settings)[0]


def _expanded(settings: Settings) -> tuple[dict[str, Run], dict[str, list[str]]]:
    """Runs by id, and the ids of each method's runs, one per seed; in a rehearsal one run stands for all of its kind.

    A run is an ablation's where ``matrix.ablations`` alone asks for it and nothing is built on it, so that every run
    has one owner and ablations are the graph's leaves.
    """
    runs: dict[str, Run] = {}
    by_name: dict[tuple[str, int], Run] = {}
    by_content: dict[str, Run] = {}
    by_kind: dict[str, Run] = {}
    homes = settings.homes
    for name in closure(settings, []):
        spec = settings.methods[name]
        for seed in seeds(settings, name):
            linked: dict[str, Any] = {}
            for key, needed, _ in needs(settings, name):
                other = by_name.get((needed, seed)) or by_name[(needed, seeds(settings, needed)[0])]
                if isinstance(spec, DerivedMethod):
                    own = seeds(settings, needed) if spec.of_seeds else [other.seed]
                    linked.setdefault("source_runs", []).extend(by_name[(needed, member)].run_id for member in own)
                else:
                    linked["classifier_run" if key == "classifier" else "segmenter_run"] = other.run_id
            pixels = homes.pixels(spec.protocol, spec.rule)
            material = homes.materials[pixels]
            run = Run(
                method=name,
                seed=seed,
                spec=spec,
                pixels=pixels,
                split_tables=homes.splits(pixels),
                splits=material.splits,
                harmonization=material.harmonization,
                extraction=settings.extraction,
                threads=settings.compute.threads,
                processes=settings.compute.processes,
                ablation=name in settings.matrix.ablations,
                **linked,
            )
            content = run.run_id.rsplit("-", 1)[1]
            run = by_content.setdefault(content, run)
            if settings.rehearsal is not None:
                run = by_kind.setdefault(rehearsed_as(run, runs), run)
            by_name[(name, seed)] = run
            runs.setdefault(run.run_id, run)
    asked = {key for run in runs.values() for key in (run.segmenter_run, run.classifier_run, *run.source_runs)}
    owned = {key: run.model_copy(update={"ablation": run.ablation and key not in asked}) for key, run in runs.items()}
    of_methods: dict[str, dict[str, None]] = {}
    for (name, _), run in by_name.items():
        of_methods.setdefault(name, {})[run.run_id] = None
    return owned, {name: list(ids) for name, ids in of_methods.items()}


def seeds(settings: Settings, name: str) -> list[int]:
    """The seeds that a method is run with: ``matrix.seeds_for``'s, else all; one where nothing is random."""
    spec = settings.methods[name]
    if isinstance(spec, DerivedMethod):  # one run per run that is augmented, or per seed of the members; or one of all
        own = seeds(settings, spec.of[0])
        return own[:1] if spec.of_seeds else settings.matrix.seeds_for.get(name, own)
    asked = settings.matrix.seeds_for.get(name, settings.matrix.seeds)
    return asked if _is_seeded(settings.methods[name]) else asked[:1]


def _is_seeded(spec: Any) -> bool:
    """Methods without randomness run once, whatever the number of seeds."""
    if spec.task == "segmentation":
        random_start = spec.model.adapter != "none" and spec.model.adapter_init == "random"
        return random_start or (
            spec.model.kind != "otsu" and not (spec.model.kind == "sam" and spec.model.adapter == "none")
        )
    return spec.task == "joint" or spec.model.kind in NETWORKS


def plan(settings: Settings) -> Plan:
    """What the report's stages are told: papers and their tables, and the runs of every method (aliases share runs)."""
    found, of_methods = _expanded(settings)
    runs = found.values()
    second = {name: ids for name, ids in of_methods.items() if name.endswith(SUFFIX)}
    names = [name for name in of_methods if name not in second]
    return Plan(
        profile=settings.profile,
        rehearsed=settings.rehearsal is not None,
        tables=settings.tables,
        papers={name: paper.reference for name, paper in settings.papers.items()},
        claims={name: paper.claims for name, paper in settings.papers.items()},
        contradictions={name: paper.contradictions for name, paper in settings.papers.items()},
        tests={key: spec for paper in settings.papers.values() for key, spec in paper.tests.items()},
        runs={name: of_methods[name] for name in names},
        as_published={name.removesuffix(SUFFIX): ids for name, ids in second.items()},
        names={name: settings.names[name] for name in names if name in settings.names},
        trained_on={name: trained_on(settings, name) for name in names},
        figures={key: spec for paper in settings.papers.values() for key, spec in paper.figures.items()},
        prompts={name: prompt for name in names if (prompt := _prompt(settings.methods[name])) != "none"},
        protocols={run.pixels: run.split_tables for run in runs},
        figure_segmenter=next(_proposed_segmenters(settings, names), None),
        ablations=[run.run_id for run in runs if run.ablation],
        statistics=settings.statistics,
        ledger=settings.ledger,
        report=settings.report,
    )


def _prompt(method: Any) -> Prompt:
    return method.model.prompt if method.task == "segmentation" else "none"


def trained_on(settings: Settings, name: str) -> dict[str, list[str]]:
    """Task -> the datasets that a method learnt it from; none where it learns nothing."""
    method = settings.methods[name]
    if method.task == "derived":
        each = [trained_on(settings, member) for member in method.of]
        return {"classification": sorted({name for found in each for name in found["classification"]})}
    if method.task == "joint":
        masked = {*trained_on(settings, method.segmenter)["segmentation"]}
        masked |= {*method.train_on} if method.segmentation_from == "labelled_images" else set()
        return {"segmentation": sorted(masked), "classification": sorted(method.train_on)}
    learns = method.training.epochs > 0 or method.task == "classification"  # a floor of classes counts its classes
    return {method.task: sorted(method.train_on) if learns else []}


def _proposed_segmenters(settings: Settings, names: list[str]) -> Iterator[str]:
    figures = [figure for paper in settings.papers.values() for figure in paper.figures.values()]
    yield from (figure.method for figure in figures if figure.kind == "contours" and figure.method in names)
    for table in settings.tables.values():
        for row in table.rows:
            if row.proposed and row.method in names and settings.methods[row.method].task == "segmentation":
                yield row.method


def tried_runs(plan: Plan, settings: Robustness) -> list[str]:
    """Ids of the runs whose robustness is measured: the first ``settings.seeds`` of each of its methods."""
    return [run_id for name in settings.methods for run_id in plan.runs.get(name, [])[: settings.seeds]]


def chain_lengths(runs: Iterable[Run]) -> dict[str, int]:
    """Run id -> how many runs stand in the longest chain that waits for it; 0 where nothing does."""
    lengths: dict[str, int] = {}
    for run in reversed(list(runs)):  # in an order that can be run: what waits for a run stands behind it
        lengths.setdefault(run.run_id, 0)
        for needed in (run.segmenter_run, run.classifier_run, *run.source_runs):
            if needed is not None:
                lengths[needed] = max(lengths.get(needed, 0), lengths[run.run_id] + 1)
    return lengths


def batches(alike: Mapping[str, Hashable], size: int) -> list[list[str]]:
    """Ids in batches of at most ``size``, of equal values alone; in the order of the first ids."""
    groups: dict[Hashable, list[str]] = {}
    for key, value in alike.items():
        groups.setdefault(value, []).append(key)
    return [ids[start : start + size] for ids in groups.values() for start in range(0, len(ids), size)]
