"""The sound in the bytes of a file that a message contains: compressed sound, and the header of WAV."""

from __future__ import annotations

import io
import struct

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import Sound
from sensebind.fusion.io.sensor_options import AudioFormat

MAX_COMPRESSED_BYTES = 4 * 2**20  # of one message: 60 s of MP3 with 320 kbit/s have 2.4 MB
MAX_MESSAGE_SECONDS = 60.0  # of sound in one message; of Opus, a byte may claim 60 ms


def require_duration(seconds: float) -> None:
    """Raises `EncodingError` for more sound than a message may have."""
    if seconds > MAX_MESSAGE_SECONDS:
        raise EncodingError(
            f"a message claims {seconds:.0f} s of sound, more than {MAX_MESSAGE_SECONDS:g} s: it is damaged, or its "
            "rate is wrong: check audio.sample_rate and audio.coding_format, and send shorter messages"
        )


def require_size(size: int, what: str) -> None:
    """Raises `EncodingError` for more compressed bytes than a message may have: they are searched one by one. `what`:
    they are."""
    if size > MAX_COMPRESSED_BYTES:
        raise EncodingError(
            f"{what} of {size:,} bytes is longer than {MAX_COMPRESSED_BYTES:,}: it is damaged, or no compressed sound: "
            "check audio.coding_format, and send shorter messages"
        )


def read_sound(data: bytes, name: str) -> Sound:
    """Decode a compressed file. Raises `EncodingError`."""
    import soundfile  # here: a robot with PCM does not need it

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", error)  # its text contains the address of the buffer
        raise EncodingError(
            f"the sound cannot be decoded as {name} ({reason}): check audio.coding_format, or set audio_capture's "
            "format to 'wave'"
        ) from error
    return Sound(samples, float(rate))


# Format tag and bits of a WAV header → sample format.
WAVE_FORMATS = {(1, 8): "U8", (1, 16): "S16LE", (1, 24): "S24LE", (1, 32): "S32LE", (3, 32): "F32LE", (3, 64): "F64LE"}


def split_wave_header(data: memoryview) -> tuple[AudioFormat | None, memoryview]:
    """The format in the header of a WAV file at the start of data, None without one, and the samples after it."""
    if data.nbytes < 44 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        return None, data
    head = bytes(data[:4096])
    at, form = head.find(b"data"), head.find(b"fmt ")
    if at < 0 or not 0 < form <= at - 24:
        return None, data
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, form + 8)
    if tag == 0xFFFE and form + 34 <= at:  # the tag is in the extension
        (tag,) = struct.unpack_from("<H", head, form + 32)
    return AudioFormat(WAVE_FORMATS.get((tag, bits), ""), rate, channels), data[at + 8 :]
