"""Embeddings: vectors of a space with their windows, and the fusion of the vectors of one tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND, SENSOR_MODALITIES

FUSED = "fused"

Vector = npt.NDArray[np.float32]

MAX_ACTIVITY_SHAPE = 256, 256  # frames, features
ACTIVITY_PERIODS = SECOND // 1000, 60 * SECOND  # ns, shortest and longest time from one frame to the next


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object in an image. `score` is 0..1.

    `region` is (x, y, width, height) in pixels of the received image. `bearing` is the horizontal angle from the
    forward axis of the sensor to the middle of the region in rad, positive to the left (REP 103); None if not known.
    """

    name: str
    score: float
    region: tuple[int, int, int, int]
    bearing: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """Features of the raw data of a window that rise when something begins, frame by frame.

    `values` float32 (T, F): T ≥ 1 frames, the oldest first, of F ≥ 1 features. A rise of 1 is the smallest that
    matters. NaN: no reading. The last frame ends with the window. `period` is the time from one frame to the next in
    ns; 0: there is one frame, that of the newest image.
    """

    values: npt.NDArray[np.float32]
    period: int

    @classmethod
    def of_message(cls, values: npt.NDArray[np.float32], features: int, seconds: float) -> Activity:
        """From the values (T · F,) of a message, F and the period in s. Raises `ValueError` if they do not fit, or are
        more than `MAX_ACTIVITY_SHAPE`, so that no message can fill the memory of a detector."""
        if not 1 <= features <= MAX_ACTIVITY_SHAPE[1] or not values.size or values.size % features:
            raise ValueError(f"{values.size} values of activity with {features} features")
        frames = values.reshape(-1, features)
        period = round(seconds * 1e6) * 1000 if 0 <= seconds <= 3600 else -1  # a float32 second is exact to 1 µs
        is_valid = ACTIVITY_PERIODS[0] <= period <= ACTIVITY_PERIODS[1] or (period == 0 and len(frames) == 1)
        if not is_valid or len(frames) > MAX_ACTIVITY_SHAPE[0]:
            raise ValueError(f"{len(frames)} frames of activity with a period of {seconds} s")
        return cls(frames, period)


@dataclass(frozen=True, slots=True)
class Embedding:
    """A float32 unit vector (D,) for the window `[start, tick)` of one modality, or for a tick (`fused`).

    `coverage` is 0..1. `sources` (names of sensors) and `weights` belong to a fused vector and are empty for others.
    `symptoms` are signs of a faulty sensor (`health`), the clearest first. `sensor` is the name of the sensor: that of
    the modality if it has only one, and empty for fused vectors and text. `objects` are those that the encoder located
    in the newest image: the best one of each name, the highest score first. `activity` is None if the raw data have no
    features of activity.
    """

    modality: str
    start: int  # ns
    tick: int  # ns, the window's end
    space: str
    coverage: float
    vector: Vector
    frame_id: str = ""
    sources: tuple[str, ...] = field(default=())
    weights: tuple[float, ...] = field(default=())
    symptoms: tuple[str, ...] = field(default=())
    sensor: str = ""
    objects: tuple[DetectedObject, ...] = field(default=())
    activity: Activity | None = None

    @property
    def source(self) -> str:
        """The name of the sensor; without one, that of the modality: `fused`, `text`, or the modality's only sensor."""
        return self.sensor or self.modality


def l2_normalize(vectors: npt.ArrayLike) -> Vector:
    """Scale vectors (…, D) to unit length, float32. Zero vectors stay zero."""
    array = np.asarray(vectors, np.float32)
    norm = np.linalg.norm(array, axis=-1, keepdims=True)
    return np.divide(array, norm, out=np.zeros_like(array), where=norm > 0)


def fuse(present: Sequence[Embedding], weights: Mapping[str, float] | None = None) -> Embedding:
    """Return the fused vector of a tick: the sum of the modalities' vectors, each times weight × coverage, scaled to
    unit length.

    A sum of vectors of a joint space combines their meanings (ImageBind, arXiv 2305.05665, section 4.3). If a modality
    has several sensors, its vector is the mean of their vectors, weighted by coverage, and its coverage is the largest
    of their coverages. So four cameras count as much as one. `weights` maps modality to weight; a missing modality has
    the weight 1. If weight × coverage is 0 for all modalities, all count the same. In the result, `sources` has the
    sensors in alphabetical order, so it does not depend on the order of `present`. `weights` has one number for each
    source; they sum to 1.

    Raises `ValueError` if `present` is empty, or if ticks or spaces differ.
    """
    if not present:
        raise ValueError("nothing to fuse")
    if len({(e.tick, e.space) for e in present}) != 1:
        raise ValueError("only embeddings of one tick and one space can be fused")
    parts = sorted(present, key=lambda e: e.source)
    modalities = {e.modality for e in parts}
    coverages = {modality: [e.coverage for e in parts if e.modality == modality] for modality in modalities}
    within = np.array([_share(e.coverage, coverages[e.modality]) for e in parts])  # sums to 1 in each modality
    of_modality = [(weights or {}).get(e.modality, 1.0) * max(coverages[e.modality]) for e in parts]
    raw = within * np.array(of_modality)
    shares = raw / raw.sum() if raw.sum() > 0 else within / len(coverages)
    total = sum(share * e.vector.astype(np.float64) for share, e in zip(shares, parts, strict=True))
    return Embedding(
        modality=FUSED,
        start=min(e.start for e in parts),
        tick=parts[0].tick,
        space=parts[0].space,
        coverage=float(np.dot(shares, [e.coverage for e in parts])),
        vector=l2_normalize(total),
        sources=tuple(e.source for e in parts),
        weights=tuple(float(share) for share in shares),
    )


def _share(coverage: float, all_coverages: Sequence[float]) -> float:
    """The share of one sensor in the mean of its modality: by coverage; equal shares if no sensor has any."""
    total = sum(all_coverages)
    return coverage / total if total > 0 else 1 / len(all_coverages)


def sort_modalities(modalities: Iterable[str]) -> list[str]:
    """Sort modalities: `fused` first, then the built-in ones in their usual order, then others by name."""
    order = (FUSED, *SENSOR_MODALITIES)
    return sorted(modalities, key=lambda m: (order.index(m) if m in order else len(order), m))


def sort_sensors(modalities: Mapping[str, str]) -> list[str]:
    """Sort sensors (sensor → its modality) by modality as `sort_modalities` does, and those of one modality by name."""
    order = {modality: place for place, modality in enumerate(sort_modalities(set(modalities.values())))}
    return sorted(modalities, key=lambda sensor: (order[modalities[sensor]], sensor))
