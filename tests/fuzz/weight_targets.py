"""Targets: files of numbers: calibrations, spokes and weights."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import torch
from hypothesis import strategies as st

from fuzz.file_targets import in_file
from fuzz.hostile_structures import changed_tree
from fuzz.hostile_values import TEXTS, mutated
from fuzz.target import Target, Work
from helpers.paths import ROOT
from sensebind.fusion.events import prompt_calibration
from sensebind.fusion.models.imagebind import weights
from sensebind.fusion.models.spokes import spoke

SMALL = 20_000  # bytes of a tensor that is kept


@cache
def calibrations() -> list[bytes]:
    """The shipped calibration without its large tensors."""
    return without_large_tensors(prompt_calibration.calibration_file("starter"))


def without_large_tensors(path: Path) -> list[bytes]:
    """A file of safetensors with its small tensors only, and without any."""
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    small = {name: value for name, value in tensors.items() if value.nbytes < SMALL}
    return [safetensors.numpy.save(small, metadata), safetensors.numpy.save({}, metadata)]


def safetensors_file(header: Any, body: bytes) -> bytes:
    """A file of safetensors with any header: JSON after its length, then the numbers."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


SHAPES = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**40)), max_size=3)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "?"])
NUMBERS_16 = (0x0000, 0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x0001)  # 0, ±infinity, NaN, the largest and the smallest


@st.composite
def tensor_files(draw: st.DrawFn, valid: Callable[[], list[bytes]]) -> bytes:
    """Files with bytes, numbers, descriptions, types, shapes and places that are changed."""
    files = valid()
    kind = draw(st.sampled_from(("bytes", "values", "metadata", "metadata", "metadata", "header", "header")))
    file = draw(st.sampled_from(files))
    length = int.from_bytes(file[:8], "little")
    header, body = json.loads(file[8 : 8 + length]), file[8 + length :]
    if kind == "bytes":
        return draw(mutated(files))
    if kind == "values" and body:
        changed = bytearray(body)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(body) - 1)) & ~1
            changed[at : at + 2] = draw(st.sampled_from(NUMBERS_16)).to_bytes(2, "little")
        body = bytes(changed)
    elif kind == "metadata" and header.get("__metadata__"):
        metadata = header["__metadata__"]
        key = draw(st.sampled_from(sorted(metadata)))
        try:
            described = json.loads(metadata[key])
        except ValueError:
            metadata[key] = draw(TEXTS)
        else:
            metadata[key] = json.dumps(draw(changed_tree([described])), default=str)
            if draw(st.integers(0, 9)) == 0:
                metadata[key] = draw(
                    st.sampled_from(["[" * 100_000, "9" * 5000, '{"a": 1, "a": NaN}', "", metadata[key][:-1]])
                )
    else:
        _change_entries(draw, header)
    return safetensors_file(header, body)


def _change_entries(draw: st.DrawFn, header: dict[str, Any]) -> None:
    """Other names, types, shapes and places of tensors."""
    names = [name for name in header if name != "__metadata__"]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)) if names else []:
        entry = header.get(name, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
        kind = draw(st.sampled_from(("shape", "split", "dtype", "offsets", "rename", "remove", "any")))
        if kind == "shape":
            entry["shape"] = draw(SHAPES)
        elif kind == "split" and entry["shape"]:
            entry["shape"] = [1, *entry["shape"]]  # as many numbers in another shape
        elif kind == "dtype":
            entry["dtype"] = draw(DTYPES)
        elif kind == "offsets":
            entry["data_offsets"] = [
                offset + draw(st.sampled_from([-2, 0, 2, 2**40])) for offset in entry["data_offsets"]
            ]
        elif kind == "rename" and name in header:
            header[draw(TEXTS)] = header.pop(name)
        elif kind == "remove":
            header.pop(name, None)
        else:
            header[name] = draw(changed_tree([entry]))


def read_calibration(path: Path) -> Work:
    """Read a calibration."""
    found = prompt_calibration.load(path)
    return {"classes": len(found.classifiers.class_names) if found.classifiers else 0}


@cache
def spokes() -> list[bytes]:
    """The smallest spoke that the package ships, without its large tensors."""
    folder = ROOT / "fusion" / "models" / "starter" / "spokes"
    return without_large_tensors(min(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size))


def read_spoke(path: Path) -> Work:
    """Read the description and the weights of a spoke."""
    spec = spoke.read_spec(path)
    state = spoke.read_state(path)
    return {"tensors": len(state), "dimension": spec.dimension if hasattr(spec, "dimension") else 0}


def saved(state: Any) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@cache
def weight_files() -> list[bytes]:
    """Small weight files: of PyTorch, of safetensors, and converted ones with checksums."""
    state = {f"layer.{name}": torch.arange(float(size)).reshape(-1, 2) for name, size in (("a", 8), ("b", 64))}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.pth", Path(folder) / "b.safetensors"
        source.write_bytes(saved(state))
        weights.convert(source, {target: list(state)}, torch.float16)
        return [target.read_bytes(), source.read_bytes()]


class Exploit:
    """An object that would run a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("a pickle in a weight file ran code",)


@cache
def strange_states() -> list[bytes]:
    """Files of PyTorch with what no weight file has: repeated numbers, other objects, code, compressed parts."""
    one = torch.zeros(1)
    states = [
        {"a": one.expand(2**34)}, {"a": one.expand(2**60)}, {"a": torch.zeros(4)[::2]},
        {"a": torch.zeros(2, device="meta")}, {"a": torch.sparse_coo_tensor([[0]], [1.0], (2**40,))},
        {"a": one.to(torch.complex64)}, {1: one}, {"a": 1}, {}, [one], one, {"a": {"b": one}},
        {"a": torch.nn.Parameter(one)}, {"a": torch.full((4,), torch.nan)}, {"": one, "\n": one}, {"a" * 10_000: one},
        {f"layer.{k}": one for k in range(3000)}, {"a": torch.zeros(0, 2**40)}, {"a": Exploit()},
    ]  # fmt: skip
    files = [saved(state) for state in states]
    files += [pickle.dumps({"a": Exploit()}), pickle.dumps(states[12])]
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files[2])) as parts, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for part in parts.infolist():
            out.writestr(part.filename, parts.read(part) + bytes(2**21))
    return [*files, packed.getvalue()]


@st.composite
def weight_inputs(draw: st.DrawFn) -> bytes:
    """Changed weight files, and files with what no weight file has."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.one_of(st.sampled_from(strange_states()), mutated(strange_states())))
    return draw(mutated(weight_files())) if kind == 1 else draw(tensor_files(lambda: weight_files()[:1]))


def read_weights(path: Path) -> Work:
    """Read all tensors of a weight file in another precision, as `sensebind weights convert` does."""
    weights.published_digest(path)
    weights.check_entries(weights.read_entries(path), {"layer.a": (4, 2), "layer.b": (32, 2)})
    return {"numbers": sum(tensor.numel() for tensor in weights.read_tensors(path, dtype=torch.float16).values())}


def in_tensor_file(read: Callable[[Path], Work]) -> Callable[[bytes], Work]:
    """As `in_file`, for a reader of safetensors."""

    def run(path: Path) -> Work:
        try:
            with safetensors.safe_open(path, "np"):
                pass
        except safetensors.SafetensorError:
            return read_unopened(path)
        return read(path)

    def read_unopened(path: Path) -> Work:
        return read(path)

    return in_file(".safetensors", run)


TARGETS = [
    Target(
        "calibration_files",
        tensor_files(calibrations),
        in_tensor_file(read_calibration),
        first_checks=frozenset({"read_unopened"}),
    ),
    Target(
        "spoke_files",
        tensor_files(spokes),
        in_tensor_file(read_spoke),
        first_checks=frozenset({"read_unopened"}),
    ),
    Target(
        "weight_files",
        weight_inputs(),
        in_file(".pth", read_weights),
        {"numbers": 10_000},
        first_checks=frozenset({"_map_tensors", "_read_shapes", "_is_safetensors", "_metadata"}),
    ),
]
