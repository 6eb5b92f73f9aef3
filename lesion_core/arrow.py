"""Python rows to an Arrow table without pyarrow's converter, which imports pandas (two seconds of start-up)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow


def table_of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pyarrow.Table:
    """Rows as a table; None is null.

    Args:
        rows: dicts that hold every column.
        columns: name -> ``string``, ``int64``, ``float64`` or ``bool_``, in the table's order.
    """
    import pyarrow

    schema = pyarrow.schema([(name, getattr(pyarrow, dtype)()) for name, dtype in columns.items()])
    arrays = [_array([row[name] for row in rows], dtype) for name, dtype in columns.items()]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _array(values: list[Any], dtype: str) -> pyarrow.Array:
    import pyarrow

    present = np.array([value is not None for value in values], dtype=bool)
    valid = None if present.all() else pyarrow.py_buffer(_bits(present))
    if dtype == "string":
        texts = [b"" if value is None else value.encode("utf-8") for value in values]
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        buffers = [valid, pyarrow.py_buffer(offsets.tobytes()), pyarrow.py_buffer(b"".join(texts))]
    elif dtype == "bool_":
        buffers = [valid, pyarrow.py_buffer(_bits(np.array([bool(value) for value in values], dtype=bool)))]
    else:
        numbers = np.array([0 if value is None else value for value in values], dtype=dtype)
        buffers = [valid, pyarrow.py_buffer(numbers.tobytes())]
    return pyarrow.Array.from_buffers(getattr(pyarrow, dtype)(), len(values), buffers)


def _bits(flags: np.ndarray) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes()
