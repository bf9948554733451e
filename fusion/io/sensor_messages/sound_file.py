"""The sound in the bytes of a file that a message contains: compressed sound, and the header of WAV."""

from __future__ import annotations

import io

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import Sound


def read_sound(data: bytes, name: str) -> Sound:
    """Decode a compressed file. `name`: of its coding, for the error. Raises `EncodingError`."""
    import soundfile  # here: a robot with PCM does not need it

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise EncodingError(
            f"the sound cannot be decoded as {name} ({error}): check audio.coding_format, or set audio_capture's "
            "format to 'wave'"
        ) from error
    return Sound(samples, float(rate))


def without_wave_header(data: memoryview) -> memoryview:
    """The samples in data that begin with the header of a WAV file; other data unchanged."""
    if data.nbytes < 44 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        return data
    at = bytes(data[:4096]).find(b"data")
    return data[at + 8 :] if at >= 0 else data
