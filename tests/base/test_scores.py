"""The score store: strict, sorted, the same bytes for the same rows."""

from __future__ import annotations

import pytest
from report_store import classification_rows, segmentation_row, segmentation_rows

from lesion_core.errors import ScoreError
from lesion_core.scores import COLUMNS, ClassificationScore, gather, read_scores, schema_of, write_scores
from lesion_core.settings import CLASSES


def test_round_trip_is_sorted_and_typed(tmp_path):
    rows = segmentation_rows()
    path = tmp_path / "s.parquet"
    write_scores(path, "segmentation", reversed(rows))
    read = read_scores(path, "segmentation")
    keys = [(row["run_id"], row["dataset"], row["image_id"], row["prompt"], row["resolution"]) for row in read]
    assert keys == sorted(keys)
    assert len(read) == len(rows)
    assert list(read[0]) == list(COLUMNS["segmentation"])
    assert read[0]["lesion_id"] is None


def test_same_rows_give_the_same_bytes_in_any_order(tmp_path):
    rows = classification_rows()
    write_scores(tmp_path / "a.parquet", "classification", rows)
    write_scores(tmp_path / "b.parquet", "classification", reversed(rows))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_gather_joins_runs(tmp_path):
    rows = segmentation_rows()
    for run in {row["run_id"] for row in rows}:
        write_scores(tmp_path / f"{run}.parquet", "segmentation", [row for row in rows if row["run_id"] == run])
    gather(list(tmp_path.glob("*.parquet")), "segmentation", tmp_path / "out" / "all.parquet")
    write_scores(tmp_path / "whole.parquet", "segmentation", rows)
    assert (tmp_path / "out" / "all.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_the_same_image_twice_is_refused_and_named(tmp_path):
    rows = [segmentation_row("sam_adapter-s0", "a", 0.5), segmentation_row("sam_adapter-s0", "a", 0.6)]
    with pytest.raises(ScoreError, match="Two scores") as error:
        write_scores(tmp_path / "s.parquet", "segmentation", rows)
    assert "'a'" in error.value.ids[0]
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dice": float("nan")}, "missing or not finite"),
        ({"label": "nv"}, "columns label"),
        ({"seed": None}, "missing or not finite"),
    ],
)
def test_bad_rows_are_refused(tmp_path, change, message):
    row = segmentation_row("sam_adapter-s0", "a", 0.5) | change
    with pytest.raises(ScoreError, match=message) as error:
        write_scores(tmp_path / "s.parquet", "segmentation", [row])
    assert error.value.ids == ("sam_adapter-s0/a",)


def test_a_row_without_a_column_is_refused(tmp_path):
    row = segmentation_row("sam_adapter-s0", "a", 0.5)
    del row["iou"]
    with pytest.raises(ScoreError, match="iou"):
        write_scores(tmp_path / "s.parquet", "segmentation", [row])


def test_reading_what_is_no_score_table(tmp_path):
    with pytest.raises(ScoreError, match="cannot be read"):
        read_scores(tmp_path / "absent.parquet", "segmentation")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ScoreError, match="cannot be read"):
        read_scores(tmp_path / "text.parquet", "segmentation")
    write_scores(tmp_path / "c.parquet", "classification", classification_rows())
    with pytest.raises(ScoreError, match="Not a segmentation score table"):
        read_scores(tmp_path / "c.parquet", "segmentation")


def test_an_empty_store_keeps_its_columns(tmp_path):
    write_scores(tmp_path / "c.parquet", "classification", [])
    assert read_scores(tmp_path / "c.parquet", "classification") == []
    names = schema_of(ClassificationScore).names
    assert [name for name in names if name.startswith("p_")] == [f"p_{name}" for name in CLASSES]
