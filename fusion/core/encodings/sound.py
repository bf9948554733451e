"""Decodes sound: PCM bytes to arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import EncodingError

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


def _pcm_int24(data: UInt8Array) -> npt.NDArray[np.generic]:
    """Convert little-endian 24-bit samples to int32 at full scale."""
    wide = np.zeros((data.size // 3, 4), np.uint8)
    wide[:, 1:] = data.reshape(-1, 3)
    return np.asarray(wide.view("<i4").reshape(-1), np.int32)


def _pcm_int24_be(data: UInt8Array) -> npt.NDArray[np.generic]:
    """Convert big-endian 24-bit samples to int32 at full scale."""
    return _pcm_int24(data.reshape(-1, 3)[:, ::-1].reshape(-1))


def _pcm_int24_in_32(dtype: str) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    """A reader of 24-bit samples in the lower bytes of 32 bits, to int32 at full scale."""
    return lambda data: data.view(dtype).astype(np.int32) << 8


def _unsigned(read: Callable[[UInt8Array], npt.NDArray[np.generic]]) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    """A reader of unsigned samples, whose zero is the middle of the range, to signed ones. `read`: of signed samples
    of this size at full scale."""

    def convert(data: UInt8Array) -> npt.NDArray[np.generic]:
        values: Any = read(data)
        return np.asarray(values ^ np.iinfo(values.dtype).min)  # the highest bit is inverted

    return convert


def _pcm_reader(dtype: str, kind: type[np.generic]) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    return lambda data: data.view(dtype).astype(kind, copy=False)


PCM_INTEGERS = ("S16", "S24", "S32")  # signed formats that have an unsigned form
# Sample format → bytes of a sample, and the function that reads samples.
PCM_FORMATS: dict[str, tuple[int, Callable[[UInt8Array], npt.NDArray[np.generic]]]] = {
    "S8": (1, _pcm_reader("i1", np.int8)),
    "U8": (1, lambda data: (data.astype(np.int16) - 128).astype(np.int8)),
    "S16LE": (2, _pcm_reader("<i2", np.int16)),
    "S16BE": (2, _pcm_reader(">i2", np.int16)),
    "S24LE": (3, _pcm_int24),
    "S24BE": (3, _pcm_int24_be),
    "S24_32LE": (4, _pcm_int24_in_32("<i4")),
    "S24_32BE": (4, _pcm_int24_in_32(">i4")),
    "S32LE": (4, _pcm_reader("<i4", np.int32)),
    "S32BE": (4, _pcm_reader(">i4", np.int32)),
    "F32LE": (4, _pcm_reader("<f4", np.float32)),
    "F32BE": (4, _pcm_reader(">f4", np.float32)),
    "F64LE": (8, _pcm_reader("<f8", np.float32)),
    "F64BE": (8, _pcm_reader(">f8", np.float32)),
}
PCM_FORMATS |= {  # the unsigned forms
    f"U{name[1:]}": (size, _unsigned(read)) for name, (size, read) in PCM_FORMATS.items() if name[:3] in PCM_INTEGERS
}
PCM_FORMAT_ALIASES = {
    "S24_3LE": "S24LE",  # ALSA's names of three bytes
    "S24_3BE": "S24BE",
    "U24_3LE": "U24LE",
    "U24_3BE": "U24BE",
    "S24_LE": "S24_32LE",  # ALSA's names of three bytes in four
    "S24_BE": "S24_32BE",
    "U24_LE": "U24_32LE",
    "U24_BE": "U24_32BE",
    "U16": "U16LE",
    "U24": "U24LE",
    "U32": "U32LE",
    "F64": "F64LE",
    "FLOAT": "F32LE",
    "FLOAT64": "F64LE",
    "INT8": "S8",
    "UINT8": "U8",
    "INT32": "S32LE",
    "S16": "S16LE",
    "S24": "S24LE",
    "S32": "S32LE",
    "F32": "F32LE",
    "FLOAT32": "F32LE",
    "INT16": "S16LE",
}


def decode_pcm(data: bytes | memoryview, sample_format: str, channels: int) -> npt.NDArray[np.generic]:
    """Decode interleaved PCM to (samples, channels), signed integers at full scale or float32.

    `sample_format` is a name as in GStreamer and audio_common (`S16LE`, `S24_32LE`, `F32LE`, …) or ALSA (`S16_LE`,
    `S24_3LE`; `S24_LE` has four bytes); case is ignored. Raises `EncodingError` for an unknown format, or if the bytes
    are not a whole number of samples.
    """
    name = sample_format.upper()
    for known in (name, name.replace("_", "")):
        name = PCM_FORMAT_ALIASES.get(known, known)
        if name in PCM_FORMATS:
            break
    else:
        raise EncodingError(f"sample format '{sample_format}' is not known; known: {', '.join(PCM_FORMATS)}")
    size, read = PCM_FORMATS[name]
    raw = np.frombuffer(data, np.uint8)
    if channels < 1 or raw.size % (size * channels):
        raise EncodingError(
            f"{raw.size} bytes are not a whole number of {name} samples of {channels} channels: check "
            "audio.sample_format and audio.channels"
        )
    return read(raw).reshape(-1, channels)


def pcm_to_float(data: npt.NDArray[np.generic]) -> Float32Array:
    """Convert PCM of any dtype to float32 of the same shape. Integers are divided by their full scale: −1..1."""
    if data.dtype.kind == "f":
        return data.astype(np.float32, copy=False)
    return data.astype(np.float32) / np.float32(2.0 ** (8 * data.dtype.itemsize - 1))
