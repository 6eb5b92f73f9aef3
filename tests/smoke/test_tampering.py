"""Tamperings, and what tells each: the table in docs/reproducing.md is this one."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from forging import fit_manifest, linked, replacing

from lesion_core.audit import recompute
from lesion_core.audit.answer import FAILED, Answer
from lesion_core.audit.command import audit
from lesion_core.audit.manifest import read_manifest
from lesion_core.files import canonical_json, read_json, read_parquet
from lesion_core.settings import Plan, Scoring
from lesion_core.settings.load import REPOSITORY

pytestmark = pytest.mark.smoke
LOCK = REPOSITORY / "requirements.lock"
UNTOLD = "no"


def column(name: str, change: Callable[[list], list]) -> Callable[[Path], bytes]:
    """A Parquet file with one column's values changed."""

    def changed(path: Path) -> bytes:
        table = read_parquet(path)
        place, out = table.schema.get_field_index(name), io.BytesIO()
        field = table.schema.field(place)
        values = pyarrow.array(change(table.column(name).to_pylist()), field.type)
        pyarrow.parquet.write_table(table.set_column(place, field, values), out)
        return out.getvalue()

    return changed


def text(pattern: str, change: Callable[[re.Match], str]) -> Callable[[Path], bytes]:
    """A text file with the first match of a pattern changed."""

    def changed(path: Path) -> bytes:
        before = path.read_text("utf-8")
        after = re.sub(pattern, change, before, count=1)
        assert after != before, f"{path}: {pattern}"
        return after.encode()

    return changed


def pixel(path: Path) -> bytes:
    """An image with one pixel inverted."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    image[image.shape[0] // 2, image.shape[1] // 2] = 255 - image[image.shape[0] // 2, image.shape[1] // 2]
    return cv2.imencode(path.suffix, image)[1].tobytes()


def inverted_masks(path: Path) -> bytes:
    """An archive of masks with all of them inverted."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            mask = cv2.imdecode(np.frombuffer(old.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            new.writestr(name, cv2.imencode(".png", 255 - mask)[1].tobytes())
    return out.getvalue()


def other_bits(bit: int, most: int | None = None) -> Callable[[Path], bytes]:
    """Weights with a bit of each float32 flipped, 0 the lowest and 31 the sign; of ``most`` of a tensor, the first."""

    def changed(path: Path) -> bytes:
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        for tensor in json.loads(content[8:start]).values():
            if tensor.get("dtype") == "F32":
                first, end = (start + place for place in tensor["data_offsets"])
                values = np.frombuffer(content[first:end], np.uint32).copy()
                values[:most] ^= np.uint32(1 << bit)
                content[first:end] = values.tobytes()
        return bytes(content)

    return changed


def forgetful(path: Path) -> bytes:
    """A run's record without the first file that it opened."""
    content = read_json(path)
    return canonical_json(content | {"opened": content["opened"][1:]}).encode()


def next_digit(match: re.Match) -> str:
    return match[1] + str((int(match[2]) + 1) % 10)


@dataclass(frozen=True)
class Tampering:
    """A change to the first file of a pattern, or a new file; and the questions that tell it.

    Attributes:
        rewritten: the question that tells it where the manifest fits; ``no``: none.
        plainly: the one that tells it else.
    """

    what: str
    pattern: str
    change: Callable[[Path], bytes]
    rewritten: str
    plainly: str = "files"

    def path(self, root: Path) -> Path:
        return next(iter(sorted(root.glob(self.pattern))), root / self.pattern)


ADAPTER, UNET = "runs/segmentation/sam_adapter-*", "runs/segmentation/unet-*"
TAMPERINGS = (
    Tampering(
        "a label in the catalog",
        "catalog/images.parquet",
        column("label", lambda labels: ["nv" if label == "mel" else label for label in labels]),
        "catalog",
    ),
    Tampering("a pixel of a true mask", "data/isic2018_task1/*/*_segmentation.png", pixel, "catalog"),
    Tampering(
        "an image moved to another split",
        "protocols/shared/leak_free/splits/ham10000.csv",
        text(r",(train|test)\n", lambda match: {"train": ",test\n", "test": ",train\n"}[match[1]]),
        "split_tables",
    ),
    Tampering(
        "a score in a run's file",
        f"{ADAPTER}/scores.parquet",
        column("dice", lambda values: [values[0] / 2 + 0.25, *values[1:]]),
        "score_store",
    ),
    Tampering("a cell of a table", "tables/sam_vit_table_05.csv", text(r"(\d\.)(\d)", next_digit), "tables"),
    Tampering("a number on the page", "report.html", text(r"(<td[^>]*>\d+\.)(\d)", next_digit), "page"),
    Tampering("a figure replaced by another", "figures/dice_distribution.png", pixel, "page"),
    Tampering("a line of a checklist", "checklists/claim.md", text(r"\n(.*\S)\n", lambda match: "\nYes.\n"), "page"),
    Tampering("a contact sheet", "protocols/*/*/pixels/*/*/contact_sheet.png", pixel, "page"),
    Tampering("a figure added", "figures/figure_99.png", lambda path: b"x", "page"),
    Tampering("masks that scoring stored", f"{ADAPTER}/test_masks.zip", inverted_masks, "scores"),
    Tampering("weights that give other scores", f"{UNET}/weights.safetensors", other_bits(31), "scores"),
    Tampering("weights: a bit that moves no score", f"{UNET}/weights.safetensors", other_bits(0, 1), "page"),
    Tampering("what a training says that it opened", f"{ADAPTER}/provenance.json", forgetful, UNTOLD),
    Tampering("a file where the pipeline puts none", "notes.txt", lambda path: b"x", "files"),
    Tampering("a line of a log", f"{ADAPTER}/log.txt", text(r"\n", lambda match: "\nx\n"), UNTOLD, UNTOLD),
)


@pytest.fixture(scope="module")
def root(smoke, tmp_path_factory):
    return linked(smoke, tmp_path_factory.mktemp("forged"))


@pytest.fixture
def replace(root):
    yield from replacing(root)


def apply(root: Path, replace: Callable[..., Path], those: list[Tampering], *, fitted: bool) -> list[str]:
    """Do them all; the names of the files that changed. ``fitted``: the manifest is made to fit."""
    names = []
    for tampering in those:
        path = tampering.path(root)
        replace(path, tampering.change(path))
        names.append(path.relative_to(root).as_posix())
        if fitted:
            fit_manifest(root, replace, names[-1])
    return names


def ask(root: Path, question: str, names: list[str]) -> Answer:
    """One question; of scores, of the runs alone that own these files, all seeds of their methods."""
    if question != "scores":
        return audit(root, LOCK, count=1, only=[question])[0]
    settings = read_manifest(root).settings
    plan, scoring = Plan.model_validate(settings["plan"]), Scoring.model_validate(settings["scoring"])
    touched = {name.split("/")[2] for name in names}
    runs = {method: own for method, own in plan.runs.items() if touched & {*own}}
    count = 4 * sum(map(len, runs.values()))
    alone = plan.model_copy(update={"runs": runs})
    return recompute.scores(root, alone, scoring, count, seed=0, tolerance=0.0, device="cpu")


def untold(answer: Answer, names: list[str]) -> list[str]:
    """Files of which no problem is told; of a run's file, a line that names the run is enough."""
    owners = [name.split("/")[2] if name.startswith("runs/") else name for name in names]
    return [name for name in owners if not any(name in line for line in answer.problems)]


def test_what_is_told_plainly(root, replace):
    names = apply(root, replace, [item for item in TAMPERINGS if item.plainly != UNTOLD], fitted=False)
    answer = ask(root, "files", names)
    assert untold(answer, names) == []
    assert len(answer.problems) == len({*names})


@pytest.mark.parametrize("question", sorted({item.rewritten for item in TAMPERINGS} - {UNTOLD}))
def test_what_is_told_where_the_manifest_was_rewritten(root, replace, question):
    names = apply(root, replace, [item for item in TAMPERINGS if item.rewritten == question], fitted=True)
    if question != "files":
        assert ask(root, "files", names).problems == [], "the manifest fits"
    assert untold(ask(root, question, names), names) == []


def test_what_nothing_tells_but_a_signature(root, replace):
    names = apply(root, replace, [item for item in TAMPERINGS if item.rewritten == UNTOLD], fitted=True)
    answers = audit(root, LOCK, count=3)
    assert [answer.text() for answer in answers if answer.verdict == FAILED] == []
    assert ask(root, "scores", names).problems == []


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda item: item.what)
def test_what_the_signature_tells(root, replace, tmp_path, tampering):
    manifest, key = root / "manifest.json", tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    replace(manifest)
    sign = ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "lesion-manifest", manifest]
    subprocess.run(sign, check=True, capture_output=True)
    signature = manifest.with_name("manifest.json.sig").rename(tmp_path / "sig")
    (tmp_path / "signers").write_text(f"ME {key.with_suffix('.pub').read_text()}")
    vouched = tampering.plainly != UNTOLD
    apply(root, replace, [tampering], fitted=vouched)
    verify = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "signers", "-I", "ME", "-n", "lesion-manifest"]
    done = subprocess.run([*verify, "-s", signature], input=manifest.read_bytes(), capture_output=True, check=False)
    assert (done.returncode != 0) == vouched


def test_the_documents_have_this_table():
    lines = (REPOSITORY / "docs" / "reproducing.md").read_text("utf-8").splitlines()
    start = lines.index("| tampering | told plainly | manifest rewritten | signed |") + 2
    told = {UNTOLD: UNTOLD}
    wanted = [
        f"| {item.what} | {told.get(item.plainly, f'`{item.plainly}`')} | "
        f"{told.get(item.rewritten, f'`{item.rewritten}`')} | {UNTOLD if item.plainly == UNTOLD else 'yes'} |"
        for item in TAMPERINGS
    ]
    assert lines[start : lines.index("", start)] == wanted
