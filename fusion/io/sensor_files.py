"""Reads files of one measurement each (an image, a depth image, a sound, a motion recording) as windows."""

from __future__ import annotations

import csv
import io
import logging
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from sensebind.fusion.core.documents import DocumentError, read_bytes
from sensebind.fusion.core.encodings import EncodingError, decode_photograph
from sensebind.fusion.core.errors import SensebindError, placeholder_text, printable
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Reading,
    Sample,
    Sound,
    to_ns,
)
from sensebind.fusion.core.space import TrainedWindow
from sensebind.fusion.core.windows import MAX_READING, Window, audio_coverage, reading_coverage
from sensebind.fusion.io.sensor_messages.channels import ChannelSelector

LOG = logging.getLogger(__name__)

MAX_AMPLITUDE = 100.0  # times full scale: floats above are integers that were not scaled
# The most of one file that is read: a file may claim, or be, as large as it likes (a FLAC of silence has 1 byte for
# 1000 samples; a device file has no end).
MAX_IMAGE_BYTES = 256 * 2**20
MAX_SOUND_VALUES = 2**27  # samples times channels: 512 MB as float32, 46 minutes of one channel at 48 kHz
MAX_SOUND_SECONDS = 24 * 3600.0
MAX_TABLE_BYTES, MAX_READINGS = 64 * 2**20, 10**6
MAX_TABLE_SECONDS = 1e9  # from the first reading to the last, 30 years
BLOCK = 2**20  # values of a sound that are read at a time
CLIPS_PER_FILE = 3  # windows, evenly spaced, for a file that is longer than one window, as ImageBind does for sounds


class FileError(SensebindError):
    """A file that cannot be read as a measurement of its modality."""


def read_windows(
    modality: str,
    path: str | Path,
    trained_window: TrainedWindow,
    calibration: Calibration | None = None,
    *,
    whole: bool = False,
    channel: str = "",
) -> list[Window]:
    """The windows of a file, each `trained_window.length` s long: one, or `CLIPS_PER_FILE` if the file is longer. The
    caller embeds them; the normalized mean of their vectors is the file's vector. `whole`: all windows of the file, one
    after another, instead of `CLIPS_PER_FILE`. `channel`: of a sound, as the parameter `audio.channel`; a
    warning names a file whose channels cancel each other.

    `vision`: the image files of `encodings.FILE_FORMATS`, turned upright as their EXIF says; of an animation the first
    image. `depth`: 16-bit PNG or TIFF in millimetres, TIFF of floats in metres. `thermal`: 16-bit PNG or TIFF in
    hundredths of a kelvin, TIFF of floats in kelvin, or another image without a unit. `calibration` can set other
    units. `audio`: WAV, FLAC, OGG, MP3. `imu`: CSV with one row for each reading: time in seconds, acceleration x y z
    in m/s², angular velocity x y z in rad/s; a header row is ignored.

    Raises `FileError`. A depth or thermal image that cannot be decoded raises `EncodingError` later, when the window is
    decoded.
    """
    if modality not in FILE_READERS:
        raise FileError(f"files of modality '{modality}' cannot be read; known: {', '.join(FILE_READERS)}")
    path = Path(path)
    if "\0" in str(path):
        raise FileError(f"'{path}' has a NUL character: no file has such a name")
    try:
        if path.is_file() and (what := placeholder_text(path)):  # what a pipe has is read once
            raise FileError(f"'{path}' {what}")
        samples = FILE_READERS[modality](path)
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except DocumentError as error:
        raise FileError(str(error)) from error
    if modality == AUDIO:
        samples = [_with_channel(sample, path, channel) for sample in samples]
    return [
        _make_window(modality, samples, start, to_ns(trained_window.length), calibration or Calibration())
        for start in _clip_starts(samples, to_ns(trained_window.length), whole)
    ]


def _read_photograph(path: Path) -> list[Sample]:
    try:
        pixels = decode_photograph(np.frombuffer(read_bytes(path, MAX_IMAGE_BYTES), np.uint8))
    except EncodingError as error:
        raise FileError(f"'{path}': {error}") from error
    height, width = pixels.shape[:2]
    return [Sample(VISION, SECOND, Frame(pixels.reshape(-1), "rgb8", height, width, 3 * width), str(path))]


def _image_reader(modality: str) -> Callable[[Path], list[Sample]]:
    def read(path: Path) -> list[Sample]:
        data = np.frombuffer(read_bytes(path, MAX_IMAGE_BYTES), np.uint8)
        return [Sample(modality, SECOND, Frame(data, path.suffix.lstrip("."), compressed=True), str(path))]

    return read


def _read_audio(path: Path) -> list[Sample]:
    return [Sample(AUDIO, SECOND, read_sound_file(path), str(path))]


def read_sound_file(path: Path, max_seconds: float = MAX_SOUND_SECONDS) -> Sound:
    """The sound of a WAV, FLAC, OGG or MP3 file. Raises `FileError`, also for one that is longer than `max_seconds`."""
    if not path.is_file():
        raise FileError(f"'{path}' is not a regular file: save the sound as a file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, data = float(file.samplerate), _sound_values(file, path, max_seconds)
    except (soundfile.LibsndfileError, RuntimeError) as error:  # RuntimeError: it claims a length, and cannot be sought
        raise FileError(f"'{path}' cannot be read as a sound: {error}") from error
    if not len(data):
        raise FileError(f"'{path}' contains no sound")
    return Sound(data, rate)


def _sound_values(file: soundfile.SoundFile, path: Path, max_seconds: float) -> npt.NDArray[np.float32]:
    """The sound (T, C) that a file has, which may be less than its header claims. Raises `FileError`."""
    limit = min(MAX_SOUND_VALUES // file.channels, int(max_seconds * file.samplerate))
    data = np.empty((min(file.frames, limit + 1), file.channels), np.float32)  # memory is used where it is written
    count = 0
    while count < len(data):
        block = file.read(max(1, BLOCK // file.channels), out=data[count : count + max(1, BLOCK // file.channels)])
        if not len(block):
            break
        if not np.abs(block).max() <= MAX_AMPLITUDE:  # this form rejects NaN too
            raise FileError(
                f"'{path}' has values that are not finite, or over {MAX_AMPLITUDE:g} times full scale (−1..1)"
            )
        count += len(block)
    if count > limit:
        raise FileError(
            f"'{path}' is longer than {limit / file.samplerate / 60:.0f} minutes, the limit for {file.channels} "
            f"channels at {file.samplerate} Hz: cut it"
        )
    return data[:count]


def _with_channel(sample: Sample, path: Path, channel: str) -> Sample:
    """A sound with the channel that a sensor would use. Raises `FileError` for a number that it does not have."""
    assert isinstance(sample.data, Sound)
    selector = ChannelSelector(channel, "--channel")
    try:
        sound = selector.apply(sample.data)
    except EncodingError as error:
        raise FileError(f"'{path}': {error}") from error
    if selector.warning:
        LOG.warning("'%s': %s", path, selector.warning)
    return replace(sample, data=sound)


def _read_imu(path: Path) -> list[Sample]:
    table = _table_of(path)
    if len(table) < 2:
        raise FileError(f"'{path}' must contain at least 2 rows of time, ax, ay, az, gx, gy, gz")
    if not (np.abs(table[:, 1:]) <= MAX_READING).all():  # this form rejects NaN too
        raise FileError(f"'{path}' has readings that are not finite, or over {MAX_READING:g}")
    if not np.isfinite(table).all() or (np.diff(table[:, 0]) <= 0).any():
        raise FileError(f"'{path}': every number must be finite, and the time in seconds must increase")
    if not table[-1, 0] - table[0, 0] <= MAX_TABLE_SECONDS:
        raise FileError(f"'{path}': the last time is more than {MAX_TABLE_SECONDS:g} s after the first: give seconds")
    stamps = SECOND + np.round((table[:, 0] - table[0, 0]) * SECOND).astype(np.int64)
    return [Sample(IMU, int(t), Reading(row), str(path)) for t, row in zip(stamps, table[:, 1:], strict=True)]


def _table_of(path: Path) -> npt.NDArray[np.float64]:
    """The numbers (N, 7) of a table. Raises `FileError`."""
    numbers = array("d")
    with io.TextIOWrapper(io.BytesIO(read_bytes(path, MAX_TABLE_BYTES)), "utf-8", "replace", newline="") as file:
        rows = (row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#"))
        try:
            for number, row in enumerate(rows, 1):
                if number == 1 and not _is_number(row[0]):
                    continue  # a heading
                if len(row) != 7:
                    raise FileError(
                        f"'{path}' must contain rows of time, ax, ay, az, gx, gy, gz; row {number} has {len(row)} "
                        "columns"
                    )
                numbers.extend(map(float, row))
                if len(numbers) > 7 * MAX_READINGS:
                    raise FileError(f"'{path}' has more than {MAX_READINGS} readings: cut it")
        except (ValueError, csv.Error) as error:
            raise FileError(
                f"'{path}' must contain numbers in rows of equal length: {printable(error, 200)}"
            ) from error
    return np.frombuffer(numbers, np.float64).reshape(-1, 7)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FILE_READERS: dict[str, Callable[[Path], list[Sample]]] = {
    VISION: _read_photograph,
    DEPTH: _image_reader(DEPTH),
    THERMAL: _image_reader(THERMAL),
    AUDIO: _read_audio,
    IMU: _read_imu,
}


def _clip_starts(samples: list[Sample], length: int, whole: bool) -> list[int]:
    begin, end = samples[0].stamp, samples[-1].end
    if end - begin <= length:
        return [begin]
    if whole:
        return list(range(begin, end - length + 1, length))
    return [begin + i * (end - begin - length) // (CLIPS_PER_FILE - 1) for i in range(CLIPS_PER_FILE)]


def _make_window(modality: str, samples: list[Sample], start: int, length: int, calibration: Calibration) -> Window:
    tick = start + length
    if modality == AUDIO:
        coverage = audio_coverage(samples, start, tick)
    elif modality == IMU:
        samples = [s for s in samples if start <= s.stamp < tick]
        coverage = reading_coverage(samples, start, tick)
    else:
        coverage = 1.0
    return Window(modality, start, tick, coverage, tuple(samples), calibration)
