"""Signs that a sensor lies: told from its raw data, window by window."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError, pcm_to_float, raw_pixels
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sound
from sensebind.fusion.core.symptoms import BLINDED, DARK, FROZEN, MISCALIBRATED, MUTED, SATURATED, SWAPPED, SYMPTOMS
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.camera_changes import (
    MIN_HISTORY_WINDOWS,
    ImageFormatMonitor,
    ScaleChangeMonitor,
    colour_balance_change,
    depth_scale_change,
)

Pixels = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

MAX_COMPARED_VALUES = 500_000  # values of a frame that are compared with the frame before
MAX_CHECKED_SIDE_PX = 160  # rows and columns of an image that its brightness is judged on, at most
BLACK_LEVEL, WHITE_LEVEL = 4, 251  # levels of 8 bits at and beyond which a pixel says nothing
MIN_SCENE_CONTRAST = 1.0  # levels of 8 bits: a dark scene has at least so much shape, a covered lens has not
RECENT_NS = SECOND  # ns at the end of a window of sound or motion that are judged: what is over is no symptom
MAX_CLIPPED_FRACTION = 0.1  # share of a sound at full scale that a bang nearby does not reach
MIN_LOOP_PERIOD_S = 0.02  # s: shorter periods are tones
SILENCE_DBFS = -75.0  # dB of full scale: under it no microphone is that still hears a room
MIN_LEVEL_DROP_DB = 25.0  # dB under its own usual quiet that a microphone does not fall by itself
MIN_COLOUR_SPREAD = 3.0  # levels by which the channels of a colour image differ on average
PLAUSIBLE_KELVIN = (220.0, 400.0)  # medians of scenes that robots are in
POSSIBLE_KELVIN = (150.0, 600.0)  # beyond these it is no temperature at all
MIN_SCENE_DEPTH = 0.3  # m: no depth camera has a whole scene nearer
PLAUSIBLE_GRAVITY = (6.0, 16.0)  # m/s², means over `RECENT_NS` of a robot that is no rocket
MAX_FREE_FALL_ACCELERATION = 3.0  # m/s²
ACCELEROMETER_LIMIT = 150.0  # m/s²: the end of a range of 16 g, less a little
MAX_GRAVITY_ERROR = (
    4.5  # m/s² by which gravity, turned by the gyroscope, misses the gravity measured, added up over 3 s
)
IMU_HISTORY_NS = round(4.05 * SECOND)  # ns of an IMU's readings that it takes to tell


class SensorHealthMonitor:
    """Looks at one modality's windows, in order of tick; holds what is usual of it. Pure but for that.

    Beside `check_window`, what tells against the sensor's own past: a microphone that fell silent, a camera whose
    pictures became those of another (size, type, no colour any more: `swapped`), or whose scale or balance of colours
    has jumped (`miscalibrated`); a gyroscope that does not agree with gravity on how it turns, for longer than robots
    speed up or brake (`miscalibrated`).
    """

    def __init__(self) -> None:
        self._previous_window: Window | None = None
        self._usual_noise_floor: float | None = None  # dB of full scale, the usual quiet
        self._noise_floor_windows = 0  # windows that it stands on
        self._colour_windows = 0  # windows with colours, up to `MIN_HISTORY_WINDOWS`
        self._image_format, self._scale_change = ImageFormatMonitor(), ScaleChangeMonitor()
        self._previous_image: Pixels | None = None  # of the window before, small
        # Of an IMU, the readings of the last `IMU_HISTORY_NS`: stamps (N,) in ns and values (N, 6).
        self._imu_stamps, self._imu_values = np.empty(0, np.int64), np.empty((0, 6))

    def check(self, window: Window) -> tuple[str, ...]:
        """Names of what is wrong, out of `SYMPTOMS` and in their order; empty where nothing is."""
        judged = _data_to_check(window)
        found = _check_data(window, self._previous_window, judged)
        self._previous_window = window
        data = window.samples[-1].data
        if window.modality == AUDIO and isinstance(data, Sound) and judged is not None and MUTED not in found:
            found |= self._fell_silent(judged)
        if isinstance(data, Frame) and not data.compressed and judged is not None:
            found |= self._check_camera_changes(window.modality, judged, bool(found & {DARK, BLINDED}))
        if window.modality == IMU and isinstance(data, Reading) and self._gyroscope_disagrees(window) and not found:
            found.add(MISCALIBRATED)
        return tuple(name for name in SYMPTOMS if name in found)

    def _gyroscope_disagrees(self, window: Window) -> bool:
        last = int(self._imu_stamps[-1]) if self._imu_stamps.size else 0
        new = [(stamp, values[:6]) for stamp, values in _readings_after(window, last) if values.size >= 6]
        if new:
            self._imu_stamps = np.concatenate([self._imu_stamps, [stamp for stamp, _ in new]])
            self._imu_values = np.concatenate([self._imu_values, [values for _, values in new]])
            first = int(np.searchsorted(self._imu_stamps, self._imu_stamps[-1] - IMU_HISTORY_NS))
            self._imu_stamps, self._imu_values = self._imu_stamps[first:], self._imu_values[first:]
        return (
            bool(self._imu_stamps.size)
            and gravity_rotation_error(self._imu_stamps, self._imu_values) > MAX_GRAVITY_ERROR
        )

    def _fell_silent(self, waveform: Float64Array) -> set[str]:
        loud, quiet = peak_and_noise_levels(waveform)
        if self._usual_noise_floor is None:
            self._usual_noise_floor = quiet
        if self._noise_floor_windows >= MIN_HISTORY_WINDOWS and quiet < min(
            SILENCE_DBFS, self._usual_noise_floor - MIN_LEVEL_DROP_DB
        ):
            return {MUTED if loud < SILENCE_DBFS else MISCALIBRATED}  # and is not learnt
        # The quiet between sounds: down at once by half, up slowly, so that a long alarm does not become the quiet.
        self._usual_noise_floor += (0.5 if quiet < self._usual_noise_floor else 0.02) * float(
            np.clip(quiet - self._usual_noise_floor, -12.0, 12.0)
        )
        self._noise_floor_windows += 1
        return set()

    def _check_camera_changes(self, modality: str, image: Pixels, blind: bool) -> set[str]:
        """What tells against the camera's own past; a `blind` one shows nothing to compare. `image` is small."""
        found = {SWAPPED} if self._image_format.update(image) or self._lost_colours(image) else set()
        if blind or found:
            return found
        before, self._previous_image = self._previous_image, image
        jump = None
        if before is not None and modality == VISION:
            jump = colour_balance_change(before, image)
        elif before is not None and modality == DEPTH:
            jump = depth_scale_change(before, image)
        return {MISCALIBRATED} if self._scale_change.update(jump) else set()

    def _lost_colours(self, image: Pixels) -> bool:
        if image.ndim != 3 or image.shape[2] < 3 or image.dtype != np.uint8:
            return False
        red, green, blue = (image[..., i] for i in range(3))  # a reduction over so short an axis is slow
        highest = np.maximum(np.maximum(red, green), blue)
        spread = float((highest - np.minimum(np.minimum(red, green), blue)).mean())
        if spread == 0.0 and image.max() > BLACK_LEVEL and image.min() < WHITE_LEVEL:
            return self._colour_windows >= MIN_HISTORY_WINDOWS
        if spread >= MIN_COLOUR_SPREAD:
            self._colour_windows = min(self._colour_windows + 1, MIN_HISTORY_WINDOWS)
        return False


def check_window(window: Window, before: Window | None) -> tuple[str, ...]:
    """What one window and the one before it tell, out of `SYMPTOMS` and in their order; empty where nothing is wrong.

    Images:
    - `dark`: 99 % of the pixels are black, and what is left has no shape: a covered lens, a dead sensor. A dark
      scene has shape left. Of depth: no pixel has a reading.
    - `blinded`: 99 % of the pixels are at or next to full scale.
    - `frozen`: of the pixels that say something, at most one in a thousand differs from the frame of the window before,
      though the stamp is newer. Noise never lets a working sensor repeat itself, however still the scene is.
    - `swapped`: what it sends cannot be its own: temperatures that nothing has, depths of 8 bits, light as even as
      temperatures are.
    - `miscalibrated`: temperatures that no place has where robots are.

    Sounds and motion, of which the newest second is judged:
    - `muted`: all values are the same (all zero, of motion).
    - `saturated`: a tenth of the sound is at full scale; half of the motion is at the end of its range.
    - `frozen`: the same stretch of sound again and again, or the same reading.
    - `swapped`: the gyroscope feels the gravity and the accelerometer none.
    - `miscalibrated`: the gravity is not of this planet.
    """
    found = _check_data(window, before, _data_to_check(window))
    return tuple(name for name in SYMPTOMS if name in found)


def _data_to_check(window: Window) -> npt.NDArray[Any] | None:
    """What several checks look at: the newest image made small, or the newest second of a sound. None for an image
    that cannot be read, and for readings."""
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
    then = last.data if last is not None and last.stamp != window.samples[-1].stamp else None
    if small is None:
        return {FROZEN} if isinstance(then, Frame) and _identical(then, newest) else found
    found |= _check_exposure(window.modality, small, window.calibration)
    if not {DARK, BLINDED} & found and isinstance(then, Frame):
        if newest.compressed:
            same = _identical(then, newest)
        else:
            earlier = _decode_image(then) if _same_format(then, newest) else None
            same = earlier is not None and _is_repeated(earlier, raw_pixels(newest))
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
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if not values.size:
        return {DARK}
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    if image.dtype == np.uint16:
        if high <= BLACK_LEVEL:
            return {DARK}
        if low >= 65_500 or low == high == 16_383:  # 14 bits are common
            return {BLINDED}
        middle = middle * calibration.thermal_unit + calibration.thermal_offset
    if not POSSIBLE_KELVIN[0] <= middle <= POSSIBLE_KELVIN[1]:
        return {SWAPPED}
    return set() if PLAUSIBLE_KELVIN[0] <= middle <= PLAUSIBLE_KELVIN[1] else {MISCALIBRATED}


def _is_thermal(image: Pixels) -> bool:
    """Whether a camera's 16 bits are temperatures: high numbers that differ by a third at most, and no shadow."""
    if image.dtype != np.uint16:
        return False
    low, high = (float(v) for v in np.percentile(image, (0.5, 99.5)))
    return low > 2_000 and high < 1.35 * low and high < 65_500


def _check_depth(image: Pixels, calibration: Calibration) -> set[str]:
    if image.dtype.kind == "f":
        valid = np.isfinite(image) & (image > 0)
        return set() if valid.any() or np.isinf(image).any() else {DARK}
    full = np.iinfo(image.dtype).max
    if np.count_nonzero(image == full) >= 0.99 * image.size:
        return {BLINDED}
    valid = (image > 0) & (image < full)
    if not valid.any():
        return {DARK}
    farthest = int(image[valid].max())
    return {SWAPPED} if farthest <= 255 and farthest * calibration.depth_unit < MIN_SCENE_DEPTH else set()


def _grid_contrast(image: Pixels) -> float:
    """How far the means of a 10 × 10 grid spread, from the 2nd to the 98th percentile, in levels."""
    grey = image.astype(np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    means = cv2.resize(grey, (10, 10), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(means, (2, 98))
    return float(high - low)


def _decode_image(frame: Frame) -> Pixels | None:
    """(H, W) or (H, W, C); a compressed image of 8 bits small and grey. None where that is not known."""
    try:
        if not frame.compressed:
            return raw_pixels(frame)
    except EncodingError:
        return None
    if "compresseddepth" in frame.encoding.lower() or "16" in frame.encoding.split(";")[0]:
        return None
    try:
        return np.asarray(cv2.imdecode(frame.data, cv2.IMREAD_REDUCED_GRAYSCALE_4), np.uint8)
    except (cv2.error, TypeError, ValueError):
        return None


def _subsample(image: Pixels) -> Pixels:
    return np.ascontiguousarray(
        image[:: -(-image.shape[0] // MAX_CHECKED_SIDE_PX), :: -(-image.shape[1] // MAX_CHECKED_SIDE_PX)]
    )


def _is_repeated(before: Pixels, now: Pixels) -> bool:
    """Whether at most one in a thousand of the values that say something has changed."""
    step = -(-now.size // MAX_COMPARED_VALUES) | 1  # odd, so that it falls on every channel and column
    a, b = before.reshape(-1)[::step], now.reshape(-1)[::step]
    for every in (256, 16):  # of most images a few values show that they changed
        few, now_few = a[::every], b[::every]
        if np.count_nonzero((few != now_few) & _informative(now_few)) > 0.001 * len(b):
            return False
    live = _informative(b)
    count = np.count_nonzero(live)
    return bool(count >= 0.01 * b.size and np.count_nonzero((a != b) & live) <= 0.001 * count)


def _informative(values: Pixels) -> npt.NDArray[np.bool_]:
    """Which values say something: neither black nor white, neither missing nor at full scale."""
    if values.dtype == np.uint8:
        return (values > BLACK_LEVEL) & (values < WHITE_LEVEL)
    if values.dtype.kind == "f":
        return np.isfinite(values) & (values > 0)
    return (values > 0) & (values < np.iinfo(values.dtype).max)


def _same_format(a: Frame, b: Frame) -> bool:
    return (a.encoding, a.height, a.width, a.compressed) == (b.encoding, b.height, b.width, b.compressed)


def _identical(a: Frame, b: Frame) -> bool:
    return _same_format(a, b) and a.data.size == b.data.size and np.array_equal(a.data, b.data)


# sound


def _newest_second(window: Window) -> Float64Array:
    """The newest second of a sound, (samples,) float64 in −1..1, its first channel."""
    pieces, left = [], RECENT_NS / SECOND
    for sample in reversed(window.samples):
        if left <= 0 or not isinstance(sample.data, Sound):
            break
        block = sample.data.data[:, 0]
        count = min(len(block), int(np.ceil(left * sample.data.sample_rate)))
        pieces.append(pcm_to_float(block[len(block) - count :]).astype(np.float64))
        left -= count / sample.data.sample_rate
    return np.concatenate(pieces[::-1])


def peak_and_noise_levels(waveform: Float64Array) -> tuple[float, float]:
    """(loudest, quietest) of twenty parts of a sound (samples,), in dB of full scale, −120 at least.

    Quiet is what both halves are at times: a sensor that failed within the sound is judged when all of it is lost.
    """
    size, longer = divmod(len(waveform), 20)  # as `np.array_split` does: the first parts are one longer than the others
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
    if (waveform == waveform[0]).all():
        return {MUTED}
    found = set[str]()
    full = 0.999 * min(1.0, max(float(np.abs(waveform).max()), 0.99))
    if np.count_nonzero(np.abs(waveform) >= full) > MAX_CLIPPED_FRACTION * waveform.size:
        found.add(SATURATED)
    if is_looping(waveform, round(MIN_LOOP_PERIOD_S * rate)):
        found.add(FROZEN)
    return found


def is_looping(waveform: Float64Array, shortest: int) -> bool:
    """Whether the end of `waveform` (N,) is an exact repetition, of period `shortest` to N / 2 and no less."""
    length = min(64, len(waveform) // 4)
    if length < 8:
        return False
    end = waveform[-length:]
    starts = np.flatnonzero(waveform[: -length - 1] == end[0])
    for at in range(1, length):
        starts = starts[waveform[starts + at] == end[at]]
        if not starts.size:
            return False
    period = len(waveform) - length - int(starts[-1])
    if period < shortest or 2 * period > len(waveform):
        return False
    return bool(np.array_equal(waveform[-period:], waveform[-2 * period : -period]))


# motion and other readings


def _readings_after(window: Window, stamp: int) -> list[tuple[int, Float64Array]]:
    """Stamps and values of the window's readings that are newer than `stamp`, in order."""
    found = []
    for sample in reversed(window.samples):
        if sample.stamp <= stamp:
            break
        if isinstance(sample.data, Reading):
            found.append((sample.stamp, sample.data.values))
    return found[::-1]


def _check_readings(window: Window) -> set[str]:
    newest = [values for _, values in _readings_after(window, window.samples[-1].stamp - RECENT_NS)]
    recent = np.array([values for values in newest if values.size == newest[-1].size])  # arrays may vary in length
    if len(recent) < 5:
        return set()
    if window.modality == IMU and not recent.any():
        return {MUTED}
    if window.modality == IMU and recent.shape[1] >= 6:
        at_the_end = (np.abs(recent[:, :3]) >= ACCELEROMETER_LIMIT).any(axis=1)
        if np.count_nonzero(at_the_end) > 0.5 * len(recent):
            return {SATURATED}
    if (recent == recent[0]).all():
        return {FROZEN}
    if window.modality == IMU and recent.shape[1] >= 6:
        felt, turned = (float(np.linalg.norm(recent[:, part].mean(axis=0))) for part in (slice(3), slice(3, 6)))
        if felt < MAX_FREE_FALL_ACCELERATION and turned > PLAUSIBLE_GRAVITY[0]:
            return {SWAPPED}
        if not PLAUSIBLE_GRAVITY[0] <= felt <= PLAUSIBLE_GRAVITY[1]:
            return {MISCALIBRATED}
    return set()


def gravity_rotation_error(stamps: npt.NDArray[np.int64], values: Float64Array) -> float:
    """How far the gyroscope is from turning the gravity as the accelerometer feels it turn, m/s².

    `stamps` (N,) ns, `values` (N, 6) as in `Reading`. A gravity g that stands still in the world turns as
    dg/dt = −ω × g in the robot's frame (the transport theorem). From second to second, the means of acceleration are
    compared with those before, turned so; speeding up and braking make errors that cancel, a wrong bias or scale one
    that adds up. The length of their sum over the last 3 s at most, as far back as what was felt can be gravity; 0
    where that is under 2 s.
    """
    age = (stamps[-1] - stamps) / SECOND
    means, turns = [], []
    for second in range(min(3, int(age[0] + 0.05)) + 1):
        part = (age >= second) & (age < second + 1)
        if np.count_nonzero(part) < 5 or (second + 1) > age[0] + 0.05:
            break
        mean = values[part, :3].mean(axis=0)
        if not PLAUSIBLE_GRAVITY[0] <= np.linalg.norm(mean) <= PLAUSIBLE_GRAVITY[1]:
            break
        means.append(mean)
        turns.append(values[part, 3:6].mean(axis=0))
    errors = [
        means[i] - means[i + 1] + _cross((turns[i] + turns[i + 1]) / 2, (means[i] + means[i + 1]) / 2)
        for i in range(len(means) - 1)
    ]
    return float(np.linalg.norm(np.sum(errors, axis=0))) if errors else 0.0


def _cross(a: Float64Array, b: Float64Array) -> Float64Array:
    """As `np.cross` of two vectors (3,), which takes longer than all else that `gravity_rotation_error` does with
    them."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
