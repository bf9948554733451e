"""Checks the raw data of a sensor for symptoms of a fault, window by window."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Activity
from sensebind.fusion.core.encodings import EncodingError, brightness_pixels, decode_reduced
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sound
from sensebind.fusion.core.symptoms import BLINDED, DARK, FROZEN, MISCALIBRATED, MUTED, SATURATED, SWAPPED, SYMPTOMS
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.activity import joined_pcm, window_activity
from sensebind.fusion.health.camera_changes import (
    MIN_HISTORY_WINDOWS,
    ImageFormatMonitor,
    ScaleChangeMonitor,
    colour_balance_change,
    depth_scale_change,
    valid_pixels,
)

Pixels = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

MAX_COMPARED_VALUES = 500_000  # largest number of values that are compared with the frame before
MAX_CHECKED_SIDE_PX = 160  # largest number of rows and columns of the subsampled image
BLACK_LEVEL, WHITE_LEVEL = 4, 251  # 8-bit levels at and beyond which a pixel has no information
MIN_SCENE_CONTRAST = 1.0  # 8-bit levels: smallest contrast of a dark scene; a covered lens has less
MAX_SHUTTER_NS = 1_200_000_000  # ns: longest time for which a thermal camera repeats its image behind its shutter
RECENT_NS = SECOND  # ns at the end of a sound or motion window that are checked; older data do not count
MAX_CLIPPED_FRACTION = 0.1  # largest fraction of a sound at full scale; a bang nearby has less
MIN_LOOP_PERIOD_S = 0.02  # s: shortest period of a loop; tones have shorter periods
MAX_COMPARED_STARTS = 8  # so many possible starts of a loop are compared one by one
SILENCE_DBFS = -75.0  # dB of full scale: a working microphone in a room has a higher level
MIN_LEVEL_DROP_DB = 25.0  # dB: smallest drop of the noise floor that is a symptom
MIN_COLOUR_SPREAD = 3.0  # levels: smallest mean difference between the channels of a colour image
PLAUSIBLE_KELVIN = (220.0, 400.0)  # K: medians of scenes in which robots work
POSSIBLE_KELVIN = (150.0, 600.0)  # K: values outside this range are not temperatures
MIN_SCENE_DEPTH = 0.3  # m: a scene has at least one point that is farther
PLAUSIBLE_GRAVITY = (6.0, 16.0)  # m/s²: length of the mean acceleration over `RECENT_NS`
MAX_FREE_FALL_ACCELERATION = 3.0  # m/s²: a shorter mean acceleration contains no gravity
ACCELEROMETER_LIMIT = 150.0  # m/s²: slightly below the limit of a range of 16 g
MAX_GRAVITY_ERROR = 4.5  # m/s²: largest `gravity_rotation_error` of a working IMU
ROTATION_STEP = 0.02  # s; at 10 rad/s an IMU turns by 0.2 rad in it
IMU_HISTORY_NS = round(4.05 * SECOND)  # ns of readings that `gravity_rotation_error` uses


class Inspection(NamedTuple):
    """What the raw data of a window show: `symptoms` in the order of `SYMPTOMS`, and `activity`."""

    symptoms: tuple[str, ...]
    activity: Activity | None


class SensorHealthMonitor:
    """Checks the windows of one sensor, in order of tick, and keeps the sensor's baseline.

    In addition to `check_window`, it compares the sensor with its own past:
    - `muted`: a microphone fell silent.
    - `swapped`: the images of a camera became those of another camera: another size or dtype, or no colour any more.
    - `miscalibrated`: the depth scale or the colour balance of a camera changed suddenly; only the quiet parts of a
      sound fell silent; or the gyroscope and the direction of gravity disagree for longer than a robot speeds up or
      brakes.

    A thermal camera closes its shutter every few minutes to correct its image, and repeats the last one meanwhile. So
    its images are `frozen` after `MAX_SHUTTER_NS`.
    """

    def __init__(self) -> None:
        self._repeats_since: int | None = None  # ns, stamp of the first image that a thermal camera repeats
        self._previous_window: Window | None = None
        self._usual_noise_floor: float | None = None  # dB of full scale
        self._noise_floor_windows = 0  # windows that the noise floor is based on
        self._colour_windows = 0  # windows with colour, up to `MIN_HISTORY_WINDOWS`
        self._image_format, self._scale_change = ImageFormatMonitor(), ScaleChangeMonitor()
        self._previous_image: Pixels | None = None  # of the window before, subsampled
        # The readings of an IMU in the last `IMU_HISTORY_NS`: stamps (N,) in ns and values (N, 6).
        self._imu_stamps, self._imu_values = np.empty(0, np.int64), np.empty((0, 6))

    def check(self, window: Window) -> tuple[str, ...]:
        """The symptoms of the sensor after this window, in the order of `SYMPTOMS`; empty: none."""
        return self.inspect(window).symptoms

    def inspect(self, window: Window) -> Inspection:
        """The symptoms of the sensor after this window, and the activity of its data: one pass over the data."""
        checked = _data_to_check(window)
        activity = window_activity(window, checked)
        found = _check_data(window, self._previous_window, checked)
        if window.modality == THERMAL and self._is_behind_shutter(window, FROZEN in found):
            found.discard(FROZEN)
        self._previous_window = window
        data = window.samples[-1].data
        if window.modality == AUDIO and isinstance(data, Sound) and checked is not None and MUTED not in found:
            found |= self._fell_silent(checked)
        if isinstance(data, Frame) and not data.compressed and checked is not None:
            found |= self._check_camera_changes(window.modality, checked, bool(found & {DARK, BLINDED}))
        if window.modality == IMU and isinstance(data, Reading) and self._gyroscope_disagrees(window) and not found:
            found.add(MISCALIBRATED)
        return Inspection(tuple(name for name in SYMPTOMS if name in found), activity)

    def _is_behind_shutter(self, window: Window, is_repeated: bool) -> bool:
        """Whether a thermal camera has not repeated its image for longer than its shutter is closed."""
        if not is_repeated or self._previous_window is None:
            self._repeats_since = None
            return False
        if self._repeats_since is None:
            self._repeats_since = self._previous_window.samples[-1].stamp
        return window.samples[-1].stamp - self._repeats_since <= MAX_SHUTTER_NS

    def _gyroscope_disagrees(self, window: Window) -> bool:
        last = int(self._imu_stamps[-1]) if self._imu_stamps.size else 0
        stamps, values = window.series.first_columns(window.samples, 6)
        new = int(np.searchsorted(stamps, last, side="right"))
        if new < len(stamps):
            self._imu_stamps = np.concatenate([self._imu_stamps, stamps[new:]])
            self._imu_values = np.concatenate([self._imu_values, values[new:]])
            first = int(np.searchsorted(self._imu_stamps, self._imu_stamps[-1] - IMU_HISTORY_NS))
            self._imu_stamps, self._imu_values = self._imu_stamps[first:], self._imu_values[first:]
        return bool(self._imu_stamps.size) and all(
            error(self._imu_stamps, self._imu_values) > MAX_GRAVITY_ERROR
            for error in (rotation_error_bound, gravity_rotation_error)
        )

    def _fell_silent(self, waveform: Float64Array) -> set[str]:
        peak, noise_floor = peak_and_noise_levels(waveform)
        if self._usual_noise_floor is None:
            self._usual_noise_floor = noise_floor
        if self._noise_floor_windows >= MIN_HISTORY_WINDOWS and noise_floor < min(
            SILENCE_DBFS, self._usual_noise_floor - MIN_LEVEL_DROP_DB
        ):
            return {MUTED if peak < SILENCE_DBFS else MISCALIBRATED}  # the baseline is not updated
        # The baseline falls fast and rises slowly, so that a long alarm does not become the noise floor.
        self._usual_noise_floor += (0.5 if noise_floor < self._usual_noise_floor else 0.02) * float(
            np.clip(noise_floor - self._usual_noise_floor, -12.0, 12.0)
        )
        self._noise_floor_windows += 1
        return set()

    def _check_camera_changes(self, modality: str, image: Pixels, blind: bool) -> set[str]:
        """Symptoms by comparison with the camera's past. `image`: subsampled. `blind`: it is dark or blinded."""
        found = {SWAPPED} if self._image_format.update(image) or self._lost_colours(image) else set()
        if blind or found:
            return found
        before, self._previous_image = self._previous_image, image
        log_ratio = None
        if before is not None and modality == VISION:
            log_ratio = colour_balance_change(before, image)
        elif before is not None and modality == DEPTH:
            log_ratio = depth_scale_change(before, image)
        return {MISCALIBRATED} if self._scale_change.update(log_ratio) else set()

    def _lost_colours(self, image: Pixels) -> bool:
        if image.ndim != 3 or image.shape[2] < 3 or image.dtype != np.uint8:
            return False
        red, green, blue = (image[..., i] for i in range(3))  # a reduction over an axis of length 3 is slow
        highest = np.maximum(np.maximum(red, green), blue)
        spreads = highest - np.minimum(np.minimum(red, green), blue)
        spread = int(spreads.sum(dtype=np.uint32)) / spreads.size
        if spread == 0.0 and image.max() > BLACK_LEVEL and image.min() < WHITE_LEVEL:
            return self._colour_windows >= MIN_HISTORY_WINDOWS
        if spread >= MIN_COLOUR_SPREAD:
            self._colour_windows = min(self._colour_windows + 1, MIN_HISTORY_WINDOWS)
        return False


def check_window(window: Window, before: Window | None) -> tuple[str, ...]:
    """The symptoms of one window, given the window before it, in the order of `SYMPTOMS`; empty: none.

    Images:
    - `dark`: 99 % of the pixels are black, and the image has no structure, as with a covered lens or a dead sensor. A
      dark scene has structure. Depth: no pixel has a reading.
    - `blinded`: 99 % of the pixels are at or near full scale.
    - `frozen`: of the pixels with information, at most one in a thousand differs from the frame of the window before,
      although the stamp is newer. A working sensor has noise, so its images differ even if the scene is still.
    - `swapped`: the values cannot come from this kind of sensor: impossible temperatures, depths of 8 bits, camera
      images that are as uniform as temperatures.
    - `miscalibrated`: temperatures that are not plausible in places where robots work.

    Sound and motion, in the newest second:
    - `muted`: all values of the sound are the same; all values of the motion are zero.
    - `saturated`: more than a tenth of the sound is at full scale; more than half of the motion is at the range limit.
    - `frozen`: the same piece of sound, or the same reading, repeats.
    - `swapped`: the gyroscope's values contain gravity, and the accelerometer's do not.
    - `miscalibrated`: the accelerations are not a plausible gravity.
    """
    found = _check_data(window, before, _data_to_check(window))
    return tuple(name for name in SYMPTOMS if name in found)


def _data_to_check(window: Window) -> npt.NDArray[Any] | None:
    """The data that several checks use: the newest image, subsampled, or the newest second of a sound.

    None for an image that cannot be decoded, and for readings.
    """
    newest = window.samples[-1].data
    if isinstance(newest, Frame):
        image = _decode_image(newest)
        return None if image is None else _subsample(image)
    return _newest_second(window) if isinstance(newest, Sound) else None


def _check_data(window: Window, before: Window | None, data: npt.NDArray[Any] | None) -> set[str]:
    newest = window.samples[-1].data
    if isinstance(newest, Frame):
        return _check_frames(window, before, newest, data)
    if isinstance(newest, Sound):
        assert data is not None
        return _check_audio(data, newest.sample_rate)
    return _check_readings(window)


# images


def _check_frames(window: Window, before: Window | None, newest: Frame, small: Pixels | None) -> set[str]:
    found = set[str]()
    last = before.samples[-1] if before else None
    previous = last.data if last is not None and last.stamp != window.samples[-1].stamp else None
    if small is None:
        return {FROZEN} if isinstance(previous, Frame) and _identical(previous, newest) else found
    found |= _check_exposure(window.modality, small, window.calibration)
    if not {DARK, BLINDED} & found and isinstance(previous, Frame):
        if newest.compressed:
            same = _identical(previous, newest)
        else:
            earlier = _decode_image(previous) if _same_format(previous, newest) else None
            same = earlier is not None and _is_repeated(earlier, brightness_pixels(newest))
        if same:
            found.add(FROZEN)
    return found


def _check_exposure(modality: str, image: Pixels, calibration: Calibration) -> set[str]:
    if modality == DEPTH and image.ndim == 2:
        return _check_depth(image, calibration)
    if image.dtype == np.uint8:
        if np.count_nonzero(image >= WHITE_LEVEL) >= 0.99 * image.size:
            return {BLINDED}
        black = np.count_nonzero(image <= BLACK_LEVEL) >= 0.99 * image.size
        return {DARK} if black and _grid_contrast(image) < MIN_SCENE_CONTRAST else set()
    if image.ndim != 2:
        return set()
    if modality != THERMAL:
        return {SWAPPED} if modality == VISION and _is_thermal(image) else set()
    radiometric = calibration.thermal_radiometric
    if image.dtype == np.uint16 and radiometric and _is_plausible_thermal(image, calibration):
        return set()
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if not values.size:
        return {DARK}
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    if image.dtype == np.uint16:
        if high <= BLACK_LEVEL:
            return {DARK}
        if low >= 65_500 or low == high == 16_383:  # 16,383: full scale of 14 bits, which are common
            return {BLINDED}
    if not radiometric:
        return set()
    middle = middle * calibration.thermal_scale(image.dtype.kind == "f") + calibration.thermal_offset
    if not POSSIBLE_KELVIN[0] <= middle <= POSSIBLE_KELVIN[1]:
        return {SWAPPED}
    return set() if PLAUSIBLE_KELVIN[0] <= middle <= PLAUSIBLE_KELVIN[1] else {MISCALIBRATED}


def _is_plausible_thermal(image: Pixels, calibration: Calibration) -> bool:
    """Whether 99 % of the counts (uint16) are plausible temperatures. Then the percentiles that `_check_exposure`
    compares are plausible too. Counting takes a fiftieth of the time of percentiles."""
    unit = calibration.thermal_scale(is_float=False)
    lowest, highest = ((kelvin - calibration.thermal_offset) / unit for kelvin in PLAUSIBLE_KELVIN)
    # Of counts outside these ranges, `_check_exposure` must see the percentiles.
    lowest, highest = max(lowest + 1, 16_384), min(highest - 1, 65_499)
    if highest <= lowest:
        return False
    first, last = int(np.ceil(lowest)), int(highest)
    inside = image - np.uint16(first) <= np.uint16(last - first)  # a count below wraps around to a high one
    return bool(np.count_nonzero(inside) >= 0.99 * image.size)


def _is_thermal(image: Pixels) -> bool:
    """Whether a camera's 16-bit values are temperatures: high counts that differ by a third at most."""
    if image.dtype != np.uint16:
        return False
    low, high = (float(v) for v in np.percentile(image, (0.5, 99.5)))
    return low > 2_000 and high < 1.35 * low and high < 65_500


def _check_depth(image: Pixels, calibration: Calibration) -> set[str]:
    if image.dtype.kind == "f":
        valid = np.isfinite(image) & (image > 0)
        return set() if valid.any() or np.isinf(image).any() else {DARK}
    full = np.iinfo(image.dtype).max
    highest = int(image.max())
    if highest == 0:
        return {DARK}
    unit = calibration.depth_scale(is_float=False)
    if highest < full:
        return {SWAPPED} if highest <= 255 and highest * unit < MIN_SCENE_DEPTH else set()
    if np.count_nonzero(image == full) >= 0.99 * image.size:
        return {BLINDED}
    valid = (image > 0) & (image < full)
    if not valid.any():
        return {DARK}
    farthest = int(image[valid].max())
    return {SWAPPED} if farthest <= 255 and farthest * unit < MIN_SCENE_DEPTH else set()


def _grid_contrast(image: Pixels) -> float:
    """The contrast of the means of a 10 × 10 grid, in levels: their 98th minus their 2nd percentile."""
    grey = image.astype(np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    means = cv2.resize(grey, (10, 10), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(means, (2, 98))
    return float(high - low)


def _decode_image(frame: Frame) -> Pixels | None:
    """The pixels, (H, W) or (H, W, C); of a compressed 8-bit image: small and grey. None if it cannot be decoded."""
    try:
        if not frame.compressed:
            return brightness_pixels(frame)
    except EncodingError:
        return None
    if "compresseddepth" in frame.encoding.lower() or "16" in frame.encoding.split(";")[0]:
        return None
    try:
        return np.asarray(decode_reduced(frame), np.uint8)
    except (EncodingError, ValueError):
        return None


def _subsample(image: Pixels) -> Pixels:
    """At most `MAX_CHECKED_SIDE_PX` rows and columns, (H, W) or (H, W, C).

    Each channel is contiguous in memory, because the checks use one channel at a time.
    """
    rows, columns = (-(-size // MAX_CHECKED_SIDE_PX) for size in image.shape[:2])
    small = image[::rows, ::columns]
    if image.ndim == 2:
        return np.ascontiguousarray(small)
    return np.ascontiguousarray(small.transpose(2, 0, 1)).transpose(1, 2, 0)


def _is_repeated(before: Pixels, now: Pixels) -> bool:
    """Whether at most one in a thousand of the values with information has changed."""
    step = -(-now.size // MAX_COMPARED_VALUES) | 1  # odd, so that it samples every channel and column
    a, b = before.reshape(-1)[::step], now.reshape(-1)[::step]
    for every in (256, 16):  # for most images, a few values suffice to find a change
        few, now_few = a[::every], b[::every]
        if np.count_nonzero((few != now_few) & _informative(now_few)) > 0.001 * len(b):
            return False
    live = _informative(b)
    count = np.count_nonzero(live)
    return bool(count >= 0.01 * b.size and np.count_nonzero((a != b) & live) <= 0.001 * count)


def _informative(values: Pixels) -> npt.NDArray[np.bool_]:
    """Mask of the values with information: neither black nor white, neither missing nor at full scale."""
    if values.dtype == np.uint8:
        return (values > BLACK_LEVEL) & (values < WHITE_LEVEL)
    return valid_pixels(values)


def _same_format(a: Frame, b: Frame) -> bool:
    return (a.encoding, a.height, a.width, a.compressed) == (b.encoding, b.height, b.width, b.compressed)


def _identical(a: Frame, b: Frame) -> bool:
    return _same_format(a, b) and a.data.size == b.data.size and np.array_equal(a.data, b.data)


# sound


def _newest_second(window: Window) -> Float64Array:
    """The first channel of the newest second of a sound, float64 (samples,) in −1..1."""
    pieces, left = [], RECENT_NS / SECOND
    for sample in reversed(window.samples):
        if left <= 0 or not isinstance(sample.data, Sound):
            break
        block = sample.data.data[:, 0]
        count = min(len(block), int(np.ceil(left * sample.data.sample_rate)))
        pieces.append(block[len(block) - count :])
        left -= count / sample.data.sample_rate
    return joined_pcm(pieces[::-1]).astype(np.float64)


def peak_and_noise_levels(waveform: Float64Array) -> tuple[float, float]:
    """(peak, noise floor) of a sound (samples,), in dB of full scale, at least −120.

    The sound is divided into twenty parts. The peak is the level of the loudest part. Each half of the sound has a
    quietest part; the noise floor is the louder of these two levels. So a microphone that fails within the sound does
    not lower the noise floor until both halves are affected.
    """
    size, longer = divmod(len(waveform), 20)  # as `np.array_split`: the first `longer` parts have one sample more
    at = longer * (size + 1)
    level = 10 * np.log10(
        np.concatenate([_segment_variances(waveform[:at], longer), _segment_variances(waveform[at:], 20 - longer)])
        + 1e-12
    )
    return float(level.max()), float(max(level[:10].min(), level[10:].min()))


def _segment_variances(waveform: Float64Array, count: int) -> Float64Array:
    """Variance (count,) of `count` parts of equal length."""
    if not waveform.size:
        return np.zeros(count)
    parts = waveform.reshape(count, -1)
    return np.asarray(np.square(parts - parts.mean(axis=1, keepdims=True)).mean(axis=1))


def _check_audio(waveform: Float64Array, rate: float) -> set[str]:
    lowest, highest = float(waveform.min()), float(waveform.max())
    if lowest == highest:
        return {MUTED}
    found = set[str]()
    peak = max(-lowest, highest)
    full = 0.999 * min(1.0, max(peak, 0.99))
    if peak >= full and np.count_nonzero(np.abs(waveform) >= full) > MAX_CLIPPED_FRACTION * waveform.size:
        found.add(SATURATED)
    if is_looping(waveform, round(MIN_LOOP_PERIOD_S * rate)):
        found.add(FROZEN)
    return found


def is_looping(waveform: Float64Array, shortest: int) -> bool:
    """Whether the end of `waveform` (N,) is an exact repetition, with a period of `shortest` to N / 2 samples."""
    length = min(64, len(waveform) // 4)
    if length < 8:
        return False
    end = waveform[-length:]
    starts = np.flatnonzero(waveform[: -length - 1] == end[0])
    for at in range(1, length):
        if starts.size <= MAX_COMPARED_STARTS:
            break
        starts = starts[waveform[starts + at] == end[at]]
    equal = (start for start in starts[::-1].tolist() if np.array_equal(waveform[start : start + length], end))
    last = next(equal, None)
    if last is None:
        return False
    period = len(waveform) - length - last
    if period < shortest or 2 * period > len(waveform):
        return False
    return bool(np.array_equal(waveform[-period:], waveform[-2 * period : -period]))


# motion and other readings


def _newest_readings(window: Window) -> Float64Array:
    """The readings of the newest second that have as many values as the newest one, (N, C)."""
    newest = window.samples[-1].data
    assert isinstance(newest, Reading)
    stamps, values = window.series.stamps, window.series.values
    first = int(np.searchsorted(stamps, stamps[-1] - RECENT_NS, side="right"))
    if values is not None:
        return values[first:]
    recent = [sample.data for sample in window.samples[first:]]
    return np.array([d.values for d in recent if isinstance(d, Reading) and d.values.size == newest.values.size])


def _check_readings(window: Window) -> set[str]:
    recent = _newest_readings(window)
    if len(recent) < 5:
        return set()
    if window.modality == IMU and not recent.any():
        return {MUTED}
    if window.modality == IMU and recent.shape[1] >= 6:
        at_limit = (np.abs(recent[:, :3]) >= ACCELEROMETER_LIMIT).any(axis=1)
        if np.count_nonzero(at_limit) > 0.5 * len(recent):
            return {SATURATED}
    if (recent == recent[0]).all():
        return {FROZEN}
    if window.modality == IMU and recent.shape[1] >= 6:
        acceleration, rotation = (
            float(np.linalg.norm(recent[:, part].mean(axis=0))) for part in (slice(3), slice(3, 6))
        )
        if acceleration < MAX_FREE_FALL_ACCELERATION and rotation > PLAUSIBLE_GRAVITY[0]:
            return {SWAPPED}
        # An IMU that turns over has a short mean acceleration, although each reading contains gravity.
        longest = max(acceleration, float(np.linalg.norm(recent[:, :3], axis=1).mean()))
        if longest < PLAUSIBLE_GRAVITY[0] or acceleration > PLAUSIBLE_GRAVITY[1]:
            return {MISCALIBRATED}
    return set()


def gravity_rotation_error(stamps: npt.NDArray[np.int64], values: Float64Array) -> float:
    """Difference between the rotation of gravity that the gyroscope predicts and the one that is measured, in m/s².

    `stamps` (N,) ns, `values` (N, 6) as in `Reading`. Gravity is constant in the world. So the accelerations are turned
    to the frame of the first reading by the integrated angular velocity, and the mean of the newest second is compared
    with that of the oldest. Errors from speeding up and braking cancel within a second; the errors from a wrong bias or
    scale add up. This goes back by 3 s at most, and only to a second whose mean acceleration is a plausible gravity.
    Returns 0 if there are fewer than two seconds.
    """
    turned = _in_first_frame((stamps - stamps[0]) / SECOND, values)
    age = (stamps[-1] - stamps) / SECOND
    means = []
    for second in range(min(3, int(age[0] + 0.05)) + 1):
        part = (age >= second) & (age < second + 1)
        if np.count_nonzero(part) < 5 or (second + 1) > age[0] + 0.05:
            break
        mean = turned[part].mean(axis=0)
        if not PLAUSIBLE_GRAVITY[0] <= np.linalg.norm(mean) <= PLAUSIBLE_GRAVITY[1]:
            break
        means.append(mean)
    return float(np.linalg.norm(means[0] - means[-1])) if means else 0.0


def rotation_error_bound(stamps: npt.NDArray[np.int64], values: Float64Array) -> float:
    """An upper bound of `gravity_rotation_error`, in m/s². It takes a tenth of the time, and is small if the robot
    stands, drives or turns on level ground.

    Let g be the mean acceleration. By rotations with the angular velocity ω, g changes by at most the integral of
    |ω × g|. The mean over a second differs from that of the turned g by at most the mean of |acceleration − g|.
    """
    acceleration, rates = values[:, :3], (values[1:, 3:6] + values[:-1, 3:6]) / 2
    x, y, z = gravity = acceleration.mean(axis=0)
    change = _lengths(rates @ np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])) @ np.diff(stamps) / SECOND
    second = np.minimum((stamps[-1] - stamps) // SECOND, 4)
    means = np.bincount(second, _lengths(acceleration - gravity), 4) / np.maximum(np.bincount(second, None, 4), 1)
    return float(change + means[0] + means[1:4].max())


def _lengths(vectors: Float64Array) -> Float64Array:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)))


def _in_first_frame(times: Float64Array, values: Float64Array) -> Float64Array:
    """Times (N,) in s from 0 and readings (N, 6) → accelerations (N, 3) in the frame of the IMU at the first reading.

    The angular velocity is integrated over steps of `ROTATION_STEP`, and the rotations of the steps are multiplied. An
    acceleration is turned by the rotation of the nearest step.
    """
    rates = (values[1:, 3:6] + values[:-1, 3:6]) / 2 * np.diff(times)[:, None]
    angles = np.concatenate([np.zeros((1, 3)), np.cumsum(rates, axis=0)])
    steps = np.arange(round(times[-1] / ROTATION_STEP) + 1) * ROTATION_STEP
    at_steps = np.stack([np.interp(steps, times, axis) for axis in angles.T], axis=1)
    rotations = _rotation_matrices(np.diff(at_steps, axis=0, prepend=0.0))
    reach = 1
    while reach < len(rotations):  # products of 1, 2, 4, … factors: each step's is that of all steps up to it
        rotations[reach:] = rotations[:-reach] @ rotations[reach:]
        reach *= 2
    nearest = rotations[np.rint(times / ROTATION_STEP).astype(np.intp)]
    return np.asarray(np.einsum("nij,nj->ni", nearest, values[:, :3]))


def _rotation_matrices(vectors: Float64Array) -> Float64Array:
    """Rotation vectors (N, 3) in rad → matrices (N, 3, 3), by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    half = np.sinc(angle / (2 * np.pi))  # sin(angle / 2) / (angle / 2)
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * (cross @ cross))
