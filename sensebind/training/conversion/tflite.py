"""Reads the constants of a TensorFlow Lite model, without TensorFlow.

Reads only what it needs of the FlatBuffers schema (tensorflow/lite/schema/schema.fbs).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IDENTIFIER = b"TFL3"
DTYPES = {0: np.float32, 1: np.float16}  # number of a type in the schema → type
# Numbers of fields in the schema.
MODEL_GRAPHS, MODEL_BUFFERS = 2, 4
GRAPH_TENSORS = 0
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME = 0, 1, 2, 3
BUFFER_DATA = 0


class Constant(NamedTuple):
    """A constant of a model. Axes of the weights of a convolution: output channel, row, column, input channel."""

    name: str
    values: npt.NDArray[np.float32]


def float_constants(data: bytes) -> list[Constant]:
    """The constants of the first graph that are stored as float32 or float16, in the file's order.

    Raises `ValueError` for other data.
    """
    if data[4:8] != IDENTIFIER:
        raise ValueError("the data do not begin with the identifier of TensorFlow Lite")
    result = []
    try:
        model = _Table(data, _uint32(data, 0))
        buffers = model.tables(MODEL_BUFFERS)
        for tensor in model.tables(MODEL_GRAPHS)[0].tables(GRAPH_TENSORS):
            kind = tensor.field(TENSOR_TYPE)
            dtype = DTYPES.get(data[kind] if kind else 0)
            number = tensor.field(TENSOR_BUFFER)
            content = buffers[_uint32(data, number) if number else 0].content(BUFFER_DATA)
            if dtype is not None and content:
                shape = np.frombuffer(tensor.content(TENSOR_SHAPE, item_size=4), "<i4").tolist()
                values = np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)
                result.append(Constant(tensor.content(TENSOR_NAME).decode(), values.astype(np.float32)))
    except (struct.error, IndexError) as error:
        raise ValueError(f"the data are not a complete TensorFlow Lite model: {error}") from error
    return result


def _uint32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a FlatBuffers file, at the offset `at` of its data. An absent field has the offset 0."""

    data: bytes
    at: int

    def field(self, index: int) -> int:
        """Offset of a field in the data."""
        layout = self.at - int(struct.unpack_from("<i", self.data, self.at)[0])
        if 4 + 2 * index >= struct.unpack_from("<H", self.data, layout)[0]:
            return 0
        offset = int(struct.unpack_from("<H", self.data, layout + 4 + 2 * index)[0])
        return self.at + offset if offset else 0

    def tables(self, index: int) -> list[_Table]:
        """The tables of a field that is a vector of tables."""
        first, count = self._vector(index)
        entries = range(first, first + 4 * count, 4)
        return [_Table(self.data, entry + _uint32(self.data, entry)) for entry in entries]

    def content(self, index: int, item_size: int = 1) -> bytes:
        """The bytes of a field that is a text or a vector of numbers. Raises `IndexError` if the data end before."""
        first, count = self._vector(index)
        content = self.data[first : first + count * item_size]
        if len(content) < count * item_size:
            raise IndexError("a vector is longer than the file")
        return content

    def _vector(self, index: int) -> tuple[int, int]:
        """Offset of the first item, and the number of items."""
        field = self.field(index)
        if not field:
            return 0, 0
        start = field + _uint32(self.data, field)
        return start + 4, _uint32(self.data, start)
