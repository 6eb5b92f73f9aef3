"""What a rehearsal tells of each kind of run: seconds of a step, memory, disk, and the runs that it stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesion_core.files import read_csv, read_json, write_csv, write_text
from lesion_core.paths import Layout
from lesion_core.plan.rates import Rate
from lesion_core.settings.classification import DerivedMethod
from lesion_core.settings.kinds import kind_of, learns, rehearsed_as
from lesion_core.settings.run import Run

COLUMNS = (
    "kind", "step_kind", "run_id", "runs", "device", "parameters", "learnt", "samples", "in_memory", "step_seconds",
    "images_per_second", "predict_seconds", "forward_tflop", "memory_mb", "gpu_memory_mb", "watts", "disk_mb",
    "problem", "stands_for",
)  # fmt: skip
HEAVY = "lower training.batch_size, raise training.accumulation by as much, or set training.activation_checkpointing"
MIB = 1 << 20


def write_rehearsal(
    root: Path, runs: Mapping[str, Run], wanted: Mapping[str, Run], card_mb: int
) -> list[dict[str, Any]]:
    """Write ``rehearsal.csv``, one row for each kind, and ``rehearsal.md``, the same to read; also while it goes on.

    Args:
        root: results of the rehearsal.
        runs: its matrix.
        wanted: the matrix of the paper profile, whose runs the kinds stand for.
        card_mb: memory of the card that is planned for, in MiB; what needs more is named with what helps.

    Returns:
        The rows, sorted by the number of runs that they stand for.
    """
    layout, shown = Layout(root), defaultdict(list)
    for run in wanted.values():
        shown[rehearsed_as(run, wanted)].append(run.run_id)
    rows = [_row(layout, run, runs, shown[rehearsed_as(run, runs)], card_mb) for run in runs.values()]
    rows.sort(key=lambda row: (-row["runs"], row["kind"]))
    write_csv(layout.rehearsal("csv"), COLUMNS, rows)
    write_text(layout.rehearsal("md"), _page(rows))
    return rows


def _row(layout: Layout, run: Run, runs: Mapping[str, Run], shown: list[str], card_mb: int) -> dict[str, Any]:
    folder = layout.run(run.place, run.run_id)
    row = dict.fromkeys(COLUMNS, "") | {
        "kind": rehearsed_as(run, runs),
        "run_id": run.run_id,
        "runs": len(shown),
        "stands_for": " ".join(shown),
    }
    if not isinstance(run.spec, DerivedMethod):
        training = run.spec.training
        row |= {"step_kind": kind_of(run, runs), "in_memory": training.batch_size if learns(run) else ""}
        row["samples"] = training.batch_size * training.accumulation if learns(run) else ""
    if not (folder / "provenance.json").is_file():
        return row | {"problem": _told(folder)}
    record = read_json(folder / "provenance.json")
    extra, peak = record["extra"], record["peak_memory_mb"]
    seconds = extra.get("step_seconds")
    joules, spent = record["gpu_energy_joules"], record["seconds"]
    row |= {
        "device": record["hardware"]["gpu"] or record["device"],
        "parameters": extra.get("parameters", ""),
        "learnt": extra.get("trainable_parameters", ""),
        "step_seconds": "" if seconds is None else seconds,
        "images_per_second": "" if not seconds else round(row["samples"] / seconds, 3),
        "predict_seconds": extra.get("predict_seconds", ""),
        "forward_tflop": extra.get("step_forward_tflop", ""),
        "memory_mb": peak["host"],
        "gpu_memory_mb": peak["gpu"] or "",
        "watts": "" if joules is None else round(joules / spent),
        "disk_mb": round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB, 1),
    }
    need = peak["gpu"] or peak["host"]
    if learns(run) and need > card_mb:
        row["problem"] = f"needed {need:.0f} MiB, and the card has {card_mb}: {HEAVY}"
    return row


def _told(folder: Path) -> str:
    """Why a run has no result: what its log says last."""
    log = folder / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return f"not finished; its log ends: {lines[-1]}" if lines else "not run yet"


def _page(rows: list[dict[str, Any]]) -> str:
    done, stands = sum(not row["problem"].startswith("not ") for row in rows), sum(row["runs"] for row in rows)
    lines = [
        "# Rehearsal of the paper profile",
        "",
        f"REHEARSED, NO RESULT. {done} of {len(rows)} kinds are done; all of them stand for {stands} runs.",
        "",
        "| kind | runs | parameters | learnt | s/step | images/s | s/prediction | memory (MiB) | disk (MiB) | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        memory = row["gpu_memory_mb"] or row["memory_mb"]
        cells = [row["kind"], row["runs"], row["parameters"], row["learnt"], row["step_seconds"]]
        cells += [row["images_per_second"], row["predict_seconds"], memory, row["disk_mb"], row["problem"]]
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def rates_of_rehearsal(path: Path, card_tflops: float | None = None, least: float = 0.0) -> dict[str, Rate]:
    """Seconds per step by kind from ``rehearsal.csv``, the slowest of those that take the same steps.

    Args:
        path: the file.
        card_tflops: what a card computes, in 10^12 operations a second: a step then takes three forward passes at
            that rate (forward and backward of a network all of which learns), wherever it was rehearsed.
        least: seconds that a step on that card takes however little it computes: kernels are launched one by one.
    """
    rates: dict[str, Rate] = {}
    for row in read_csv(path):
        if not row["step_seconds"]:
            continue
        seconds, device = float(row["step_seconds"]), row["device"]
        if card_tflops is not None:
            seconds = max(least, 3.0 * float(row["forward_tflop"]) / card_tflops)
            device = f"a card of {card_tflops:g} TFLOP/s"
        if row["step_kind"] not in rates or rates[row["step_kind"]].seconds < seconds:
            rates[row["step_kind"]] = Rate(row["step_kind"], seconds, int(row["samples"]), device, row["run_id"])
    return rates
