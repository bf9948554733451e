"""Reads files of one measurement each (an image, a depth image, a sound, a motion recording) as windows."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

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
from sensebind.fusion.core.windows import Window, audio_coverage, reading_coverage
from sensebind.fusion.io.sensor_messages.channels import ChannelSelector

LOG = logging.getLogger(__name__)

MAX_AMPLITUDE = 100.0  # times full scale: floats above are integers that were not scaled
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
    try:
        if what := placeholder_text(path):
            raise FileError(f"'{path}' {what}")
        samples = FILE_READERS[modality](path)
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if modality == AUDIO:
        samples = [_with_channel(sample, path, channel) for sample in samples]
    return [
        _make_window(modality, samples, start, to_ns(trained_window.length), calibration or Calibration())
        for start in _clip_starts(samples, to_ns(trained_window.length), whole)
    ]


def _read_photograph(path: Path) -> list[Sample]:
    try:
        pixels = decode_photograph(np.frombuffer(path.read_bytes(), np.uint8))
    except EncodingError as error:
        raise FileError(f"'{path}': {error}") from error
    height, width = pixels.shape[:2]
    return [Sample(VISION, SECOND, Frame(pixels.reshape(-1), "rgb8", height, width, 3 * width), str(path))]


def _image_reader(modality: str) -> Callable[[Path], list[Sample]]:
    def read(path: Path) -> list[Sample]:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        return [Sample(modality, SECOND, Frame(data, path.suffix.lstrip("."), compressed=True), str(path))]

    return read


def _read_audio(path: Path) -> list[Sample]:
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise FileError(f"'{path}' cannot be read as a sound: {error}") from error
    if not len(data):
        raise FileError(f"'{path}' contains no sound")
    if not np.abs(data).max() <= MAX_AMPLITUDE:  # this form rejects NaN too
        raise FileError(f"'{path}' has values that are not finite, or over {MAX_AMPLITUDE:g} times full scale (−1..1)")
    return [Sample(AUDIO, SECOND, Sound(data, float(rate)), str(path))]


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
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    try:
        table = np.array([[float(cell) for cell in row] for row in rows], np.float64)
    except ValueError as error:
        raise FileError(f"'{path}' must contain numbers in rows of equal length: {printable(error, 200)}") from error
    if table.ndim != 2 or table.shape[1] != 7 or len(table) < 2:
        raise FileError(f"'{path}' must contain at least 2 rows of time, ax, ay, az, gx, gy, gz")
    if not np.isfinite(table).all() or (np.diff(table[:, 0]) <= 0).any():
        raise FileError(f"'{path}': every number must be finite, and the time in seconds must increase")
    stamps = SECOND + np.round((table[:, 0] - table[0, 0]) * SECOND).astype(np.int64)
    return [Sample(IMU, int(t), Reading(row), str(path)) for t, row in zip(stamps, table[:, 1:], strict=True)]


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
