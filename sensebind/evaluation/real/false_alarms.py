"""False events in recordings with nothing to detect: with the prompts of a parameter file, and with prompts of objects
that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sensebind.evaluation.psds import HOUR
from sensebind.evaluation.real.prompt_runs import PromptRun, collect, recording_tracker, with_prompts
from sensebind.fusion.config.parameters import detector_values
from sensebind.fusion.core.events import EventKind
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.replay.progress import track
from sensebind.replay.session import Settings, open_with_sensors

OWN = "prompts of the file"
ABSENT = "absent objects"
ABSENT_PROMPTS = {  # label → phrases, for objects that robots rarely meet, to be seen, heard and felt
    "elephant": ["an elephant"],
    "piano": ["a piano", "piano music"],
    "pizza": ["a pizza"],
    "bathtub": ["a bathtub"],
    "traffic_light": ["a traffic light"],
    "baby": ["a crying baby"],
    "church_bell": ["a church bell"],
    "gunshot": ["a gunshot"],
    "telephone": ["a ringing telephone"],
    "fall": ["a fall"],
}


@dataclass(frozen=True)
class QuietRun:
    """The events of one recording with one set of prompts. `seconds`: its length, 0 without any window. `start` in
    ns."""

    name: str
    prompts: str
    seconds: float
    start: int
    run: PromptRun


def run_recording(path: Path, settings: Settings, space: Space) -> list[QuietRun]:
    """Replay a recording with the prompts of `settings` and with `ABSENT_PROMPTS`. Raises the errors of reading."""
    absent = replace(settings, detector=detector_values(with_prompts(settings.detector, ABSENT_PROMPTS)))
    found = []
    for title, own in ((OWN, settings), (ABSENT, absent)):
        with open_with_sensors(path, own) as (own, replay):
            tracker, scores = recording_tracker(own, space)
            run = collect(replay.outputs(own.pipeline(space, tracker)), scores, replay.start)
            seconds = replay.seconds if run.windows else 0.0  # without stamps there is nothing to detect events in
            found.append(QuietRun(path.name, title, seconds, replay.start, run))
    return found


def run_recordings(paths: Sequence[Path], config: Path | None = None, device: str | None = None) -> list[QuietRun]:
    """`run_recording` of each recording. `config`: a parameter file; None: the shipped one."""
    settings = Settings.read(config, device)
    space = settings.space()
    return [run for path in track(paths, "false alarms", "recordings") for run in run_recording(path, settings, space)]


def false_alarm_metrics(runs: Sequence[QuietRun]) -> dict[str, Any]:
    """`sets`: set of prompts → the number of false events and their rate; `recordings`: figures and the list of all
    PROMPT and UNKNOWN events of each recording and set of prompts."""
    sets = {}
    for title in dict.fromkeys(r.prompts for r in runs):
        own = [r for r in runs if r.prompts == title]
        seconds, false = sum(r.seconds for r in own), sum(r.run.count(EventKind.PROMPT) for r in own)
        sets[title] = {
            "seconds": round(seconds, 1),
            "false": false,
            "false_per_hour": round(false * HOUR / max(seconds, 1e-3), 1),
            "unknown": sum(r.run.count(EventKind.UNKNOWN) for r in own),
        }
    return {"sets": sets, "recordings": [_listed(r) for r in runs]}


def _listed(r: QuietRun) -> dict[str, Any]:
    events = [
        {
            "kind": i.kind.name,
            "label": i.label,
            "onset": round((i.onset - r.start) / SECOND, 2),
            "offset": None if i.offset is None else round((i.offset - r.start) / SECOND, 2),
            "score": round(i.peak_score, 3),
            "modalities": {m: round(s, 3) for m, s in i.score_by_modality.items()},
            "sensors": {sensor: round(s, 3) for sensor, s in i.score_by_sensor.items()},
        }
        for i in r.run.intervals
        if i.kind in (EventKind.PROMPT, EventKind.UNKNOWN)
    ]
    return {
        "name": r.name,
        "prompts": r.prompts,
        "seconds": round(r.seconds, 1),
        "windows": dict(r.run.windows),
        "false": r.run.count(EventKind.PROMPT),
        "other_kinds": r.run.other_kinds,
        "events": events,
    }


def false_alarm_table(found: Mapping[str, Any]) -> str:
    """Markdown: a row for each recording and set of prompts, the sums, and each event."""
    lines = ["| recording | sensors | prompts | s | false events | other kinds |", "|---|---|---|---:|---:|---|"]
    for r in found["recordings"]:
        others = ", ".join(f"{number} {kind}" for kind, number in r["other_kinds"].items()) or "–"
        cells = [
            r["name"],
            ", ".join(r["windows"]) or "no windows",
            r["prompts"],
            f"{r['seconds']:.1f}",
            str(r["false"]),
        ]
        lines.append(f"| {' | '.join(cells)} | {others} |")
    lines.append("")
    for title, s in found["sets"].items():
        lines.append(
            f"{title}: {s['false']} false events in {s['seconds'] / 60:.1f} minutes ({s['false_per_hour']:.1f} per "
            f"hour); {s['unknown']} UNKNOWN"
        )
    for r in found["recordings"]:
        for e in r["events"]:
            by = ", ".join(f"{sensor} {s:.2f}" for sensor, s in e["sensors"].items())
            until = "the end" if e["offset"] is None else f"{e['offset']:.1f} s"
            lines.append(
                f"  {r['name']}, {r['prompts']}: {e['kind']} {e['label']} from {e['onset']:.1f} s to {until}, score "
                f"{e['score']:.2f} ({by})"
            )
    return "\n".join(lines)
