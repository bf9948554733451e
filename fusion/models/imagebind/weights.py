"""Weight files: reads them without copies and without running code from them, and converts them.

Two formats are read: PyTorch's (`.pth`, by its `weights_only` reader) and safetensors. Tensors are views of the
memory-mapped file, so unused tensors are never read. Do not overwrite a file in place while a program uses it: write
another file and rename it, as `convert` does.

A converted file stores the digest of its source file, so both make the same space. It also stores a CRC-32 of each
entry, which is checked when the entry is read.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sensebind.fusion.core.atomic import staged
from sensebind.fusion.core.documents import DocumentError, parse_json
from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.digest import sha256_of

SAFETENSORS_SUFFIX = ".safetensors"
CHUNK_BYTES = 64 * 2**20  # bytes of the source in memory at a time while the precision is changed
SOURCE_DIGEST_KEY, CHECKSUMS_KEY = "source_sha256", "crc32"  # metadata of converted files
MAX_NAME_LENGTH = 300  # characters of the name of an entry, which errors quote
MAX_LISTED_ENTRIES = 5  # entries that an error message lists for each kind of fault

_TORCH_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
    "I64": torch.int64,
}
_SAFETENSORS_DTYPES = {_TORCH_DTYPES[name]: name for name in ("F32", "BF16", "F16")}  # dtypes of weights


class WeightsError(SpaceError):
    """A weight file that is missing, damaged, or for another model."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The description of one tensor in a weight file; its values are not read."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    crc32: int | None = None

    @property
    def numel(self) -> int:
        """Number of values."""
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


def read_entries(path: str | Path) -> dict[str, TensorEntry]:
    """The entries of a weight file, or of all safetensors files in a folder. Raises `WeightsError`."""
    found: dict[str, TensorEntry] = {}
    for file in _files(path):
        checksums = _checksums(file)
        for name, (shape, dtype) in _read_shapes(file).items():
            if len(name) > MAX_NAME_LENGTH:
                raise WeightsError(f"'{file}' has an entry with a name of {len(name)} characters: it is no weight file")
            if name in found:
                raise WeightsError(f"'{name}' is in both '{found[name].file}' and '{file}': keep one of them")
            if checksums is not None and type(checksums.get(name)) is not int:
                raise WeightsError(f"'{file}' is damaged: the checksum of '{name}' is missing")
            found[name] = TensorEntry(shape, dtype, file, checksums[name] if checksums is not None else None)
    return found


def read_tensors(
    path: str | Path, wanted: Callable[[str], bool] = lambda _: True, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The entries of a weight file or folder for which `wanted(name)` is true, in `dtype` (None: unchanged).

    Entries that are not converted are views of the mapped file. Others are converted a few at a time, and the file's
    pages are released in between, so memory never holds much more than the result. Scalars (logit scales) stay
    float32. Raises `WeightsError` for files that cannot be read, and for values that are damaged or not finite.
    """
    chosen = {name: entry for name, entry in read_entries(path).items() if wanted(name)}
    result: dict[str, Tensor] = {}
    for names in _batches(chosen, dtype):
        source = _map_tensors(chosen[names[0]].file, names)
        for name in names:
            _verify(name, source[name], chosen[name])
            result[name] = source[name].to(_target_dtype(chosen[name], dtype))
    return {name: result[name] for name in chosen}


def check_entries(
    state: Mapping[str, Tensor | TensorEntry], shapes: Mapping[str, Sequence[int]], source_name: str = "these weights"
) -> None:
    """Raises `WeightsError` that lists missing and unknown entries of `state`, and those of another shape or type."""
    missing = [f"'{name}'" for name in shapes if name not in state]
    unknown = [f"'{name}'" for name in state if name not in shapes]
    shared = [name for name in shapes if name in state]
    misshaped = [
        f"'{name}' is {_format_shape(state[name].shape)} and should be {_format_shape(shapes[name])}"
        for name in shared
        if tuple(state[name].shape) != tuple(shapes[name])
    ]
    mistyped = [f"'{n}' is {state[n].dtype}" for n in shared if state[n].dtype not in _SAFETENSORS_DTYPES]
    faults = [
        f"{len(found)} {fault}: {', '.join(found[:MAX_LISTED_ENTRIES])}"
        + (", …" if len(found) > MAX_LISTED_ENTRIES else "")
        for fault, found in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshaped),
            ("not of a floating type", mistyped),
        )
        if found
    ]
    if faults:
        raise WeightsError(f"{source_name}: not the weights of this model; entries " + "; ".join(faults))


def published_digest(path: str | Path, progress: Callable[[int], None] = lambda size: None) -> str:
    """The SHA-256 of the published file, in hexadecimal: it identifies the weights in every precision and format.

    Converted files store it. For others it is computed, which reads the whole file; `progress` is called with the
    number of bytes of each block. Raises `WeightsError`.
    """
    found = set()
    for file in _files(path):
        found.add(_metadata(file).get(SOURCE_DIGEST_KEY) or sha256_of(file, progress))
    if len(found) > 1:
        raise WeightsError(
            f"the files in '{path}' were not made from one checkpoint: convert them again, into an empty folder"
        )
    return found.pop()


def convert(
    source: str | Path,
    targets: Mapping[Path, Collection[str]],
    dtype: torch.dtype,
    progress: Callable[[int], None] = lambda size: None,
) -> None:
    """Write safetensors files in `dtype`. `targets`: file → names of the entries of `source` that it gets.

    Holds a few entries in memory at a time. The files appear when all are complete. `progress` is called with the
    numbers of bytes that were read for the digest of `source` (see `published_digest`) and written. Raises
    `WeightsError`, and `OSError` if a file cannot be written.
    """
    entries, source_digest = read_entries(source), published_digest(source, progress)
    with ExitStack() as stack:
        stages = {
            folder: stack.enter_context(staged(folder, _bytes_to_write(entries, targets, folder, dtype)))
            for folder in {target.parent for target in targets}
        }
        _convert(entries, source_digest, targets, stages, dtype, progress)


def _bytes_to_write(
    entries: Mapping[str, TensorEntry], targets: Mapping[Path, Collection[str]], folder: Path, dtype: torch.dtype
) -> int:
    """Bytes of the tensors in the files of `folder`."""
    names = [name for target, own in targets.items() if target.parent == folder for name in own]
    return sum(entries[name].numel * _target_dtype(entries[name], dtype).itemsize for name in names)


def _convert(
    entries: Mapping[str, TensorEntry],
    source_digest: str,
    targets: Mapping[Path, Collection[str]],
    stages: Mapping[Path, Path],
    dtype: torch.dtype,
    progress: Callable[[int], None],
) -> None:
    """Write each file into the stage of its folder."""
    for target, names in targets.items():
        # The widest types first, so that the offset of each entry is a multiple of its item size.
        by_width = sorted(((n, entries[n]) for n in names), key=lambda item: -_target_dtype(item[1], dtype).itemsize)
        chosen = dict(by_width)
        if target.resolve() in {entry.file.resolve() for entry in chosen.values()}:
            raise WeightsError(f"'{target}' is the file to be converted: choose another name for the result")
        _write(stages[target.parent] / target.name, chosen, dtype, source_digest, progress)


def _write(
    path: Path,
    chosen: Mapping[str, TensorEntry],
    dtype: torch.dtype,
    source_digest: str,
    progress: Callable[[int], None],
) -> None:
    checksums = dict.fromkeys(chosen, 0)
    with path.open("wb") as file:
        file.write(_header(chosen, dtype, source_digest, checksums))
        for names in _batches(chosen, dtype, keep_unchanged_together=False):
            tensors = _map_tensors(chosen[names[0]].file, names)
            for name in names:
                _verify(name, tensors[name], chosen[name])
                tensor = tensors[name].to(_target_dtype(chosen[name], dtype))
                checksums[name] = _crc32(name, tensor)
                file.write(_bytes(tensor))
                progress(tensor.nbytes)
        file.seek(0)
        file.write(_header(chosen, dtype, source_digest, checksums))


def _files(path: str | Path) -> list[Path]:
    path = Path(path)
    try:
        if path.is_file():
            return [path]
        is_folder = path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise WeightsError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if not is_folder:
        raise WeightsError(f"there is no weight file or folder '{path}'")
    found = sorted(path.glob("*" + SAFETENSORS_SUFFIX))
    if not found:
        raise WeightsError(f"the folder '{path}' holds no {SAFETENSORS_SUFFIX} file")
    return found


def _is_safetensors(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise WeightsError(f"'{file}' cannot be read: {error.strerror or error}") from error
    return start[8:9] == b"{"


def _read_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    if not _is_safetensors(file):
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in _map_tensors(file).items()}
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # not a dict
            return {n: (tuple(s.get_shape()), _TORCH_DTYPES.get(s.get_dtype(), torch.uint8)) for n, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{file}' is damaged or not a safetensors file: {printable(error, 500)}") from error


def _map_tensors(file: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The memory-mapped tensors of one file: those called `names` (None: all)."""
    try:
        if _is_safetensors(file):
            with safe_open(file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in (opened.keys() if names is None else names)}
        _require_uncompressed(file)
        state: Any = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # the readers raise many types for damaged files
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"'{file}' is damaged or not a weight file of PyTorch (since 1.6) or safetensors: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items())
    ):
        raise WeightsError(f"'{file}' is not a plain state dict (a mapping of names to tensors)")
    return {k: v.detach() for k, v in state.items()} if names is None else {k: state[k].detach() for k in names}


def _require_uncompressed(file: Path) -> None:
    """Raises `WeightsError` for a compressed archive, which may be of any size in memory. PyTorch compresses none."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise WeightsError(f"'{file}' is a compressed archive, not a weight file: unpack it")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor whose numbers are all in the file. An expanded tensor repeats its numbers: it
    would need any memory when it is converted."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested)
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for PyTorch's files."""
    if not _is_safetensors(file):
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{file}' is damaged or not a safetensors file: {printable(error, 500)}") from error


def _checksums(file: Path) -> dict[str, Any] | None:
    """The checksum of each entry of a converted file; None for other files."""
    metadata = _metadata(file)
    if SOURCE_DIGEST_KEY not in metadata:
        return None
    try:
        checksums = parse_json(metadata.get(CHECKSUMS_KEY, ""))
    except DocumentError:
        checksums = None
    if not isinstance(checksums, dict):
        raise WeightsError(f"'{file}' is damaged: its checksums are missing")
    return checksums


def _batches(
    chosen: Mapping[str, TensorEntry], dtype: torch.dtype | None, keep_unchanged_together: bool = True
) -> Iterator[list[str]]:
    """Lists of entries' names; the entries of a list are in one file and are opened together. A list holds at most
    `CHUNK_BYTES` bytes, or one entry.

    `keep_unchanged_together`: all entries of a file that are not converted are one list. Of the others, the largest are
    first, while little memory is in use.
    """
    for _, group in groupby(chosen, key=lambda name: chosen[name].file):
        names = list(group)
        if keep_unchanged_together:
            unchanged = [name for name in names if chosen[name].dtype == _target_dtype(chosen[name], dtype)]
            yield from [unchanged] if unchanged else []
            names = sorted(set(names).difference(unchanged), key=lambda name: (-chosen[name].nbytes, name))
        batch: list[str] = []
        for name in names:
            if batch and sum(chosen[n].nbytes for n in batch) + chosen[name].nbytes > CHUNK_BYTES:
                yield batch
                batch = []
            batch.append(name)
        if batch:
            yield batch


def _target_dtype(entry: TensorEntry, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype after conversion to `dtype`. Only floating-point tensors are converted, scalars always to float32."""
    if dtype is None or not entry.dtype.is_floating_point:
        return entry.dtype
    return dtype if entry.shape else torch.float32


def _verify(name: str, tensor: Tensor, entry: TensorEntry) -> None:
    """Raises `WeightsError` for a wrong checksum, values that are not finite, and types that PyTorch only stores, such
    as 4 bits. Reads the tensor, so its first use is fast."""
    if entry.crc32 is not None and _crc32(name, tensor) != entry.crc32:
        raise WeightsError(f"'{entry.file}' is damaged: the values of '{name}' do not match their checksum")
    try:
        is_usable = not tensor.is_floating_point() or name.endswith(".mask") or _is_finite(tensor)
    except NotImplementedError as error:
        raise WeightsError(f"'{entry.file}': '{name}' is {tensor.dtype}, which is not a weight") from error
    if not is_usable:
        raise WeightsError(f"'{entry.file}': '{name}' holds values that are not finite or too large")


def _is_finite(tensor: Tensor) -> bool:
    # A sum needs no memory, and it is finite only if all values are.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32)))


def _crc32(name: str, tensor: Tensor) -> int:
    """CRC-32 of the values, the name, the dtype and the shape."""
    return zlib.crc32(_bytes(tensor), zlib.crc32(f"{name} {tensor.dtype} {_format_shape(tensor.shape)}".encode()))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def _header(
    chosen: Mapping[str, TensorEntry], dtype: torch.dtype, source_digest: str, checksums: Mapping[str, int]
) -> bytes:
    """The header of a safetensors file: 8 bytes of length, then JSON, padded to 8 bytes. Its length does not depend on
    the values of `checksums`."""
    crc32 = "{" + ",".join(f"{json.dumps(name)}:{checksums[name]:>10}" for name in chosen) + "}"
    head: dict[str, object] = {"__metadata__": {"format": "pt", SOURCE_DIGEST_KEY: source_digest, CHECKSUMS_KEY: crc32}}
    offset = 0
    for name, entry in chosen.items():
        target = _target_dtype(entry, dtype)
        end = offset + entry.numel * target.itemsize
        if target not in _SAFETENSORS_DTYPES:
            raise WeightsError(f"'{entry.file}': '{name}' is {target}, which is not a weight")
        head[name] = {"dtype": _SAFETENSORS_DTYPES[target], "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _format_shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
