"""Rows to Arrow without pandas: the same table as pyarrow's own converter makes."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from lesion_core.arrow import table_of

COLUMNS = {"name": "string", "count": "int64", "share": "float64", "flag": "bool_"}
ROWS = [
    {"name": "ä", "count": 2**53 + 1, "share": 0.1, "flag": True},
    {"name": None, "count": None, "share": None, "flag": None},
    {"name": "", "count": -1, "share": float("inf"), "flag": False},
]


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS, ROWS * 7])
def test_same_as_pyarrow(rows):
    table = table_of(rows, COLUMNS)
    table.validate(full=True)
    schema = pa.schema([(name, getattr(pa, dtype)()) for name, dtype in COLUMNS.items()])
    assert table.equals(pa.Table.from_pylist(rows, schema=schema))


def test_pandas_stays_out():
    code = (
        "import sys\nfrom lesion_core.arrow import table_of\n"
        "table_of([{'a': 'x', 'b': 1.5}], {'a': 'string', 'b': 'float64'}).to_pylist()\nprint('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
