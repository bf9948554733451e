"""The conversion of the object detector: reading TensorFlow Lite models, layers by name."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sensebind.fusion.models.starter import object_detector
from sensebind.fusion.models.starter.weight_files import OBJECT_WEIGHTS, find_weight_file
from sensebind.training.conversion import object_detector as conversion
from sensebind.training.conversion import tflite
from sensebind.training.conversion.object_detector import ConversionError

CONSTANTS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([0.5, -1, 2, 65504], np.float16),
    "integer": np.array([1, 2], np.int32),
}
TYPE_NUMBERS = {"float32": 0, "float16": 1, "int32": 2}

Field = int | bytes | list | None


def add_table(data: bytearray, fields: list[Field]) -> int:
    """Append a FlatBuffers table to `data` and return its offset.

    A field is a number, bytes (a vector of bytes), a list of numbers (a vector), a list of tables, or absent.
    """
    layout = len(data)
    table = layout + 4 + 2 * len(fields)
    offsets = [0 if field is None else 4 + 4 * number for number, field in enumerate(fields)]
    data += struct.pack(f"<HH{len(fields)}H", 4 + 2 * len(fields), 4 + 4 * len(fields), *offsets)
    data += struct.pack("<i", table - layout) + bytes(4 * len(fields))
    for number, field in enumerate(fields):
        at = table + 4 + 4 * number
        if field is None:
            continue
        if isinstance(field, int):
            struct.pack_into("<I", data, at, field)
            continue
        struct.pack_into("<I", data, at, len(data) - at)
        if isinstance(field, bytes):
            data += struct.pack("<I", len(field)) + field
            continue
        start = len(data) + 4
        data += struct.pack("<I", len(field)) + bytes(4 * len(field))
        for index, item in enumerate(field):
            if isinstance(item, int):
                struct.pack_into("<I", data, start + 4 * index, item)
            else:
                at_item = start + 4 * index
                struct.pack_into("<I", data, at_item, add_table(data, item) - at_item)
    return table


def small_model() -> bytes:
    """A TensorFlow Lite model with `CONSTANTS`, and a tensor without values."""
    tensors: list[list[Field]] = [[[1, 2], 0, 0, b"input"]]
    buffers: list[list[Field]] = [[None]]
    for name, values in CONSTANTS.items():
        tensors.append([list(values.shape), TYPE_NUMBERS[str(values.dtype)], len(buffers), name.encode()])
        buffers.append([values.tobytes()])
    data = bytearray(b"\0\0\0\0TFL3")
    root = add_table(data, [3, None, [[tensors]], None, buffers])
    struct.pack_into("<I", data, 0, root)
    return bytes(data)


def test_constants_in_float32_and_float16_are_read_and_others_left_out() -> None:
    found = tflite.float_constants(small_model())
    assert [constant.name for constant in found] == ["float", "half"]
    for name, values in found:
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, CONSTANTS[name].astype(np.float32))


def test_data_that_are_not_a_complete_model_are_refused() -> None:
    model = small_model()
    for data in (b"", b"PK\3\4 no model", model[:-8], model[: len(model) // 2], model[:10]):
        with pytest.raises(ValueError, match="TensorFlow Lite"):
            tflite.float_constants(data)


def test_every_layer_of_the_network_has_its_own_name_in_the_model() -> None:
    names = conversion.layer_names()
    state = object_detector.load(find_weight_file(OBJECT_WEIGHTS)).state_dict()
    assert {f"{name}.{kind}" for name in names for kind in ("weight", "bias")} == set(state)
    assert len(set(names.values())) == len(names)


def test_files_of_other_packages_are_refused(tmp_path: Path) -> None:
    other = tmp_path / conversion.ASSETS_NAME
    other.write_bytes(b"other assets")
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as tar:
        tar.add(other, f"package/{conversion.ASSETS_NAME}")
    empty = tmp_path / "empty.tgz"
    with tarfile.open(empty, "w:gz") as tar:
        tar.add(other, "package/README.md")
    for path, reason in ((other, "SHA-256"), (package, "SHA-256"), (empty, "cannot be read"), (tmp_path / "no", "no")):
        with pytest.raises(ConversionError, match=reason):
            conversion.convert(path, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("out*"))


def test_a_model_with_other_layers_is_refused() -> None:
    with pytest.raises(ConversionError, match="has no layer"):
        conversion.convert_weights(small_model())
