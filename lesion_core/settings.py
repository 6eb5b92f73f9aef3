"""Typed settings: the shape of params.yaml. Unknown keys, wrong types and impossible values are refused here.

The meaning of each key, the paper's value and our choices stand as comments in params.yaml, beside the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]

DATASETS = (
    "isic2016",
    "isic2017",
    "isic2018_task1",
    "isic2018_task3",
    "isic2019",
    "ham10000",
    "ph2",
    "custom",
)
BACKBONE_PATCHES = {  # patch sizes, or the stride of a convolutional network's last map
    "vit_t": (4, 8, 16, 32),
    "vit_base": (8, 16, 32),
    "efficientnet_b4": (32,),
    "convnext_tiny": (32,),
    "densenet201": (32,),
}
NETWORKS = ("fusion", "dual")  # kinds of classifiers that are trained by gradient descent
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
Dataset = Literal["isic2016", "isic2017", "isic2018_task1", "isic2018_task3", "isic2019", "ham10000", "ph2", "custom"]
Prompt = Literal["none", "automatic", "automatic_masks", "oracle_box", "oracle_click_1", "oracle_click_3"]
# What a method can be trained with: an automatic prompt comes from a trained model.
TrainingPrompt = Literal["none", "oracle_box", "oracle_click_1", "oracle_click_3"]


class Strict(BaseModel):
    """Unknown keys fail; values are not coerced from other types; settings do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Compute(Strict):
    """How jobs use the machine; in a run's identity are ``threads`` and ``processes`` alone (sums depend on them)."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Count
    processes: Count = 1
    gpu_memory_mb: Count
    memory_mb: Count
    runtime_minutes: Count


class Synthetic(Strict):
    """Made images for the smoke profile and for pretraining."""

    seed: int
    size: Annotated[int, Field(ge=32)]
    isic2018_task1: Count
    ham10000_lesions: Count
    photographs_per_lesion: Annotated[float, Field(ge=1.0)]
    isic2018_task3: Count
    ph2: Count


class Custom(Strict):
    """A user's own dataset: a folder of images, optional masks, and a CSV."""

    images: str
    csv: str
    masks: str | None = None
    licence: str = "not stated"


class Data(Strict):
    """Which datasets take part, and where they come from."""

    datasets: Annotated[list[Dataset], Field(min_length=1)]
    ph2: str | None
    custom: Custom | None
    retries: Whole
    timeout_seconds: Positive


class Views(Strict):
    """Search for other photographs of one lesion: local features that agree on an affine map."""

    features: Annotated[int, Field(ge=8)] = 200
    candidates: Count = 4
    min_votes: Count = 3
    ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    reprojection: Positive = 4.0
    min_inliers: Annotated[int, Field(ge=4)] = 7


class Duplicates(Strict):
    """Near-duplicate search: perceptual-hash candidates, verified on pixels; and other views of a lesion."""

    max_hamming: Whole
    min_correlation: Fraction
    views: Views = Views()


SplitCounts = Annotated[list[Whole], Field(min_length=3, max_length=3)]


class Splits(Strict):
    """Leak-free splits by group, stratified by class; ``official``: the release's own parts, or [train, val, test]."""

    seed: int
    train: Fraction
    val: Fraction
    test: Fraction
    official: dict[Dataset, Literal["release"] | SplitCounts] = Field(default_factory=dict)
    on_conflict: Literal["error", "move"] = "error"

    @model_validator(mode="after")
    def _sums_to_one(self) -> Splits:
        if abs(self.train + self.val + self.test - 1.0) > 1e-9:
            raise ValueError("train, val and test must add up to 1")
        return self


class Harmonization(Strict):
    """One appearance for all datasets (paper A, section 3.1)."""

    histogram: Literal["specification", "none"]
    colour: Literal["none", "grey_world", "shades_of_grey"]
    hair_removal: bool
    mask_closing: Whole
    mask_min_component: Fraction
    mask_smoothing: NotNegative
    soft_mask_sigma: NotNegative
    scaled_decoding: bool = False
    colour_for: dict[Dataset, Literal["none", "grey_world", "shades_of_grey"]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _hair_needs_every_pixel(self) -> Harmonization:
        if self.scaled_decoding and self.hair_removal:
            raise ValueError("scaled_decoding must be false with hair_removal: hair is sought at full resolution")
        return self

    def of(self, datasets: Sequence[str]) -> Harmonization:
        """These settings with the colour correction that all of ``datasets`` share; with ``colour`` if they differ."""
        colours = {self.colour_for.get(name, self.colour) for name in datasets}
        return self.model_copy(update={"colour": colours.pop() if len(colours) == 1 else self.colour, "colour_for": {}})


class Augmentation(Strict):
    """Random changes of a training sample (paper A, section 3.2); zero switches a part off."""

    flip_horizontal: Fraction
    flip_vertical: Fraction
    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)]
    affine: Annotated[float, Field(ge=0.0, le=0.5)]
    translation: Annotated[float, Field(ge=0.0, le=0.5)]
    elastic_alpha: NotNegative
    elastic_grid: Annotated[int, Field(ge=2)]
    noise_std: NotNegative
    brightness: NotNegative
    contrast: NotNegative
    saturation: NotNegative

    @property
    def changes(self) -> tuple[str, ...]:
        """The parts that are switched on."""
        return tuple(key for key in type(self).model_fields if key != "elastic_grid" and getattr(self, key))


class Training(Strict):
    """One run's optimisation."""

    epochs: Whole
    batch_size: Count
    optimizer: Literal["adamw", "sgd"]
    learning_rate: Positive
    weight_decay: NotNegative
    momentum: Fraction
    schedule: Literal["cosine", "constant", "plateau"]
    warmup_fraction: Fraction
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    plateau_patience: Whole = 10
    min_learning_rate: NotNegative = 0.0
    gradient_clip: NotNegative
    precision: Literal["fp32", "bf16", "fp16"]
    checkpoint_steps: Count
    patience: Whole
    accumulation: Count = 1
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    activation_checkpointing: bool = False
    tensorboard: bool = False

    @model_validator(mode="after")
    def _plateau_can_act(self) -> Training:
        if self.schedule == "plateau":
            if self.min_learning_rate > self.learning_rate:
                raise ValueError("min_learning_rate must not exceed learning_rate")
            if 0 < self.patience <= self.plateau_patience:
                raise ValueError("patience would end the training before plateau_patience lowers the learning rate")
        return self


SegmentationKind = Literal[
    "sam", "unet", "unet_plus_plus", "deeplabv3_plus", "segformer", "deep_unet", "segmae", "otsu"
]
# Keys of SegmentationModel that a kind uses besides kind and image_size; any other must keep its default.
KIND_KEYS: dict[str, tuple[str, ...]] = {
    "sam": ("backbone", "adapter", "prompt", "attention"),
    "unet": ("encoder", "encoder_weights"),
    "unet_plus_plus": ("encoder", "encoder_weights"),
    "deeplabv3_plus": ("encoder", "encoder_weights"),
    "segformer": ("encoder", "encoder_weights"),
    "deep_unet": ("encoder", "encoder_weights"),
    "segmae": ("encoder", "encoder_weights", "stem", "mae_decoder"),
    "otsu": (),
}
# What an adapter uses in addition.
ADAPTER_KEYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "bottleneck": ("rank", "adapter_init", "depth", "gated"),
    "lora": ("rank", "adapter_init", "lora_targets"),
    "med_sa": ("rank", "adapter_init"),
    "gmed_sa": ("rank", "adapter_init"),
    "gl_med_sa": ("rank", "adapter_init"),
    "decoder": ("embedding_cache",),
}


class SegmentationModel(Strict):
    """What is built; the keys a kind does not use must keep their defaults."""

    kind: SegmentationKind
    image_size: Annotated[int, Field(ge=32)]
    backbone: Literal["sam_vit_t", "sam_vit_b", "sam_vit_l", "sam_vit_h", "medsam"] | None = None
    adapter: Literal["none", "bottleneck", "lora", "med_sa", "gmed_sa", "gl_med_sa", "decoder"] = "none"
    rank: Count = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    gated: bool = False
    adapter_init: Literal["zero", "random"] = "zero"
    lora_targets: Literal["qv", "qkvo"] = "qv"
    embedding_cache: Literal["none", "fp16", "fp32"] = "none"
    attention: Literal["fast", "reference"] = "fast"
    encoder: str | None = None
    encoder_weights: str | None = None
    stem: bool = True
    mae_decoder: bool = True
    prompt: TrainingPrompt = "none"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> SegmentationModel:
        if (self.kind == "sam") != (self.backbone is not None):
            raise ValueError("backbone must be set for kind sam, and for no other kind")
        used = {"kind", "image_size", *KIND_KEYS[self.kind]}
        name = f"kind {self.kind}"
        if self.kind == "sam":
            used |= set(ADAPTER_KEYS[self.adapter])
            name = f"adapter {self.adapter}"
        fields = type(self).model_fields
        if idle := [key for key in fields if key not in used and getattr(self, key) != fields[key].default]:
            raise ValueError(f"{name} does not use {', '.join(idle)}: leave it out")
        if self.encoder_weights and not self.encoder:
            raise ValueError("encoder_weights needs an encoder")
        if self.kind in ("unet_plus_plus", "deeplabv3_plus", "segformer") and not self.encoder:
            raise ValueError(f"kind {self.kind} needs an encoder")
        if self.kind == "segmae" and self.encoder not in (None, "vit_b_16"):
            raise ValueError("the encoder of kind segmae is vit_b_16, or null for the tiny twin")
        multiple = 1 if self.kind == "otsu" else 32 if self.encoder and self.kind != "segmae" else 16
        if self.image_size % multiple:
            raise ValueError(f"image_size must be a multiple of {multiple}, the total stride of {self.kind}")
        return self


class SegmentationLoss(Strict):
    """L_seg = dice * Dice + bce * BCE (paper A, section 3.7) + patch * patch-wise loss (paper D, section 3.4)."""

    dice: NotNegative
    bce: NotNegative
    soft_target: bool
    patch: NotNegative = 0.0
    patch_size: Count = 16
    patch_temperature: NotNegative = 0.1

    @model_validator(mode="after")
    def _patches_count(self) -> SegmentationLoss:
        fields = type(self).model_fields
        idle = [key for key in ("patch_size", "patch_temperature") if getattr(self, key) != fields[key].default]
        if idle and not self.patch:
            raise ValueError(f"with patch: 0 the loss does not use {', '.join(idle)}: leave it out")
        return self


class Reconstruction(Strict):
    """SegMAE's second branch (paper D, section 3.3): stage 1, and what is masked and how it is weighted in both."""

    epochs: Whole
    mask_ratio: Annotated[float, Field(gt=0.0, lt=1.0)]
    temperature: NotNegative


class Extraction(Strict):
    """From probability map to lesion (paper A, section 3.4)."""

    threshold: Fraction
    closing: Whole
    smoothing: NotNegative
    largest_component: bool
    crop_margin: NotNegative
    blend: Fraction


class ClassificationModel(Strict):
    """Image encoder, input, and fusion with mask tokens (paper A, sections 3.5 and 3.6)."""

    kind: Literal["fusion", "dual", "majority", "color_histogram"]
    backbone: Literal["vit_t", "vit_base", "efficientnet_b4", "convnext_tiny", "densenet201"] | None = None
    pretrained: bool = False
    image_size: Annotated[int, Field(ge=32)] = 224
    patch_size: Count = 16
    input: Literal["full", "masked", "crop", "blend"] = "full"
    fusion: Literal["none", "concat", "cross_attention", "gated"] = "none"
    heads: Count = 4
    dropout: Fraction = 0.0
    metadata: Literal["none", "binned", "continuous"] = "none"

    @property
    def uses_masks(self) -> bool:
        """Whether a prediction depends on masks; the dual network's attention is between photograph and lesion."""
        fused = self.kind == "fusion" and self.fusion != "none"
        return self.kind != "majority" and (fused or self.input != "full")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClassificationModel:
        if (self.kind in NETWORKS) != (self.backbone is not None):
            raise ValueError("backbone must be set for kinds fusion and dual, and for no other kind")
        if self.backbone is not None and self.patch_size not in BACKBONE_PATCHES[self.backbone]:
            raise ValueError(f"{self.backbone} comes with patch_size {BACKBONE_PATCHES[self.backbone]}")
        if self.backbone == "vit_t" and self.pretrained:
            raise ValueError("vit_t has no pretrained weights: set pretrained to false")
        if self.metadata != "none" and self.kind != "dual":
            raise ValueError("metadata belongs to kind dual")
        if self.kind == "dual" and self.fusion not in ("none", "cross_attention"):
            raise ValueError("kind dual takes fusion none or cross_attention")
        if self.image_size % self.patch_size:
            raise ValueError("image_size must be a multiple of patch_size")
        return self


class ClassificationLoss(Strict):
    """Weighted cross-entropy and what may stand beside it."""

    weighting: Literal["none", "inverse_frequency", "effective_number"]
    beta: Annotated[float, Field(ge=0.0, lt=1.0)]
    focal_gamma: NotNegative
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    sampling: Literal["uniform", "inverse_frequency"]
    mixup_alpha: NotNegative


class SegmentationMethod(Strict):
    """One segmentation method: what is built, on which data, how it is trained."""

    task: Literal["segmentation"]
    train_on: Annotated[list[Dataset], Field(min_length=1)]
    model: SegmentationModel
    loss: SegmentationLoss
    training: Training
    augmentation: Augmentation
    reconstruction: Reconstruction | None = None

    @model_validator(mode="after")
    def _reconstructs_with_a_decoder(self) -> SegmentationMethod:
        if (self.model.kind == "segmae" and self.model.mae_decoder) != (self.reconstruction is not None):
            raise ValueError("reconstruction must be set for kind segmae with mae_decoder, and for nothing else")
        if self.loss.patch and self.model.image_size % self.loss.patch_size:
            raise ValueError("model.image_size must be a multiple of loss.patch_size")
        return self

    @model_validator(mode="after")
    def _caches_what_does_not_change(self) -> SegmentationMethod:
        if self.model.embedding_cache != "none" and self.augmentation.changes:
            raise ValueError(
                "embedding_cache keeps the embeddings of unchanged images: augmentation must be off "
                f"({', '.join(self.augmentation.changes)} are not 0)"
            )
        return self


class ClassificationMethod(Strict):
    """One classification method; ``masks``: ``true``, or the segmentation method that makes the pseudo-masks."""

    task: Literal["classification"]
    train_on: Annotated[list[Dataset], Field(min_length=1)]
    masks: str | None
    mask_order: Literal["own", "shuffled"] = "own"
    model: ClassificationModel
    loss: ClassificationLoss
    training: Training
    augmentation: Augmentation

    @model_validator(mode="after")
    def _has_the_masks_it_uses(self) -> ClassificationMethod:
        uses = self.model.uses_masks
        if uses and self.masks is None:
            raise ValueError("fusion other than none and input other than full need masks: true or a method")
        if not uses and self.mask_order != "own":
            raise ValueError("mask_order shuffled needs masks that are used")
        if self.model.metadata != "none" and self.loss.mixup_alpha > 0:
            raise ValueError("mixup cannot mix metadata: set loss.mixup_alpha to 0")
        if not uses and self.masks is not None:
            raise ValueError("masks must be null where fusion is none and input is full: nothing would use them")
        return self


class JointMethod(Strict):
    """Joint fine-tuning of a segmenter and a classifier: l1 * L_seg + l2 * L_cls (paper A, section 3.7)."""

    task: Literal["joint"]
    train_on: Annotated[list[Dataset], Field(min_length=1)]
    segmenter: str
    classifier: str
    mask_source: Literal["true", "pseudo"]
    weight_segmentation: NotNegative
    weight_classification: NotNegative
    segmentation_loss: SegmentationLoss
    classification_loss: ClassificationLoss
    training: Training
    augmentation: Augmentation


class DerivedMethod(Strict):
    """A method that trains nothing: test-time augmentation of each run of ``of``, or one ensemble of all its seeds."""

    task: Literal["derived"]
    of: str
    how: Literal["tta", "ensemble"]


Method = Annotated[SegmentationMethod | ClassificationMethod | JointMethod | DerivedMethod, Field(discriminator="task")]


class Matrix(Strict):
    """Which methods this profile runs, and with which seeds; ``seeds_for`` names the methods that take fewer."""

    seeds: Annotated[list[int], Field(min_length=1)]
    seeds_for: dict[str, Annotated[list[int], Field(min_length=1)]] = {}
    methods: Annotated[list[str], Field(min_length=1)]


class AutomaticMasks(Strict):
    """Lesions from SAM's automatic masks: a grid of points, thresholds of estimated IoU and stability."""

    points_per_side: Count
    predicted_iou: Fraction
    stability: Fraction
    stability_offset: NotNegative


class Scoring(Strict):
    """How a prediction is compared with the truth."""

    segmentation_on: list[Dataset]
    classification_on: list[Dataset]
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    zero_shot_prompts: list[Prompt]
    automatic_masks: AutomaticMasks
    box_jitter: Fraction
    refine: bool
    batch_size: Count

    @model_validator(mode="after")
    def _unprompted_first(self) -> Scoring:
        if "none" not in self.prompts:
            raise ValueError("prompts must contain none: masks, tables and the automatic box rest on it")
        return self


class Explain(Strict):
    """Where networks look: maps of test images against the true masks."""

    methods: list[str]
    seeds: Count
    images: Count
    tolerance: NotNegative
    prior_sigma: Positive
    examples: Whole
    seed: int


class Statistics(Strict):
    """Tests and intervals."""

    alpha: Annotated[float, Field(gt=0.0, lt=1.0)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int
    power: Annotated[float, Field(gt=0.0, lt=1.0)]
    family: Annotated[list[Literal["table", "dataset", "metric", "level"]], Field(min_length=1)]
    segmentation_metric: Literal["dice", "iou"]
    segmentation_proposed: str
    classification_proposed: str

    @model_validator(mode="after")
    def _levels_stay_apart(self) -> Statistics:
        if "level" not in self.family:
            raise ValueError("family must name level: tests over seeds and tests over images are never mixed")
        if self.power <= self.alpha:
            raise ValueError("power must be greater than alpha")
        return self


class Ledger(Strict):
    """When a published number counts as reproduced."""

    tolerance_points: NotNegative
    tolerance_sds: NotNegative


class Report(Strict):
    """The page."""

    gallery_side: Annotated[int, Field(ge=48)]
    gallery_megabytes: NotNegative


class Subgroups(Strict):
    """Classification metrics by sex, age, site and way of diagnosis."""

    methods: list[str]
    age_bands: Annotated[list[Positive], Field(min_length=1)]
    resamples: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _bands_ascend(self) -> Subgroups:
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError("age_bands must ascend")
        return self


Corruption = Literal["blur", "noise", "jpeg", "brightness", "hair", "colour_cast"]


class Robustness(Strict):
    """Which methods are scored on corrupted photographs, and how strong the corruptions are."""

    methods: list[str]
    seeds: Count
    images: Count | None
    corruptions: dict[Corruption, Annotated[list[NotNegative], Field(min_length=1)]]

    @model_validator(mode="after")
    def _strengths_grow(self) -> Robustness:
        for kind, amounts in self.corruptions.items():
            if sorted(set(amounts)) != amounts:
                raise ValueError(f"the amounts of {kind} must grow")
        if max(self.corruptions.get("jpeg", [0.0])) > 99:
            raise ValueError("jpeg: the quality is 100 - amount and must stay positive")
        return self


class Pretrain(Strict):
    """The embedded foundation model: made images only, clicks and boxes."""

    seed: int
    images: Count
    image_size: Annotated[int, Field(ge=64)]
    steps: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    checkpoint_steps: Count
    prompt_none: Fraction
    prompt_box: Fraction


class TableRow(Strict):
    """One row of a table: its label, the method that fills it, the paper's row beside it (None: of the same label);
    ``dataset``: another than the table's."""

    label: str
    method: str
    published: str | None = None
    prompt: Prompt = "none"
    dataset: Dataset | None = None


class Table(Strict):
    """A table of a paper: which rows we fill, scored on which dataset."""

    title: str
    paper: str
    published: str
    task: Literal["segmentation", "classification", "both"]
    dataset: Dataset
    segmentation_dataset: Dataset | None = None
    metrics: Annotated[list[str], Field(min_length=1)]
    rows: list[TableRow]


class Plan(Strict):
    """What tables, statistics and figures need to know besides the scores.

    Attributes:
        profile: smoke, mini or paper.
        tables: as in params.yaml.
        runs: method name -> run ids, one per seed, for every method that this profile runs.
        statistics, ledger, report: as in params.yaml.
    """

    profile: str
    tables: dict[str, Table]
    runs: dict[str, list[str]]
    statistics: Statistics
    ledger: Ledger
    report: Report


class Settings(Strict):
    """All of params.yaml after the profile's overlay and the command line."""

    profile: Literal["smoke", "mini", "paper"]
    mirror: str | None
    compute: Compute
    data: Data
    synthetic: Synthetic | None
    duplicates: Duplicates
    splits: Splits
    harmonization: Harmonization
    extraction: Extraction
    scoring: Scoring
    explain: Explain
    statistics: Statistics
    subgroups: Subgroups
    robustness: Robustness
    ledger: Ledger
    report: Report
    pretrain: Pretrain
    matrix: Matrix
    methods: dict[str, Method]
    tables: dict[str, Table]
