"""Signs that a sensor lies: told from its raw data, window by window."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError, rows, to_float
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sound
from sensebind.fusion.core.symptoms import BLINDED, DARK, FROZEN, MISCALIBRATED, MUTED, SATURATED, SWAPPED, SYMPTOMS
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.camera_changes import Kind, Scale, cast, stretch

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

LOOKED_AT = 500_000  # values of a frame that are compared with the frame before
SMALL = 160  # rows and columns of an image that its brightness is judged on, at most
BLACK, WHITE = 4, 251  # levels of 8 bits at and beyond which a pixel says nothing
RELIEF = 1.0  # levels of 8 bits: a dark scene has at least so much shape, a covered lens has not
RECENT = SECOND  # ns at the end of a window of sound or motion that are judged: what is over is no symptom
CLIPPED = 0.1  # share of a sound at full scale that a bang nearby does not reach
SHORTEST_LOOP = 0.02  # s: shorter periods are tones
SILENCE = -75.0  # dB of full scale: under it no microphone is that still hears a room
FALL = 25.0  # dB under its own usual quiet that a microphone does not fall by itself
COLOURFUL = 3.0  # levels by which the channels of a colour image differ on average
KELVIN = (220.0, 400.0)  # medians of scenes that robots are in
IMPOSSIBLE_KELVIN = (150.0, 600.0)  # beyond these it is no temperature at all
NEAREST = 0.3  # m: no depth camera has a whole scene nearer
GRAVITY = (6.0, 16.0)  # m/s², means over `RECENT` of a robot that is no rocket
FREE_FALL = 3.0  # m/s²
LIMIT = 150.0  # m/s²: the end of a range of 16 g, less a little
LEAN = 4.5  # m/s² by which gravity, turned by the gyroscope, misses the gravity measured, added up over 3 s
LOOK_BACK = round(4.05 * SECOND)  # ns of an IMU's readings that it takes to tell


class Health:
    """Looks at one modality's windows, in order of tick; holds what is usual of it. Pure but for that.

    Beside `symptoms`, what tells against the sensor's own past: a microphone that fell silent, a camera whose pictures
    became those of another (size, type, no colour any more: `swapped`), or whose scale or balance of colours has
    jumped (`miscalibrated`); a gyroscope that does not agree with gravity on how it turns, for longer than robots speed
    up or brake (`miscalibrated`).
    """

    def __init__(self) -> None:
        self._before: Window | None = None
        self._quiet: float | None = None  # dB of full scale, the usual quiet
        self._heard = 0  # windows that it stands on
        self._colourful = 0  # windows with colours, up to `SURE`
        self._kind, self._scale = Kind(), Scale()
        self._image: Pixels | None = None  # of the window before, small
        # Of an IMU, the readings of the last `LOOK_BACK`: stamps (N,) in ns and values (N, 6).
        self._stamps, self._values = np.empty(0, np.int64), np.empty((0, 6))

    SURE = 10  # windows after which the usual is believed

    def look(self, window: Window) -> tuple[str, ...]:
        """Names of what is wrong, out of `SYMPTOMS` and in their order; empty where nothing is."""
        judged = _judged(window)
        found = _found(window, self._before, judged)
        self._before = window
        data = window.samples[-1].data
        if window.modality == AUDIO and isinstance(data, Sound) and judged is not None and MUTED not in found:
            found |= self._fell_silent(judged)
        if isinstance(data, Frame) and not data.compressed and judged is not None:
            found |= self._became_another(window.modality, judged, bool(found & {DARK, BLINDED}))
        if window.modality == IMU and isinstance(data, Reading) and self._leans(window) and not found:
            found.add(MISCALIBRATED)
        return tuple(name for name in SYMPTOMS if name in found)

    def _leans(self, window: Window) -> bool:
        last = int(self._stamps[-1]) if self._stamps.size else 0
        new = [(stamp, values[:6]) for stamp, values in _readings_after(window, last) if values.size >= 6]
        if new:
            self._stamps = np.concatenate([self._stamps, [stamp for stamp, _ in new]])
            self._values = np.concatenate([self._values, [values for _, values in new]])
            first = int(np.searchsorted(self._stamps, self._stamps[-1] - LOOK_BACK))
            self._stamps, self._values = self._stamps[first:], self._values[first:]
        return bool(self._stamps.size) and lean(self._stamps, self._values) > LEAN

    def _fell_silent(self, wave: Floats) -> set[str]:
        loud, quiet = loudness(wave)
        if self._quiet is None:
            self._quiet = quiet
        if self._heard >= self.SURE and quiet < min(SILENCE, self._quiet - FALL):
            return {MUTED if loud < SILENCE else MISCALIBRATED}  # and is not learnt
        # The quiet between sounds: down at once by half, up slowly, so that a long alarm does not become the quiet.
        self._quiet += (0.5 if quiet < self._quiet else 0.02) * float(np.clip(quiet - self._quiet, -12.0, 12.0))
        self._heard += 1
        return set()

    def _became_another(self, modality: str, image: Pixels, blind: bool) -> set[str]:
        """What tells against the camera's own past; a `blind` one shows nothing to compare. `image` is small."""
        found = {SWAPPED} if self._kind.is_another(image) or self._lost_colours(image) else set()
        if blind or found:
            return found
        before, self._image = self._image, image
        jump = None
        if before is not None and modality == VISION:
            jump = cast(before, image)
        elif before is not None and modality == DEPTH:
            jump = stretch(before, image)
        return {MISCALIBRATED} if self._scale.is_off(jump) else set()

    def _lost_colours(self, image: Pixels) -> bool:
        if image.ndim != 3 or image.shape[2] < 3 or image.dtype != np.uint8:
            return False
        red, green, blue = (image[..., i] for i in range(3))  # a reduction over so short an axis is slow
        highest = np.maximum(np.maximum(red, green), blue)
        spread = float((highest - np.minimum(np.minimum(red, green), blue)).mean())
        if spread == 0.0 and image.max() > BLACK and image.min() < WHITE:
            return self._colourful >= self.SURE
        if spread >= COLOURFUL:
            self._colourful = min(self._colourful + 1, self.SURE)
        return False


def symptoms(window: Window, before: Window | None) -> tuple[str, ...]:
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
    found = _found(window, before, _judged(window))
    return tuple(name for name in SYMPTOMS if name in found)


def _judged(window: Window) -> npt.NDArray[Any] | None:
    """What several checks look at: the newest image made small, or the newest second of a sound. None for an image
    that cannot be read, and for readings."""
    newest = window.samples[-1].data
    if isinstance(newest, Frame):
        image = _pixels(newest)
        return None if image is None else _small(image)
    return _newest(window) if isinstance(newest, Sound) else None


def _found(window: Window, before: Window | None, judged: npt.NDArray[Any] | None) -> set[str]:
    newest = window.samples[-1].data
    if isinstance(newest, Frame):
        return _of_frames(window, before, newest, judged)
    if isinstance(newest, Sound):
        assert judged is not None
        return _of_sound(judged, newest.rate)
    return _of_readings(window)


# images


def _of_frames(window: Window, before: Window | None, newest: Frame, small: Pixels | None) -> set[str]:
    found = set[str]()
    last = before.samples[-1] if before else None
    then = last.data if last is not None and last.stamp != window.samples[-1].stamp else None
    if small is None:
        return {FROZEN} if isinstance(then, Frame) and _identical(then, newest) else found
    found |= _exposure(window.modality, small, window.calibration)
    if not {DARK, BLINDED} & found and isinstance(then, Frame):
        if newest.compressed:
            same = _identical(then, newest)
        else:
            earlier = _pixels(then) if _alike(then, newest) else None
            same = earlier is not None and _repeats(earlier, rows(newest))
        if same:
            found.add(FROZEN)
    return found


def _exposure(modality: str, image: Pixels, calibration: Calibration) -> set[str]:
    if modality == DEPTH and image.ndim == 2:
        return _depth(image, calibration)
    if image.dtype == np.uint8:
        if np.count_nonzero(image >= WHITE) >= 0.99 * image.size:
            return {BLINDED}
        black = np.count_nonzero(image <= BLACK) >= 0.99 * image.size
        return {DARK} if black and _relief(image) < RELIEF else set()
    if image.ndim != 2:
        return set()
    if modality != THERMAL:
        return {SWAPPED} if modality == VISION and _is_thermal(image) else set()
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image.ravel()
    if not values.size:
        return {DARK}
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    if image.dtype == np.uint16:
        if high <= BLACK:
            return {DARK}
        if low >= 65_500 or low == high == 16_383:  # 14 bits are common
            return {BLINDED}
        middle = middle * calibration.thermal_unit + calibration.thermal_offset
    if not IMPOSSIBLE_KELVIN[0] <= middle <= IMPOSSIBLE_KELVIN[1]:
        return {SWAPPED}
    return set() if KELVIN[0] <= middle <= KELVIN[1] else {MISCALIBRATED}


def _is_thermal(image: Pixels) -> bool:
    """Whether a camera's 16 bits are temperatures: high numbers that differ by a third at most, and no shadow."""
    if image.dtype != np.uint16:
        return False
    low, high = (float(v) for v in np.percentile(image, (0.5, 99.5)))
    return low > 2_000 and high < 1.35 * low and high < 65_500


def _depth(image: Pixels, calibration: Calibration) -> set[str]:
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
    return {SWAPPED} if farthest <= 255 and farthest * calibration.depth_unit < NEAREST else set()


def _relief(image: Pixels) -> float:
    """How far the means of a 10 × 10 grid spread, from the 2nd to the 98th percentile, in levels."""
    grey = image.astype(np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    means = cv2.resize(grey, (10, 10), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(means, (2, 98))
    return float(high - low)


def _pixels(frame: Frame) -> Pixels | None:
    """(H, W) or (H, W, C); a compressed image of 8 bits small and grey. None where that is not known."""
    try:
        if not frame.compressed:
            return rows(frame)
    except EncodingError:
        return None
    if "compresseddepth" in frame.encoding.lower() or "16" in frame.encoding.split(";")[0]:
        return None
    try:
        return np.asarray(cv2.imdecode(frame.data, cv2.IMREAD_REDUCED_GRAYSCALE_4), np.uint8)
    except (cv2.error, TypeError, ValueError):
        return None


def _small(image: Pixels) -> Pixels:
    return np.ascontiguousarray(image[:: -(-image.shape[0] // SMALL), :: -(-image.shape[1] // SMALL)])


def _repeats(before: Pixels, now: Pixels) -> bool:
    """Whether at most one in a thousand of the values that say something has changed."""
    step = -(-now.size // LOOKED_AT) | 1  # odd, so that it falls on every channel and column
    a, b = before.reshape(-1)[::step], now.reshape(-1)[::step]
    for every in (256, 16):  # of most images a few values show that they changed
        few, now_few = a[::every], b[::every]
        if np.count_nonzero((few != now_few) & _live(now_few)) > 0.001 * len(b):
            return False
    live = _live(b)
    count = np.count_nonzero(live)
    return bool(count >= 0.01 * b.size and np.count_nonzero((a != b) & live) <= 0.001 * count)


def _live(values: Pixels) -> npt.NDArray[np.bool_]:
    """Which values say something: neither black nor white, neither missing nor at full scale."""
    if values.dtype == np.uint8:
        return (values > BLACK) & (values < WHITE)
    if values.dtype.kind == "f":
        return np.isfinite(values) & (values > 0)
    return (values > 0) & (values < np.iinfo(values.dtype).max)


def _alike(a: Frame, b: Frame) -> bool:
    return (a.encoding, a.height, a.width, a.compressed) == (b.encoding, b.height, b.width, b.compressed)


def _identical(a: Frame, b: Frame) -> bool:
    return _alike(a, b) and a.data.size == b.data.size and np.array_equal(a.data, b.data)


# sound


def _newest(window: Window) -> Floats:
    """The newest second of a sound, (samples,) float64 in −1..1, its first channel."""
    pieces, left = [], RECENT / SECOND
    for sample in reversed(window.samples):
        if left <= 0 or not isinstance(sample.data, Sound):
            break
        block = sample.data.data[:, 0]
        count = min(len(block), int(np.ceil(left * sample.data.rate)))
        pieces.append(to_float(block[len(block) - count :]).astype(np.float64))
        left -= count / sample.data.rate
    return np.concatenate(pieces[::-1])


def loudness(wave: Floats) -> tuple[float, float]:
    """(loudest, quietest) of twenty parts of a sound (samples,), in dB of full scale, −120 at least.

    Quiet is what both halves are at times: a sensor that failed within the sound is judged when all of it is lost.
    """
    size, longer = divmod(len(wave), 20)  # as `np.array_split` does: the first parts are one longer than the others
    at = longer * (size + 1)
    level = 10 * np.log10(np.concatenate([_power(wave[:at], longer), _power(wave[at:], 20 - longer)]) + 1e-12)
    return float(level.max()), float(max(level[:10].min(), level[10:].min()))


def _power(wave: Floats, count: int) -> Floats:
    """Variance (count,) of `count` parts of equal length."""
    if not wave.size:
        return np.zeros(count)
    parts = wave.reshape(count, -1)
    return np.asarray(np.square(parts - parts.mean(axis=1, keepdims=True)).mean(axis=1))


def _of_sound(wave: Floats, rate: float) -> set[str]:
    if (wave == wave[0]).all():
        return {MUTED}
    found = set[str]()
    full = 0.999 * min(1.0, max(float(np.abs(wave).max()), 0.99))
    if np.count_nonzero(np.abs(wave) >= full) > CLIPPED * wave.size:
        found.add(SATURATED)
    if loops(wave, round(SHORTEST_LOOP * rate)):
        found.add(FROZEN)
    return found


def loops(wave: Floats, shortest: int) -> bool:
    """Whether the end of `wave` (N,) is an exact repetition, of period `shortest` to N / 2 and no less."""
    length = min(64, len(wave) // 4)
    if length < 8:
        return False
    end = wave[-length:]
    starts = np.flatnonzero(wave[: -length - 1] == end[0])
    for at in range(1, length):
        starts = starts[wave[starts + at] == end[at]]
        if not starts.size:
            return False
    period = len(wave) - length - int(starts[-1])
    if period < shortest or 2 * period > len(wave):
        return False
    return bool(np.array_equal(wave[-period:], wave[-2 * period : -period]))


# motion and other readings


def _readings_after(window: Window, stamp: int) -> list[tuple[int, Floats]]:
    """Stamps and values of the window's readings that are newer than `stamp`, in order."""
    found = []
    for sample in reversed(window.samples):
        if sample.stamp <= stamp:
            break
        if isinstance(sample.data, Reading):
            found.append((sample.stamp, sample.data.values))
    return found[::-1]


def _of_readings(window: Window) -> set[str]:
    newest = [values for _, values in _readings_after(window, window.samples[-1].stamp - RECENT)]
    recent = np.array([values for values in newest if values.size == newest[-1].size])  # arrays may vary in length
    if len(recent) < 5:
        return set()
    if window.modality == IMU and not recent.any():
        return {MUTED}
    if window.modality == IMU and recent.shape[1] >= 6:
        at_the_end = (np.abs(recent[:, :3]) >= LIMIT).any(axis=1)
        if np.count_nonzero(at_the_end) > 0.5 * len(recent):
            return {SATURATED}
    if (recent == recent[0]).all():
        return {FROZEN}
    if window.modality == IMU and recent.shape[1] >= 6:
        felt, turned = (float(np.linalg.norm(recent[:, part].mean(axis=0))) for part in (slice(3), slice(3, 6)))
        if felt < FREE_FALL and turned > GRAVITY[0]:
            return {SWAPPED}
        if not GRAVITY[0] <= felt <= GRAVITY[1]:
            return {MISCALIBRATED}
    return set()


def lean(stamps: npt.NDArray[np.int64], values: Floats) -> float:
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
        if not GRAVITY[0] <= np.linalg.norm(mean) <= GRAVITY[1]:
            break
        means.append(mean)
        turns.append(values[part, 3:6].mean(axis=0))
    errors = [
        means[i] - means[i + 1] + _cross((turns[i] + turns[i + 1]) / 2, (means[i] + means[i + 1]) / 2)
        for i in range(len(means) - 1)
    ]
    return float(np.linalg.norm(np.sum(errors, axis=0))) if errors else 0.0


def _cross(a: Floats, b: Floats) -> Floats:
    """As `np.cross` of two vectors (3,), which takes longer than all else that `lean` does with them."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
