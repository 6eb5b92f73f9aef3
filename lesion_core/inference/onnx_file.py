"""A network as one ONNX file, written only if it gives torch's numbers, and in 8 bits only if it scores alike."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from lesion_core.errors import RunError
from lesion_core.files import sha256_file, write_bytes, write_text
from lesion_core.inference.exported import KEY
from lesion_core.paths import Layout

TOLERANCE = 1e-4  # of a probability, against torch
INT8_TOLERANCE = 0.002  # of each measure on validation images
CHECKED, CALIBRATED = 16, 64  # images, at most
OPSET = 20


@dataclass(frozen=True)
class Export:
    """What is written and what it is checked by.

    Attributes:
        run_id: of the run that it is made from.
        graph: its inputs and outputs are those of the file.
        inputs: an example of each, by name, in the graph's order; batches of one.
        outputs: names.
        about: kept in the file as JSON, for whoever opens it.
        difference: of a file the largest difference of a probability from torch's, on real images.
        calibration: inputs of training images, for the ranges of 8 bits; called only then.
        measures: of a file its means on validation images, by name; called only for 8 bits.
        describes: lines of the card's table: what goes in and comes out.
    """

    run_id: str
    graph: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    about: Mapping[str, Any]
    difference: Callable[[Path], float]
    calibration: Callable[[], list[dict[str, np.ndarray]]]
    measures: Callable[[Path], dict[str, float]]
    describes: Sequence[str]


def write_export(export: Export, run_dir: Path, out: Path, *, int8: bool) -> dict[str, float]:
    """Write ``out`` and, beside it, its card.

    Args:
        run_dir: the run's folder in its results.
        int8: weights and activations in 8 bits (static quantisation).

    Returns:
        ``difference``; with ``int8`` also each measure before and, as ``<measure>_int8``, after.

    Raises:
        RunError: the graph's numbers are not torch's, or 8 bits move a measure too far. Nothing is written then.
    """
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "plain.onnx"
        _write(export, best)
        found = {"difference": export.difference(best)}
        if found["difference"] > TOLERANCE:
            raise RunError(
                f"The exported graph differs from torch by {found['difference']:.2g} (allowed: {TOLERANCE})",
                ids=[export.run_id],
                remedy="report it with the versions of torch and onnx",
            )
        if int8:
            plain, best = best, Path(folder) / "int8.onnx"
            _quantise(plain, best, export.calibration())
            before, after = export.measures(plain), export.measures(best)
            found |= before | {f"{name}_int8": value for name, value in after.items()}
            moved = [name for name in before if abs(before[name] - after[name]) > INT8_TOLERANCE]
            if moved:
                told = "; ".join(
                    f"the mean {name} is {after[name]:.4f} instead of {before[name]:.4f}" for name in moved
                )
                raise RunError(
                    f"In 8 bits, on validation images, {told} (allowed: {INT8_TOLERANCE})",
                    ids=[export.run_id],
                    remedy="export it without --int8",
                )
        write_bytes(out, best.read_bytes())
    write_text(out.with_name(out.name + ".md"), _card(export, run_dir, out, found))
    return found


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly taken."""
    return rows[:: -(-len(rows) // most) or 1]


def _card(export: Export, run_dir: Path, out: Path, found: dict[str, float]) -> str:
    own = Layout.of_run(run_dir).run_card(export.run_id)
    model = own.read_text("utf-8") if own.is_file() else f"# Model card: {export.run_id}\n"
    lines = [
        *export.describes,
        *(f"| {name} | {value:.6g} |" for name, value in found.items()),
        f"| SHA-256 of {out.name} | {sha256_file(out)} |",
    ]
    note = "`difference`: largest from torch's probabilities; the other numbers: on validation images."
    return "\n".join([model, "## Export", "", "| | |", "|---|---|", *lines, "", note, ""])


def _write(export: Export, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own internals
        torch.onnx.export(
            export.graph.eval(), tuple(export.inputs.values()), str(path), input_names=list(export.inputs),
            output_names=list(export.outputs), opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    model: Any = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(export.about)})
    onnx.save(model, path)


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: list[dict[str, np.ndarray]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def _quantise(plain: Path, out: Path, inputs: list[dict[str, np.ndarray]]) -> None:
    prepared = plain.with_name("prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out), _Reader(inputs), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )  # fmt: skip
