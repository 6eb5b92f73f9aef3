"""From settings to a segmenter or a classifier: the one place that knows all kinds."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from torch import nn

from lesion_core.catalog.metadata import MetadataVocabulary
from lesion_core.errors import WeightsError
from lesion_core.models.classifier import Classifier, ClassifierModule
from lesion_core.models.dual_network import DualNetwork
from lesion_core.models.monai_networks import build_monai
from lesion_core.models.networks import build_network
from lesion_core.models.otsu import OtsuSegmenter
from lesion_core.models.sam.network import build_sam
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.segmae import build_segmae
from lesion_core.models.trainable import Segmenter
from lesion_core.models.trans_unet import build_trans_unet
from lesion_core.seeding import seed_torch
from lesion_core.settings import ClassificationModel, Extraction, SegmentationModel
from lesion_core.settings.segmentation import WIDTHS

EMBEDDED = "sam_vit_t"


def build_segmenter(model: SegmentationModel, weights: Path | None, seed: int) -> Segmenter:
    """The segmenter of ``model`` in eval mode on the CPU, at its start: adapters or a network not yet trained.

    Args:
        model: what to build.
        weights: file of the weights that it is built on (``settings.pretrained.weights_name``); None: the packaged
            ``sam_vit_t``, or a network of which all is restored afterwards. Otsu ignores it.
        seed: of the parts that start at random.

    Raises:
        SettingsError: the encoder of a network is unknown.
        WeightsError: the weights are missing or do not fit.
    """
    if model.kind == "otsu":
        return OtsuSegmenter().eval()
    if model.kind == "segmae":
        seed_torch(seed, "segmae")
        return build_segmae(model, weights)
    if model.kind == "trans_unet":
        seed_torch(seed, model.kind)
        return build_trans_unet(model, weights)
    if model.kind != "sam":
        seed_torch(seed, model.kind)
        if model.kind in WIDTHS:
            return build_monai(model)
        network = build_network(model.kind, model.encoder, weights)
        network.smallest_batch = model.smallest_batch
        if not model.attention_gates:
            network.network.open_gates()
            network.fix_trainable()
        return network
    if weights is not None:
        sam = build_sam(str(model.backbone), image_size=model.image_size, weights=weights)
    else:
        sam = _embedded(model)
    seed_torch(seed, "adapters")
    return SamSegmenter(
        sam,
        adapter=model.adapter,
        rank=model.rank,
        depth=model.depth,
        gated=model.gated,
        adapter_init=model.adapter_init,
        lora_targets=model.lora_targets,
    ).eval()


def build_classifier(
    model: ClassificationModel,
    extraction: Extraction,
    *,
    seed: int,
    vocabulary: MetadataVocabulary | None = None,
    weights: Path | None = None,
) -> ClassifierModule:
    """A classifier with weights drawn from ``seed``, and those of a file in the encoder.

    Args:
        vocabulary: of the training images' metadata, for a model that looks at it.
        weights: file of the backbone's weights; None: a random start, or all is restored afterwards.

    Raises:
        SettingsError: the settings do not describe a network (``kind`` is a classical baseline, sizes do not
            divide).
    """
    seed_torch(seed, "classifier")
    if model.kind == "dual":
        return DualNetwork(model, extraction, vocabulary, weights)
    return Classifier(model, extraction, weights)


def _embedded(model: SegmentationModel) -> nn.Module:
    if model.backbone != EMBEDDED:
        # A random foundation model would train and score without a word, and mean nothing.
        raise WeightsError(f"{model.backbone} needs its weights", remedy="fetch them, or use the packaged sam_vit_t")
    with as_file(files("lesion_core") / "weights" / f"{EMBEDDED}.safetensors") as path:
        return build_sam(EMBEDDED, image_size=model.image_size, weights=path)
