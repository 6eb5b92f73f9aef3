"""Grad-CAM on a map of channels: convolutional features, or a transformer's tokens laid out as a map.

Selvaraju et al., ICCV 2017: channel weights are the target's gradients averaged over the map; the map is their
weighted sum, rectified. For a segmenter the target is the sum of the logits of the pixels that it calls lesion
(Seg-Grad-CAM, Vinogradova et al., AAAI 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lesion_core.errors import SettingsError


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """relu(sum over c of mean(gradients_c) * activations_c): (B, C, h, w) twice -> (B, h, w), not negative."""
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).clamp_min(0.0)


def tokens_to_map(tokens: Tensor, grid: int) -> Tensor:
    """Image tokens in row-major order as a map: (B, T, d) -> (B, d, grid, grid); tokens before the last grid * grid
    (class tokens) are dropped."""
    image = tokens[:, tokens.shape[1] - grid * grid :]
    return image.transpose(1, 2).reshape(len(tokens), -1, grid, grid)


class Captured:
    """What a hook caught: ``value``, a leaf that takes a gradient."""

    value: Tensor | None = None


def _leaf(caught: Captured, value: Tensor) -> Tensor:
    # cut off from what came before: frozen or not, only the way from here to the target is differentiated
    caught.value = value.detach().requires_grad_()
    return caught.value


@contextmanager
def capture(layer: nn.Module, *, before: bool = False) -> Iterator[Captured]:
    """Catch a layer's output (of a list of maps, the last; ``before``: its first input) in every forward pass."""
    caught = Captured()

    def on_input(_: nn.Module, inputs: tuple) -> tuple:
        return (_leaf(caught, inputs[0]), *inputs[1:])

    def on_output(_: nn.Module, inputs: tuple, output: Tensor | list | tuple) -> Tensor | list | tuple:
        if isinstance(output, Tensor):
            return _leaf(caught, output)
        return type(output)((*output[:-1], _leaf(caught, output[-1])))

    handle = layer.register_forward_pre_hook(on_input) if before else layer.register_forward_hook(on_output)
    try:
        yield caught
    finally:
        handle.remove()


def explain_target(
    layer: nn.Module, forward: Callable[[], Tensor], target: Callable[[Tensor], Tensor], *, before: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Run ``forward`` and differentiate ``target`` (logits -> scalar) by the layer's map.

    Returns:
        activations and gradients, of the layer's shape, and the logits; all detached.
    """
    with torch.enable_grad(), capture(layer, before=before) as caught:
        logits = forward()
        if caught.value is None:
            raise SettingsError("The explained layer took no part in the forward pass")
        (gradient,) = torch.autograd.grad(target(logits), caught.value)
    return caught.value.detach(), gradient, logits.detach()


def segmenter_layer(model: Any) -> tuple[nn.Module, bool]:
    """(layer, whether its input is meant) of a segmenter: the last token map of SAM's encoder, a CNN's deepest map.

    A model may name its own: an attribute ``explained_layer``.

    Raises:
        SettingsError: there is no such map (Otsu's threshold).
    """
    if hasattr(model, "explained_layer"):
        return model.explained_layer, False
    if hasattr(model, "sam"):
        return model.sam.image_encoder.neck, True
    network: Any = getattr(model, "network", None)
    if hasattr(network, "encoders"):
        return network.encoders[-1], False
    if hasattr(network, "encoder"):
        return network.encoder, False
    raise SettingsError(
        f"{type(model).__name__} has no map that Grad-CAM could explain", remedy="take it out of explain.methods"
    )


def segmenter_cam(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM of a segmenter without a prompt.

    Args:
        images: (B, 3, S, S) float, 0..255.

    Returns:
        maps (B, h, w), not negative, and logits (B, 1, s, s).
    """
    layer, before = segmenter_layer(model)

    def lesion(logits: Tensor) -> Tensor:
        called = logits > 0
        # where nothing is called lesion, all pixels are asked why not
        nothing = ~called.flatten(1).any(dim=1).view(-1, 1, 1, 1)
        return (logits * (called | nothing)).sum()

    activations, gradients, logits = explain_target(layer, lambda: model(images, None), lesion, before=before)
    return grad_cam(activations.float(), gradients.float()), logits


def classifier_encoder(model: nn.Module) -> Any:
    """The encoder that sees the image (of two, not the lesion's).

    Raises:
        SettingsError: the classifier is no network.
    """
    for name in ("image_encoder", "encoder"):
        if hasattr(model, name):
            return getattr(model, name)
    raise SettingsError(
        f"{type(model).__name__} has no encoder that Grad-CAM could explain", remedy="take it out of explain.methods"
    )


def classify(model: nn.Module, images: Tensor, masks: Tensor, metadata: Tensor | None) -> Tensor:
    """Logits of a classifier, with metadata where it takes some."""
    return model(images, masks) if metadata is None else model(images, masks, metadata)


def classifier_cam(
    model: nn.Module, images: Tensor, masks: Tensor, metadata: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Grad-CAM of a classifier's predicted class, on its encoder's image tokens (a CNN's last map, a ViT's last layer).

    Args:
        images: (B, 3, S, S) float, 0..255; masks: (B, 1, S, S) float, 0..1; metadata: what the model takes besides.

    Returns:
        maps (B, grid, grid) in the frame of what the encoder sees (a crop, where the input is one), and logits (B, K).
    """
    encoder = classifier_encoder(model)
    tokens, gradients, logits = explain_target(
        encoder,
        lambda: classify(model, images, masks, metadata),
        lambda logits: logits.max(dim=1).values.sum(),
    )
    activations, slopes = (tokens_to_map(part.float(), encoder.grid) for part in (tokens, gradients))
    return grad_cam(activations, slopes), logits
