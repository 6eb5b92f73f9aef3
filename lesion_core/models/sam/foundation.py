"""Foundation weights into the results folder: the packaged ones copied, the others fetched and converted."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from lesion_core.acquire.download import fetch_weights
from lesion_core.errors import WeightsError
from lesion_core.files import atomic_path, read_json, sha256_file, write_bytes, write_json
from lesion_core.models.sam.network import build_sam

DATA_FILES = ("weights/sam_vit_t.safetensors", "weights/sam_vit_t.safetensors.json")
PACKAGED = {"sam_vit_t": DATA_FILES}
PACKAGE = Path(__file__).resolve().parents[2]


def write_foundation(name: str, out: Path, *, mirror: str | None, retries: int, timeout: float) -> None:
    """Write ``out`` (safetensors) and, beside it, a JSON that says what it is and what it was trained on.

    Args:
        name: ``sam_vit_t`` (packaged) or a name of the registry: sam_vit_b, sam_vit_l, sam_vit_h, medsam.
        out: ``results/<profile>/weights/<name>.safetensors``.
        mirror: folder or address asked before the official one.
        retries, timeout: as for a download.

    Raises:
        WeightsError: the packaged file is not the one its JSON describes, or a checkpoint's tensors do not fit.
        DownloadError: the file cannot be fetched, or is not the official one.
    """
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
        write_json(out.with_name(out.name + ".json"), description)
        write_bytes(out, packaged.read_bytes())
        return
    checkpoint = fetch_weights(name, out.parent / "official", mirror=mirror, retries=retries, timeout=timeout)
    sam = build_sam(name, weights=checkpoint)
    with atomic_path(out) as partial:
        save_file({key: value.contiguous() for key, value in sorted(sam.state_dict().items())}, partial)
    write_json(
        out.with_name(out.name + ".json"),
        {"name": name, "sha256": sha256_file(out), "source": checkpoint.name, "source_sha256": sha256_file(checkpoint)},
    )
