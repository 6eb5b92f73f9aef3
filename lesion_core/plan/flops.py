"""Floating-point operations of a model, counted by torch on tensors without memory: nothing is loaded or computed.

A multiplication and an addition are two operations; matrix products and convolutions count, elementwise work does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from lesion_core.errors import SettingsError
from lesion_core.settings.run import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

# Two, since batch norm needs more than one value per channel.
IMAGES = 2


def flops_per_image(run: Run, runs: Mapping[str, Run]) -> dict[str, int]:
    """Operations for one image of each kind of pass that ``work.Work`` counts.

    SAM is counted with its published attention and without prompt tokens (one to three beside five); ``fast`` saves the
    projections of padded windows and computes attention twice.

    Args:
        run: a segmentation, classification or joint run with a network.
        runs: among which a joint run's two models are found.

    Raises:
        SettingsError: the run has no network.
    """
    with ExitStack() as stack:
        _enter_weightless(stack)
        if run.task == "segmentation":
            return _segmentation(run)
        if run.task == "classification":
            model = _classifier(run)
            return _passes(model, lambda: model(*_photographs(run.spec.model.image_size, masks=True)))
        if run.task == "joint":
            return _joint(run, runs)
    raise SettingsError(f"{run.method} has no network", remedy="derived runs train nothing")


def _enter_weightless(stack: ExitStack) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel

    stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # as products that are counted


def _real() -> AbstractContextManager:
    """Where a model is built whose start is looked at; SAM's is not, and ViT-H would take its seconds."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    return unset_fake_temporarily()


def _photographs(size: int, *, masks: bool = False) -> tuple[Tensor, ...]:
    import torch

    images = torch.empty(IMAGES, 3, size, size)
    return (images, torch.empty(IMAGES, 1, size, size)) if masks else (images,)


def _passes(model: nn.Module, call: Callable[[], Any]) -> dict[str, int]:
    """``forward`` and ``train`` (forward, and backward to what learns) of a call, for one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model.train()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with FlopCounterMode(display=False) as counter:
        outputs = call()
        forward = counter.get_total_flops()
        torch.autograd.grad(_total(outputs), learnt, allow_unused=True)
    return {"forward": forward // IMAGES, "train": counter.get_total_flops() // IMAGES}


def _total(outputs: Any) -> Tensor:
    """A scalar that all outputs reach."""
    return sum(part.sum() for part in outputs) if isinstance(outputs, tuple) else outputs.sum()


def _segmenter(run: Run) -> nn.Module:
    from lesion_core.models.registry import build_segmenter
    from lesion_core.models.sam.network import build_sam
    from lesion_core.models.sam.segmenter import SamSegmenter

    model = run.spec.model
    if model.kind == "otsu":
        raise SettingsError("Otsu's threshold has no network")
    if model.kind != "sam":
        with _real():
            return build_segmenter(model, None, run.seed, pretrained=False)
    return SamSegmenter(
        build_sam(model.backbone, image_size=model.image_size),
        adapter=model.adapter,
        rank=model.rank,
        depth=model.depth,
        gated=model.gated,
        adapter_init=model.adapter_init,
        lora_targets=model.lora_targets,
        attention="reference",
    )


def _segmentation(run: Run) -> dict[str, int]:
    import torch

    spec, model = run.spec, _segmenter(run)
    (images,) = _photographs(spec.model.image_size)
    if spec.model.kind != "sam":
        counted = _passes(model, lambda: model(images))
        if spec.reconstruction is not None:
            seen = max(1, round(model.patches * (1.0 - spec.reconstruction.mask_ratio)))
            keep = torch.arange(seen).expand(IMAGES, -1)
            encoder, decoder = model.network["encoder"], model.network["mae"]

            # the masked patches' selection needs values; it computes nothing
            counted["reconstruct"] = _passes(model, lambda: decoder(encoder(images, keep)[0], keep))["train"]
        return counted
    if next(model.trainable_parameters(), None) is None:
        with torch.no_grad():
            counted = {"forward": _count(lambda: model(images)), "encode": _count(lambda: model.encode(images))}
        return counted | {"decode": counted["forward"] - counted["encode"]}
    with torch.no_grad():
        encode = _count(lambda: model.encode(images))
    if spec.model.embedding_cache == "none":
        counted = _passes(model, lambda: model(images))
    else:
        grid, channels = spec.model.image_size // 16, model.sam.prompt_encoder.embed_dim
        stored = torch.empty(IMAGES, channels, grid, grid)
        counted = _passes(model, lambda: model.decode(stored))
        counted["forward"] += encode
    return counted | {"encode": encode, "decode": counted["forward"] - encode}


def _count(call: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // IMAGES


def _classifier(run: Run) -> nn.Module:
    from lesion_core.catalog.metadata import MetadataVocabulary
    from lesion_core.models.classifier import build_classifier

    model = run.spec.model.model_copy(update={"pretrained": False})
    # its categories decide the length of small tables, which no product sees
    vocabulary = MetadataVocabulary((), (), 0.0, 1.0) if model.metadata != "none" else None
    with _real():
        return build_classifier(model, run.extraction, seed=run.seed, vocabulary=vocabulary)


def _joint(run: Run, runs: Mapping[str, Run]) -> dict[str, int]:
    from lesion_core.training.joint import JointModel

    segmenter, classifier = runs[run.segmenter_run or ""], runs[run.classifier_run or ""]
    model = JointModel(_segmenter(segmenter), _classifier(classifier), classifier.spec.model.image_size)
    return _passes(model, lambda: model(*_photographs(segmenter.spec.model.image_size)))
