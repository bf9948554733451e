"""`summary.json`: the results of a run, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensebind.fusion.core.atomic import write_text
from sensebind.fusion.core.embeddings import sort_modalities
from sensebind.fusion.core.events import Event, EventInterval, EventKind, Evidence, intervals_from_events
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.ground_truth import LabelSpan
from sensebind.report.report_data import ReportData

ONSET_TOLERANCE = 1.0  # s: a detection may begin this long before the true event
NAMES, COINCIDES = "names", "coincides"
# Figures of a sensor that the section `losses` has.
LOSS_FIGURES = ("dropped", "samples_dropped", "samples_without_window", "unfused", "gaps")


@dataclass(frozen=True, slots=True)
class TrueEvent:
    """A true event from `onset` to `offset` (s), and its detection: an event of the same label at the same time.

    `onset_error` (s) is positive if the detection begins late. `margin` is the peak score minus the onset threshold.
    Both are None if it is not detected, and `margin` also if the threshold is not known. `modalities`: modality →
    `NAMES` if it recognised the label, `COINCIDES` if something began in it at the same time.
    """

    onset: float
    offset: float
    label: str
    detected: bool = False
    onset_error: float | None = None
    margin: float | None = None
    modalities: tuple[tuple[str, str], ...] = ()

    @property
    def corroborated(self) -> bool:
        """Whether a modality names it, and another one names it or coincides with it."""
        return len(self.modalities) >= 2 and any(role == NAMES for _, role in self.modalities)

    def as_json(self) -> dict[str, Any]:
        """The entry of `summary.json`."""
        return {
            "onset": self.onset,
            "offset": self.offset,
            "label": self.label,
            "detected": self.detected,
            "onset_error_s": None if self.onset_error is None else round(self.onset_error, 3),
            "margin": None if self.margin is None else round(self.margin, 4),
            "modalities": [{"modality": modality, "role": role} for modality, role in self.modalities],
        }


def true_events(
    truth: Sequence[LabelSpan],
    events: Iterable[Event],
    start: int,
    onset_thresholds: Mapping[str, float] = MappingProxyType({}),
) -> list[TrueEvent]:
    """Find the detection of each true event (onset, offset, label), in s from `start` (ns).

    A detection is a prompt event, or a fault, of the same label that overlaps the true event and begins at most
    `ONSET_TOLERANCE` before it: the one with the smallest error of the onset. Each detection counts once.
    `onset_thresholds`: label → onset threshold, for the margin.
    """
    free = [item for item in intervals_from_events(events) if item.kind in (EventKind.PROMPT, EventKind.FAULT)]
    found = []
    for onset, offset, label in truth:
        first, last = start + round(onset * SECOND), start + round(offset * SECOND)
        fitting = [
            item
            for item in free
            if item.label == label
            and first - ONSET_TOLERANCE * SECOND <= item.onset <= last
            and (item.offset is None or item.offset >= first)
        ]
        if not fitting:
            found.append(TrueEvent(onset, offset, label))
            continue
        best = min(fitting, key=lambda item: abs(item.onset - first))
        free.remove(best)
        threshold = onset_thresholds.get(label) if best.kind is EventKind.PROMPT else None
        margin = None if threshold is None else best.peak_score - threshold
        found.append(
            TrueEvent(onset, offset, label, True, (best.onset - first) / SECOND, margin, _roles(best)),
        )
    return found


def _roles(item: EventInterval) -> tuple[tuple[str, str], ...]:
    """(modality, role) of the modalities that supported an event at any time. `NAMES` has precedence."""
    roles: dict[str, str] = {}
    for _, evidence in item.evidence_by_tick:
        for own in evidence:
            if own.coincides:
                roles.setdefault(own.modality, COINCIDES)
            elif own.supports:
                roles[own.modality] = NAMES
    return tuple((modality, roles[modality]) for modality in sort_modalities(roles))


def summary(data: ReportData) -> dict[str, Any]:
    """The contents of `summary.json`: strings, finite numbers, None, lists and dicts.

    Times are seconds after the start of `ReportData.time_range`; keys that end in `_ns` hold stamps.
    `modalities` is sensor → `SensorStatistics.summary()` without its `LOSS_FIGURES`: samples, windows, embedded,
    coverage_mean, latency_ms (None after an offline replay, which has no latency), and more. The only sensor of a
    modality has its name. `losses`: the messages, samples and windows that were not used, by cause. `sensors` is
    sensor → its modality and its topic (None: not known). `truth` has an entry for each true event:
    `TrueEvent.as_json`.
    """
    start, end = data.time_range()
    result = {
        "recording": data.recording,
        "space": data.space,
        "licence": data.licence,
        "start_ns": start,
        "end_ns": end,
        "duration_s": (end - start) / SECOND,
        "realtime_factor": data.realtime_factor,
        "modalities": {
            name: {key: value for key, value in figures.items() if key not in LOSS_FIGURES}
            for name, figures in data.modalities.items()
        },
        "sensors": {
            sensor: {"modality": data.modality_of(sensor), "topic": data.topics.get(sensor)}
            for sensor in data.modalities
        },
        "losses": {**data.losses.as_json(), "sensors": _sensor_losses(data)},
        "events": [_event(item, start) for item in intervals_from_events(data.events)],
        "truth": None
        if data.truth is None
        else [item.as_json() for item in true_events(data.truth, data.events, start, data.onset_thresholds)],
        "notes": list(data.notes),
    }
    cleaned: dict[str, Any] = _finite(result)
    return cleaned


def _sensor_losses(data: ReportData) -> dict[str, Any]:
    """Sensor → what was not used: `SensorLosses.as_json`. After a live run, the messages are not known (None)."""
    result: dict[str, Any] = {}
    for sensor, figures in data.modalities.items():
        if sensor in data.losses.sensors:
            result[sensor] = data.losses.sensors[sensor].as_json()
            continue
        dropped, unfused = dict(figures.get("dropped") or {}), figures.get("unfused")
        samples = {**(figures.get("samples_dropped") or {}), **(figures.get("samples_without_window") or {})}
        result[sensor] = {
            "messages": None,
            "messages_lost": {},
            "samples_lost": samples,
            "windows_lost": {**dropped, "unfused": unfused} if unfused else dropped,
            "gaps": figures.get("gaps", 0),
        }
    return result


def write_summary(path: str | Path, data: ReportData) -> None:
    """Write `summary` as standard JSON: NaN and infinity become null."""
    text = json.dumps(summary(data), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _event(item: EventInterval, start: int) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind.name,
        "label": item.label,
        "onset": (item.onset - start) / SECOND,
        "offset": None if item.offset is None else (item.offset - start) / SECOND,
        "onset_ns": item.onset,
        "offset_ns": item.offset,
        "score": round(item.peak_score, 4),
        "score_by_modality": {modality: round(score, 4) for modality, score in item.score_by_modality.items()},
        "score_by_sensor": {sensor: round(score, 4) for sensor, score in item.score_by_sensor.items()},
        "place_by_modality": _places(item.place_by_modality),
        "place_by_sensor": _places(item.place_by_sensor),
    }


def _places(found: Mapping[str, Evidence]) -> dict[str, Any]:
    """Modality or sensor → the region and the bearing in its evidence."""
    return {
        name: {"region": own.region, "bearing": None if own.bearing is None else round(own.bearing, 4)}
        for name, own in found.items()
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
