"""history.csv, one row per epoch, and the same as a TensorBoard event file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from lesion_core.files import atomic_path, write_csv

HISTORY = "history.csv"
HISTORY_START = ("epoch", "step", "lr")
EVENTS = "events.out.tfevents.history"


def write_history(run_dir: Path, rows: Sequence[Mapping[str, float]], *, tensorboard: bool = False) -> None:
    """Write history.csv (only its header without rows), and the event file if asked for; both atomically."""
    write_csv(run_dir / HISTORY, list(rows[0]) if rows else HISTORY_START, rows)
    if tensorboard:
        write_events(run_dir / EVENTS, rows)


def write_events(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the history as scalars over the optimizer step, in TensorBoard's format.

    Same rows, same bytes: the wall time of an event is its epoch, and the file's name has no host and no time. Not
    through torch.utils.tensorboard, which stamps both.
    """
    with atomic_path(path) as partial, open(partial, "wb") as handle:
        writer = RecordWriter(handle)
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for row in rows:
            values = [
                Summary.Value(tag=name, simple_value=float(row[name]))
                for name in sorted(row.keys() - {"epoch", "step"})
            ]
            event = Event(wall_time=float(row["epoch"]), step=int(row["step"]), summary=Summary(value=values))
            writer.write(event.SerializeToString())
        writer.flush()
