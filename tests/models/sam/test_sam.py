"""SAM from segment_anything's own modules: import, sizes, strict loading, parity, prompts."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from segmentation_runs import shaken_sam

from lesion_core.errors import ImageError, SettingsError, WeightsError
from lesion_core.models.sam.network import VARIANTS, build_sam, load_sam_weights, position_tables
from lesion_core.models.sam.prompts import Prompts
from lesion_core.models.sam.segmenter import SamSegmenter
from lesion_core.models.weights import read_weights
from lesion_core.seeding import generator

SIZE = 256
GLOBAL = "image_encoder.blocks.3.attn.rel_pos_h"
WINDOWED = "image_encoder.blocks.0.attn.rel_pos_h"


@pytest.fixture(scope="module")
def sam() -> torch.nn.Module:
    return shaken_sam()


@pytest.fixture(scope="module")
def segmenter(sam) -> SamSegmenter:
    return SamSegmenter(copy.deepcopy(sam), adapter="none").eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    pixels = generator("test_sam", "images").integers(0, 256, size=(2, 3, SIZE, SIZE))
    return torch.from_numpy(pixels).float()


BOXES = torch.tensor([[20.0, 40.0, 120.0, 200.0], [99.5, 3.0, 140.0, 30.0]])
POINTS = torch.tensor([[[30.0, 200.0], [10.0, 20.0]], [[250.0, 7.0], [0.0, 0.0]]])
LABELS = torch.tensor([[1, 0], [1, -1]])
PROMPTS = {
    "none": None,
    "boxes": Prompts(boxes=BOXES),
    "points": Prompts(points=POINTS, point_labels=LABELS),
    "both": Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS),
}


def published(sam, images, prompts: Prompts | None, *, multimask: bool) -> list[dict]:
    """segment_anything's own Sam.forward, an image at a time."""
    records = []
    for index, image in enumerate(images):
        record = {"image": image, "original_size": (SIZE, SIZE)}
        if prompts is not None and prompts.boxes is not None:
            record["boxes"] = prompts.boxes[index : index + 1]
        if prompts is not None and prompts.points is not None:
            record["point_coords"] = prompts.points[index : index + 1]
            record["point_labels"] = prompts.point_labels[index : index + 1]
        records.append(record)
    return sam(records, multimask_output=multimask)


PARAMETERS = {
    "sam_vit_t": 3_576_032,
    "sam_vit_b": 93_735_472,
    "sam_vit_l": 312_342_832,
    "sam_vit_h": 641_090_608,
    "medsam": 93_735_472,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts(name):
    with torch.device("meta"):
        model = build_sam(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_published_names_and_shapes_of_vit_b():
    """The names that the published checkpoint has; a renamed tensor would be refused at loading."""
    with torch.device("meta"):
        state = build_sam("sam_vit_b").state_dict()
    assert state["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    assert state["image_encoder.blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert state["image_encoder.blocks.0.attn.rel_pos_w"].shape == (27, 64)
    assert state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape == (2, 128)
    assert state["mask_decoder.iou_prediction_head.layers.2.weight"].shape == (4, 256)
    assert not any(name.startswith("pixel_") for name in state)


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("multimask", [False, True])
def test_parity_with_segment_anything(sam, segmenter, images, kind, multimask):
    expected = published(sam, images, PROMPTS[kind], multimask=multimask)
    with torch.no_grad():
        masks, iou = segmenter.decode_all(segmenter.encode(images), PROMPTS[kind])
        single = segmenter(images, PROMPTS[kind])
    assert masks.shape == (2, 4, 64, 64)
    assert iou.shape == (2, 4)
    assert single.shape == (2, 1, 64, 64)
    assert single.dtype == torch.float32
    for index, one in enumerate(expected):
        ours = masks[index, 1:] if multimask else single[index]
        reference = one["low_res_logits"][0]
        assert reference.abs().max() > 1e-3
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5 * float(reference.abs().max()))
        torch.testing.assert_close(iou[index, 1:] if multimask else iou[index, :1], one["iou_predictions"][0])
        upsampled = sam.postprocess_masks(ours[None], (SIZE, SIZE), (SIZE, SIZE)) > 0
        # A logit within rounding of zero may fall on either side.
        assert (upsampled != one["masks"]).float().mean() < 1e-4


def test_no_prompt_is_no_sparse_token_and_the_no_mask_embedding(segmenter, images, monkeypatch):
    seen = {}
    transformer = segmenter.sam.mask_decoder.transformer

    def spy(image, position, tokens):
        seen.update(image=image, tokens=tokens)
        return type(transformer).forward(transformer, image, position, tokens)

    monkeypatch.setattr(transformer, "forward", spy)
    with torch.no_grad():
        embeddings = segmenter.encode(images)
        segmenter.decode(embeddings)
    assert seen["tokens"].shape == (2, 5, 128)
    no_mask = segmenter.sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    assert torch.equal(seen["image"], embeddings + no_mask)


def test_clicks_are_x_then_y(segmenter):
    """A click's encoding must equal the dense encoding of the patch it falls into: column from x, row from y."""
    encoder = segmenter.sam.prompt_encoder
    dense = encoder.get_dense_pe()[0]
    column, row = 3, 12
    centre = torch.tensor([[[column * 16 + 7.5, row * 16 + 7.5]]])
    with torch.no_grad():
        sparse, _ = encoder(points=(centre, torch.ones(1, 1)), boxes=None, masks=None)
    click = sparse[0, 0] - encoder.point_embeddings[1].weight[0]
    torch.testing.assert_close(click, dense[:, row, column], rtol=1e-4, atol=1e-4)
    assert (click - dense[:, column, row]).abs().max() > 0.1


def test_autocast_runs(segmenter, images):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = segmenter(images, PROMPTS["both"])
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_wrong_input_is_refused(segmenter, images):
    with pytest.raises(ImageError, match="256"):
        segmenter(images[:, :, :128, :128])
    with pytest.raises(ImageError, match="1 prompts"):
        segmenter(images, Prompts(boxes=BOXES[:1]))
    with pytest.raises(SettingsError, match="multiple of 16"):
        build_sam("sam_vit_t", image_size=250)
    with pytest.raises(SettingsError, match="sam_vit_x"):
        build_sam("sam_vit_x")


@pytest.fixture
def state(sam) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_back_to_the_bit(sam, state, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = build_sam("sam_vit_t", weights=path)
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(loaded.pixel_mean, sam.pixel_mean)
    assert torch.equal(loaded.pixel_std, sam.pixel_std)
    image = torch.full((1, 3, SIZE, SIZE), 90.0)
    with torch.no_grad():
        ours = SamSegmenter(loaded, adapter="none")(image)
        assert torch.equal(ours, SamSegmenter(copy.deepcopy(sam), adapter="none")(image))


def test_half_precision_weights_are_widened(state, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    loaded = build_sam("sam_vit_t", weights=path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.state_dict()[GLOBAL], state[GLOBAL].half().float())


def drop(state, name):
    del state[name]


def rename(state, name):
    state[name.replace("rel_pos", "relpos")] = state.pop(name)


def reshape(state, name):
    state[name] = state[name][:-1].clone()


def spoil(state, name):
    state[name][0, 0] = float("nan")


def retype(state, name):
    state[name] = state[name].long()


@pytest.mark.parametrize("change", [drop, rename, reshape, spoil, retype])
@pytest.mark.parametrize(("name", "image_size"), [(GLOBAL, 128), (WINDOWED, 256)])
def test_damaged_weights_are_refused_by_name(state, tmp_path, change, name, image_size):
    change(state, name)
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError) as caught:
        build_sam("sam_vit_t", image_size=image_size, weights=path)
    assert any(name in one or one in state for one in caught.value.ids)
    assert str(path) in str(caught.value)


def test_an_unknown_tensor_is_refused(state, sam):
    state["image_encoder.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_sam_weights(copy.deepcopy(sam), state, "sam_vit_t")
    assert caught.value.ids == ("image_encoder.extra",)


def test_weights_of_another_variant_are_refused(state):
    with torch.device("meta"):
        other = build_sam("sam_vit_b")
    with pytest.raises(WeightsError):
        load_sam_weights(other, state, "sam_vit_b")


def test_position_tables_of_another_image_size(state, sam, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    small = build_sam("sam_vit_t", image_size=128, weights=path)
    changed = {name for name, tensor in small.state_dict().items() if tensor.shape != state[name].shape}
    assert changed == set(position_tables(VARIANTS["sam_vit_t"]))
    assert small.image_encoder.pos_embed.shape == (1, 8, 8, 160)
    for name in state.keys() - changed:
        assert torch.equal(small.state_dict()[name], state[name])
    # segment_anything interpolates relative tables on the fly; stretched when loaded, they give the same numbers.
    lazy = copy.deepcopy(sam.image_encoder)
    lazy.pos_embed = torch.nn.Parameter(small.image_encoder.pos_embed.detach().clone())
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(small.image_encoder(image), lazy(image), rtol=1e-5, atol=1e-5)


def test_position_tables_keep_a_linear_ramp(state, sam):
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 16, 1).expand(1, 16, 16, 160).contiguous()
    state["image_encoder.pos_embed"] = ramp
    with torch.device("meta"):
        small = build_sam("sam_vit_t", image_size=128)
    load_sam_weights(small, state, "sam_vit_t")
    expected = ramp[0, 0, :, 0].view(8, 2).mean(dim=1)
    torch.testing.assert_close(small.image_encoder.pos_embed[0, 5, :, 7], expected)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", ["code", "nested", "text", "empty"])
def test_foreign_files_are_refused_and_not_run(tmp_path, content, capsys):
    path = tmp_path / "weights.pth"
    if content == "code":
        torch.save({"a": Evil()}, path)
    elif content == "nested":
        torch.save({"model": {"a": torch.zeros(1)}}, path)
    elif content == "text":
        path.write_text("not weights", encoding="utf-8")
    else:
        path.write_bytes(b"")
    with pytest.raises(WeightsError, match=str(path.name)):
        read_weights(path)
    assert capsys.readouterr().out == ""


def test_broken_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(path)
    with pytest.raises(WeightsError, match="does not exist"):
        read_weights(tmp_path / "absent.safetensors")
