"""`summary.json`: the results of a run, for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sensebind.fusion.core.events import EventInterval, intervals_from_events
from sensebind.fusion.core.samples import SECOND
from sensebind.report.report_data import ReportData


def summary(data: ReportData) -> dict[str, Any]:
    """The contents of `summary.json`: strings, finite numbers, None, lists and dicts.

    Times are seconds after the start of `ReportData.time_range`; keys that end in `_ns` hold stamps.
    `modalities` is name → `ModalityStatistics.summary()`: windows, embedded, dropped by cause, coverage_mean,
    latency_ms, and more.
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
        "modalities": {name: dict(figures) for name, figures in data.modalities.items()},
        "events": [_event(item, start) for item in intervals_from_events(data.events)],
        "truth": None
        if data.truth is None
        else [{"onset": onset, "offset": offset, "label": label} for onset, offset, label in data.truth],
        "notes": list(data.notes),
    }
    cleaned: dict[str, Any] = _finite(result)
    return cleaned


def write_summary(path: str | Path, data: ReportData) -> None:
    """Write `summary` as standard JSON: NaN and infinity become null."""
    text = json.dumps(summary(data), indent=2, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


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
        "place_by_modality": {
            modality: {"region": own.region, "bearing": None if own.bearing is None else round(own.bearing, 4)}
            for modality, own in item.place_by_modality.items()
        },
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
