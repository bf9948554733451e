"""A detector that knows no model: how much each sensor's signal moves. What any model must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from sensebind.evaluation.matching import match, sum_counts
from sensebind.evaluation.spans import Array, Spans
from sensebind.fusion.core.encodings import EncodingError, decode_depth, decode_rgb, decode_thermal, pcm_to_float
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sample, Sound

COMPARED_FRAME_SIZE = (
    32,
    24,
)  # pixels, width and height, in which frames are compared: noise averages out, things stay
MIN_LEVEL = 1e-5  # of full scale, −100 dB: silence is no quieter
HOP = 0.5  # s
HOLD_TIME = 1.0  # s below half the threshold after which it is over
CANDIDATE_THRESHOLDS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)  # deviations that are tried
ANYTHING = "anything"
ANY_SENSE = "any"


class SignalActivity:
    """How much each sense's signal moves, from samples in order of time.

    Sound: its level in dB. Camera, depth and thermal: the mean difference to the frame before, of grey levels, of
    metres where both have a reading, of kelvin or levels. Motion: jerk, the change of acceleration in m/s³.
    """

    def __init__(self) -> None:
        self._bins: dict[str, dict[int, list[float]]] = {}
        self._previous: dict[str, tuple[int, np.ndarray]] = {}

    def add(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Take one sample; what cannot be decoded, or is older than the one before, is left out."""
        data = sample.data
        if isinstance(data, Sound):
            self._sound(sample, data)
            return
        try:
            now = _image(sample.modality, data, calibration) if isinstance(data, Frame) else _acceleration(data)
        except EncodingError:
            return  # counted and told by the line
        stamp, before = self._previous.get(sample.modality, (0, now))
        if sample.stamp <= stamp:
            return
        self._previous[sample.modality] = sample.stamp, now
        if not stamp or before.shape != now.shape or sample.stamp - stamp > SECOND:
            return
        if isinstance(data, Frame):
            change = np.abs(now - before)
            both = np.isfinite(change)
            moved = float(change[both].mean()) if both.any() else 0.0
        else:
            moved = float(np.linalg.norm(now - before)) / max((sample.stamp - stamp) / SECOND, 1e-3)
        if np.isfinite(moved):
            self._add_value(sample.modality, sample.stamp, moved)

    def _sound(self, sample: Sample, sound: Sound) -> None:
        values = pcm_to_float(sound.data)
        if not values.size or sound.sample_rate <= 0:
            return
        step = max(int(sound.sample_rate * HOP / 4), 1)  # a long block holds several levels
        for first in range(0, len(values), step):
            level = float(np.sqrt(np.mean(np.square(values[first : first + step].astype(np.float64)))))
            stamp = sample.stamp + round(first * SECOND / sound.sample_rate)
            self._add_value(
                sample.modality, stamp, 20 * np.log10(max(level, MIN_LEVEL)) if np.isfinite(level) else -100.0
            )

    def _add_value(self, modality: str, stamp: int, value: float) -> None:
        self._bins.setdefault(modality, {}).setdefault(stamp // round(HOP * SECOND), []).append(value)

    def z_scores(self, start: int, end: int) -> tuple[Array, dict[str, Array]]:
        """(edges (T+1,) in s from `start`, modality → (T,)): the mean of each step of `HOP` s from `start` to `end` ns.

        In deviations over the recording's own median: 1.4826 × the median absolute deviation is one. A step without
        data has 0. The median of all of the recording is known only afterwards: that is in this detector's favour.
        """
        hop = round(HOP * SECOND)
        first, count = start // hop, max(-(-(end - start) // hop), 1)
        found = {}
        for modality, bins in self._bins.items():
            series = np.full(count, np.nan)
            for column, values in bins.items():
                if 0 <= column - first < count:
                    series[column - first] = np.mean(values)
            known = series[np.isfinite(series)]
            if not known.size:
                continue
            middle = float(np.median(known))
            spread = 1.4826 * float(np.median(np.abs(known - middle)))
            floor = 1e-3 * max(abs(middle), 1e-6)
            found[modality] = np.nan_to_num((series - middle) / max(spread, floor))
        edges = np.asarray(np.arange(count + 1) * HOP + (first * hop - start) / SECOND, np.float64)
        return edges, found


def _image(modality: str, frame: Frame, calibration: Calibration | None) -> np.ndarray:
    """float32 (24, 32); NaN without a reading."""
    calibration = calibration or Calibration()
    if modality == DEPTH:
        metres = decode_depth(frame, calibration)
        return np.asarray(cv2.resize(metres, COMPARED_FRAME_SIZE, interpolation=cv2.INTER_NEAREST), np.float32)
    if modality == THERMAL:
        values = decode_thermal(frame, calibration).values
    elif modality == VISION:
        values = cv2.cvtColor(decode_rgb(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
    else:
        raise EncodingError(f"'{modality}' is no camera")
    return np.asarray(
        cv2.resize(np.asarray(values, np.float32), COMPARED_FRAME_SIZE, interpolation=cv2.INTER_AREA), np.float32
    )


def _acceleration(reading: Reading) -> np.ndarray:
    """Acceleration (3,) of an IMU, or all numbers of another sensor."""
    values = np.asarray(reading.values, np.float64).ravel()
    return values[:3] if len(values) == 6 else values


def max_over_modalities(moves: Mapping[str, Array]) -> Array:
    """Of several senses' deviations, (T,) each, the greatest at each step; (0,) of none."""
    return np.max(np.stack(list(moves.values())), axis=0) if moves else np.zeros(0)


def spells(edges: Array, values: Array, threshold: float) -> Spans:
    """When `values` (T,) are up: from where one reaches `threshold` to where they have stayed below half of it for
    `HOLD_TIME` s. Labelled `ANYTHING`."""
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


ActivityScores = tuple[Array, Mapping[str, Array]]  # what `SignalActivity.z_scores` gives


def best_threshold(truths: Sequence[Spans], activities: Sequence[ActivityScores]) -> tuple[str, float, list[Spans]]:
    """Which sense (`ANY_SENSE`: the greatest of all) and which of `CANDIDATE_THRESHOLDS` give the best event-based F1
    over all recordings, whatever the labels; and what is told with them, for each recording.

    Both are chosen on the very truth that they are then scored on, in this detector's favour.
    """

    def f1(setting: tuple[str, float]) -> float:
        pairs = zip(truths, _detect(activities, *setting), strict=True)
        return sum_counts([match(truth, spans, labels=False).counts for truth, spans in pairs]).f1 or 0.0

    best = max(
        ((sense, threshold) for sense in _modality_choices(activities) for threshold in CANDIDATE_THRESHOLDS), key=f1
    )
    return *best, _detect(activities, *best)


def best_label_per_modality(
    truths: Sequence[Spans], activities: Sequence[ActivityScores]
) -> tuple[dict[str, tuple[str, float]], list[Spans]]:
    """Sense → the one label and the threshold that its activity stands for in all recordings; and what is told so.

    Chosen one after the other, each for the best event-based F1 with those before it, on the very truth that is then
    scored; a sense that would only do harm is left out. Such a detector could be built, unlike one whose every event
    is labelled by the truth.
    """
    labels = sorted({label for truth in truths for label in truth.labels})
    chosen: dict[str, tuple[str, float]] = {}
    detections = [Spans.of(()) for _ in truths]
    best = 0.0
    while True:
        found = None
        for sense in _modality_choices(activities):
            for threshold in CANDIDATE_THRESHOLDS if sense not in chosen else ():
                own = _detect(activities, sense, threshold)
                for label in labels:
                    more = [
                        Spans.of([*t.rows(), *((on, off, label) for on, off, _ in s.rows())])
                        for t, s in zip(detections, own, strict=True)
                    ]
                    f1 = sum_counts([match(truth, m).counts for truth, m in zip(truths, more, strict=True)]).f1 or 0.0
                    if f1 > best:
                        best, found = f1, (sense, label, threshold, more)
        if found is None:
            return chosen, detections
        sense, label, threshold, detections = found
        chosen[sense] = label, threshold


def _modality_choices(activities: Sequence[ActivityScores]) -> list[str]:
    return [ANY_SENSE, *sorted({m for _, moves in activities for m in moves})]


def _detect(activities: Sequence[ActivityScores], sense: str, threshold: float) -> list[Spans]:
    """What one sense, or any, tells in each recording."""
    found = []
    for edges, moves in activities:
        values = max_over_modalities(moves) if sense == ANY_SENSE else moves.get(sense, np.zeros(0))
        found.append(spells(edges, values if len(values) else np.zeros(len(edges) - 1), threshold))
    return found
