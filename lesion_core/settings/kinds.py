"""Runs of one kind compute alike: what decides a step's time, and which run of a rehearsal stands for which others."""

from __future__ import annotations

from collections.abc import Mapping

from lesion_core.settings import NETWORKS, ClassificationMethod, DerivedMethod
from lesion_core.settings.as_published import SUFFIX
from lesion_core.settings.run import Run


def learns(run: Run) -> bool:
    """Whether a run takes optimisation steps."""
    if isinstance(run.spec, DerivedMethod) or not run.spec.training.epochs:
        return False
    return not isinstance(run.spec, ClassificationMethod) or run.spec.model.kind in NETWORKS


def kind_of(run: Run, runs: Mapping[str, Run]) -> str:
    """What decides a step's time: task, model, size, what learns; e.g. ``segmentation sam sam_vit_b 512 lora qv``.

    Args:
        run: of any task.
        runs: among which a joint run's two models are found.
    """
    model = getattr(run.spec, "model", None)
    if model is None:
        parts = [runs.get(name or "") for name in (run.segmenter_run, run.classifier_run)]
        two = getattr(run.spec, "segmentation_from", None) == "segmenter_images"
        return " + ".join(
            ["joint, two batches" if two else run.task, *(kind_of(part, runs) for part in parts if part is not None)]
        )
    named = [run.task, model.kind, getattr(model, "backbone", None) or getattr(model, "encoder", None)]
    named.append(str(model.image_size))
    if run.task == "segmentation":
        named += [name for name in (model.adapter, model.prompt) if name != "none"]
        named += [f"x{model.depth}"] if model.adapter == "bottleneck" and model.depth != 1 else []
        named += ["gated"] if model.gated else []
        named += [model.lora_targets] if model.adapter == "lora" else []
        named += [] if model.attention_gates else ["without gates"]
        if model.kind == "segmae":
            named += [name for name in ("stem", "mae_decoder") if getattr(model, name)]
    else:
        named += [f"/{model.patch_size}"]
        named += [model.fusion] if model.fusion != "none" else []
    return " ".join(part for part in named if part)


def rehearsed_as(run: Run, runs: Mapping[str, Run]) -> str:
    """The kind of a run for a rehearsal: ``kind_of``, the protocol, the samples of a step, whether it learns.

    An average of runs is one of its own method; a run under its paper's own split is of the kind of the leak-free one.
    """
    if isinstance(run.spec, DerivedMethod):
        return f"derived {run.method.removesuffix(SUFFIX)}"
    training = run.spec.training
    samples = f"batch {training.batch_size * training.accumulation}" if learns(run) else "as it starts"
    return f"{kind_of(run, runs)}, {samples}, {run.protocol}"
