"""A baseline detector without a model: it measures how much the signal of each modality changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from sensebind.evaluation.matching import match, sum_counts
from sensebind.evaluation.spans import Array, Spans
from sensebind.fusion.core.encodings import EncodingError, decode_depth, decode_rgb, decode_thermal, pcm_to_float
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sample, Sound

COMPARED_FRAME_SIZE = (32, 24)  # pixels, (width, height): images are compared at this size, which averages noise out
MIN_LEVEL = 1e-5  # of full scale, −100 dB: lower bound of the sound level
HOP = 0.5  # s
HOLD_TIME = 1.0  # s below half the threshold after which a detection ends
CANDIDATE_THRESHOLDS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)  # z-scores
ANYTHING = "anything"
ANY_MODALITY = "any"


class SignalActivity:
    """Measures how much the signal of each sensor changes, from samples in order of time.

    Audio: the level in dB. Vision, depth, thermal: the mean absolute difference from the previous image, in grey
    levels, in m (pixels with a reading in both), in kelvin or raw levels. IMU: jerk in m/s³.
    """

    def __init__(self) -> None:
        self._bins: dict[str, dict[int, list[float]]] = {}
        self._previous: dict[str, tuple[int, np.ndarray]] = {}

    def add(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Add one sample. A sample that cannot be decoded, or is not newer than the previous one, is ignored."""
        data = sample.data
        if isinstance(data, Sound):
            self._sound(sample, data)
            return
        try:
            now = _image(sample.modality, data, calibration) if isinstance(data, Frame) else _acceleration(data)
        except EncodingError:
            return  # the pipeline counts and reports it
        stamp, before = self._previous.get(sample.sensor, (0, now))
        if sample.stamp <= stamp:
            return
        self._previous[sample.sensor] = sample.stamp, now
        if not stamp or before.shape != now.shape or sample.stamp - stamp > SECOND:
            return
        if isinstance(data, Frame):
            change = np.abs(now - before)
            both = np.isfinite(change)
            activity = float(change[both].mean()) if both.any() else 0.0
        else:
            activity = float(np.linalg.norm(now - before)) / max((sample.stamp - stamp) / SECOND, 1e-3)
        if np.isfinite(activity):
            self._add_value(sample.sensor, sample.stamp, activity)

    def _sound(self, sample: Sample, sound: Sound) -> None:
        values = pcm_to_float(sound.data)
        if not values.size or sound.sample_rate <= 0:
            return
        step = max(int(sound.sample_rate * HOP / 4), 1)  # a long block gives several levels
        for first in range(0, len(values), step):
            level = float(np.sqrt(np.mean(np.square(values[first : first + step].astype(np.float64)))))
            stamp = sample.stamp + round(first * SECOND / sound.sample_rate)
            self._add_value(
                sample.sensor, stamp, 20 * np.log10(max(level, MIN_LEVEL)) if np.isfinite(level) else -100.0
            )

    def _add_value(self, sensor: str, stamp: int, value: float) -> None:
        self._bins.setdefault(sensor, {}).setdefault(stamp // round(HOP * SECOND), []).append(value)

    def z_scores(self, start: int, end: int) -> tuple[Array, dict[str, Array]]:
        """(edges (T+1,) in s from `start`, sensor → z-scores (T,)) of the mean activity in each step of `HOP` s from
        `start` to `end` (ns).

        A z-score is (mean − median) / (1.4826 × median absolute deviation), over the whole recording; 0 in a step
        without data. A running detector cannot know the whole recording, so this favours the baseline.
        """
        hop = round(HOP * SECOND)
        first, count = start // hop, max(-(-(end - start) // hop), 1)
        found = {}
        for sensor, bins in self._bins.items():
            series = np.full(count, np.nan)
            for column, values in bins.items():
                if 0 <= column - first < count:
                    series[column - first] = np.mean(values)
            known = series[np.isfinite(series)]
            if not known.size:
                continue
            median = float(np.median(known))
            spread = 1.4826 * float(np.median(np.abs(known - median)))
            floor = 1e-3 * max(abs(median), 1e-6)
            found[sensor] = np.nan_to_num((series - median) / max(spread, floor))
        edges = np.asarray(np.arange(count + 1) * HOP + (first * hop - start) / SECOND, np.float64)
        return edges, found


def _image(modality: str, frame: Frame, calibration: Calibration | None) -> np.ndarray:
    """The image to compare, float32 (24, 32); NaN without a reading."""
    calibration = calibration or Calibration()
    if modality == DEPTH:
        metres = decode_depth(frame, calibration)
        return np.asarray(cv2.resize(metres, COMPARED_FRAME_SIZE, interpolation=cv2.INTER_NEAREST), np.float32)
    if modality == THERMAL:
        values = decode_thermal(frame, calibration).values
    elif modality == VISION:
        values = cv2.cvtColor(decode_rgb(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
    else:
        raise EncodingError(f"'{modality}' is not the modality of a camera")
    return np.asarray(
        cv2.resize(np.asarray(values, np.float32), COMPARED_FRAME_SIZE, interpolation=cv2.INTER_AREA), np.float32
    )


def _acceleration(reading: Reading) -> np.ndarray:
    """Acceleration (3,) of an IMU in m/s², or all numbers of another sensor."""
    values = np.asarray(reading.values, np.float64).ravel()
    return values[:3] if len(values) == 6 else values


def max_over_modalities(moves: Mapping[str, Array]) -> Array:
    """The highest z-score of all modalities at each step, (T,); (0,) without modalities."""
    return np.max(np.stack(list(moves.values())), axis=0) if moves else np.zeros(0)


def active_spans(edges: Array, values: Array, threshold: float) -> Spans:
    """Detections from `values` (T,), labelled `ANYTHING`. One begins when a value reaches `threshold`. It ends at the
    time from which the values stay below half of `threshold` for `HOLD_TIME` s."""
    rows: list[tuple[float, float, str]] = []
    onset: float | None = None
    under: float | None = None
    for start, value in zip(edges[:-1].tolist(), values.tolist(), strict=True):
        if onset is None:
            if value >= threshold:
                onset, under = start, None
        elif value >= threshold / 2:
            under = None
        else:
            under = start if under is None else under
            if start - under >= HOLD_TIME - 1e-9:
                rows.append((onset, under, ANYTHING))
                onset = under = None
    if onset is not None:
        rows.append((onset, float(edges[-1]) if under is None else under, ANYTHING))
    return Spans.of(rows)


ActivityScores = tuple[Array, Mapping[str, Array]]  # the result of `SignalActivity.z_scores`


def best_threshold(truths: Sequence[Spans], activities: Sequence[ActivityScores]) -> tuple[str, float, list[Spans]]:
    """The modality (`ANY_MODALITY`: the maximum of all) and the threshold of `CANDIDATE_THRESHOLDS` with the best
    event-based F1 over all recordings, without regard to labels; and the detections with them, for each recording.

    Both are chosen on the truth that is then scored, which favours this detector.
    """

    def f1(setting: tuple[str, float]) -> float:
        pairs = zip(truths, _detect(activities, *setting), strict=True)
        return sum_counts([match(truth, spans, labels=False).counts for truth, spans in pairs]).f1 or 0.0

    best = max(
        ((modality, threshold) for modality in _modality_choices(activities) for threshold in CANDIDATE_THRESHOLDS),
        key=f1,
    )
    return *best, _detect(activities, *best)


def best_label_per_modality(
    truths: Sequence[Spans], activities: Sequence[ActivityScores]
) -> tuple[dict[str, tuple[str, float]], list[Spans]]:
    """Modality → (label, threshold) that its activity stands for in all recordings; and the detections with them.

    Modalities are added one after the other, each with the label and threshold of the best event-based F1, on the truth
    that is then scored. A modality that does not raise F1 is left out. Such a detector could be built, unlike one with
    labels of the truth.
    """
    labels = sorted({label for truth in truths for label in truth.labels})
    chosen: dict[str, tuple[str, float]] = {}
    detections = [Spans.of(()) for _ in truths]
    best = 0.0
    while True:
        found = None
        for modality in _modality_choices(activities):
            for threshold in CANDIDATE_THRESHOLDS if modality not in chosen else ():
                own = _detect(activities, modality, threshold)
                for label in labels:
                    more = [
                        Spans.of([*t.rows(), *((on, off, label) for on, off, _ in s.rows())])
                        for t, s in zip(detections, own, strict=True)
                    ]
                    f1 = sum_counts([match(truth, m).counts for truth, m in zip(truths, more, strict=True)]).f1 or 0.0
                    if f1 > best:
                        best, found = f1, (modality, label, threshold, more)
        if found is None:
            return chosen, detections
        modality, label, threshold, detections = found
        chosen[modality] = label, threshold


def _modality_choices(activities: Sequence[ActivityScores]) -> list[str]:
    return [ANY_MODALITY, *sorted({m for _, moves in activities for m in moves})]


def _detect(activities: Sequence[ActivityScores], modality: str, threshold: float) -> list[Spans]:
    """The detections of one modality, or of the maximum of all, in each recording."""
    found = []
    for edges, moves in activities:
        values = max_over_modalities(moves) if modality == ANY_MODALITY else moves.get(modality, np.zeros(0))
        found.append(active_spans(edges, values if len(values) else np.zeros(len(edges) - 1), threshold))
    return found
