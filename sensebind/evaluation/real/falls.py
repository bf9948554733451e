"""Falls and other motions of people, from the IMU of a phone alone, with the prompt "a fall".

A folder holds labels.csv and a file <name>.csv.gz for each recording. The columns of labels.csv: `file`; `words`, the
name of the motion; `fall`, 0 or 1; `subject`; `peak_at_s_from_first_stamp (computed)`, the time of the impact of a fall
in s from the first stamp of the file. The columns of a recording: `sensor` (acc: m/s², gravity included; gyro: rad/s),
`stamp_ns`, `x`, `y`, `z`. Each sensor has stamps of its own, at about 90 and 200 Hz.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sensebind.evaluation.metrics import median_and_p95, table_cell
from sensebind.evaluation.real.prompt_runs import PromptRun, run_samples, settings_for
from sensebind.evaluation.spans import Array
from sensebind.evaluation.tables import Row, read_table
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import IMU, SECOND, Reading, Sample
from sensebind.fusion.core.space import Space
from sensebind.replay.progress import track
from sensebind.replay.session import Settings
from sensebind.simulation.messages import SIMULATION_START

PROMPTS = {"fall": ["a fall"]}
COLLAR = 2.0  # s: an event that begins at most this long after an impact, or ends at most this long before it, is right
IMPACT_COLUMN = "peak_at_s_from_first_stamp (computed)"


class MotionDataError(SensebindError):
    """Recordings of motion are missing or cannot be read. The message names the file."""


@dataclass(frozen=True)
class MotionRecording:
    """A recording: `stamps` (N,) in s from the first stamp of its file, `values` (N, 6): acceleration in m/s², angular
    velocity in rad/s. `impact`: the time of the impact in s; None: no fall."""

    name: str
    words: str
    subject: str
    impact: float | None
    stamps: Array
    values: Array

    @property
    def seconds(self) -> float:
        return float(self.stamps[-1])

    def messages(self, start: int = SIMULATION_START) -> Iterable[Sample]:
        """A sample for each message of an IMU. `start` (ns) is the first stamp of the file."""
        for stamp, row in zip(self.stamps.tolist(), self.values, strict=True):
            yield Sample(IMU, start + round(stamp * SECOND), Reading(row))


@dataclass(frozen=True)
class MotionRun:
    """The events of one recording."""

    recording: MotionRecording
    run: PromptRun

    @property
    def near_impact(self) -> list[bool]:
        """For each detection, whether it overlaps the impact or is within `COLLAR` of it."""
        spans, impact = self.run.detections.spans, self.recording.impact
        if impact is None:
            return [False] * len(spans)
        return ((spans.onsets <= impact + COLLAR) & (spans.offsets >= impact - COLLAR)).tolist()


def read_recordings(folder: Path, subjects: Sequence[str] = ()) -> list[MotionRecording]:
    """The recordings of these subjects (empty: all) in the order of labels.csv. Raises `MotionDataError` and
    `TableError`."""
    table = folder / "labels.csv"
    rows = read_table(table, ("file", "words", "fall", "subject", IMPACT_COLUMN))
    chosen = [row for row in rows if not subjects or row["subject"] in subjects]
    if not chosen:
        of = f" of the subjects {', '.join(subjects)}" if subjects else ""
        raise MotionDataError(f"'{table}' has no recordings{of}")
    return [_read(folder, row) for row in chosen]


def _read(folder: Path, row: Row) -> MotionRecording:
    """Raises `TableError` for a file that cannot be read, and `MotionDataError` if a sensor is missing."""
    columns: dict[str, list[list[float]]] = {"acc": [], "gyro": []}
    stamps: dict[str, list[int]] = {"acc": [], "gyro": []}
    for line in read_table(folder / row["file"], ("sensor", "stamp_ns", "x", "y", "z")):
        if line["sensor"] not in stamps or not line["stamp_ns"].isdecimal():
            raise MotionDataError(f"{line.where}: 'sensor' must be acc or gyro, and 'stamp_ns' a whole number")
        stamps[line["sensor"]].append(int(line["stamp_ns"]))
        columns[line["sensor"]].append([line.number(axis) for axis in "xyz"])
    if missing := [sensor for sensor, own in stamps.items() if not own]:
        raise MotionDataError(f"'{folder / row['file']}' has no rows of the sensor '{missing[0]}'")
    first = min(stamps["acc"][0], stamps["gyro"][0])
    times = {sensor: (np.array(own) - first) / SECOND for sensor, own in stamps.items()}
    turning = np.array(columns["gyro"])
    turning = np.stack([np.interp(times["acc"], times["gyro"], turning[:, axis]) for axis in range(3)], axis=1)
    impact = row.number(IMPACT_COLUMN) if row["fall"] == "1" else None
    values = np.concatenate([np.array(columns["acc"]), turning], axis=1)
    return MotionRecording(row["file"], row["words"], row["subject"], impact, times["acc"], values)


def run_recordings(
    recordings: Sequence[MotionRecording], config: Path | None = None, device: str | None = None
) -> list[MotionRun]:
    """Detect falls in each recording, each with a pipeline of its own. `config`: a parameter file; None: the shipped
    one. Raises `ConfigError`."""
    settings = settings_for([IMU], PROMPTS, config, device)
    space = settings.space()
    return [
        MotionRun(recording, _run(recording, settings, space)) for recording in track(recordings, "falls", "recordings")
    ]


def _run(recording: MotionRecording, settings: Settings, space: Space) -> PromptRun:
    return run_samples(recording.messages(), SIMULATION_START, settings, space)


def fall_metrics(runs: Sequence[MotionRun]) -> dict[str, Any]:
    """`subjects`: subject → figures; `overall`: the same over all; `recordings`: the events of each recording.

    A fall is found if an event is near its impact. All events in other motions are false, and so are events of
    recordings of falls that are not near the impact.
    """
    subjects = sorted({r.recording.subject for r in runs})
    return {
        "overall": _figures(runs),
        "subjects": {s: _figures([r for r in runs if r.recording.subject == s]) for s in subjects},
        "recordings": [_listed(r) for r in runs],
    }


def _figures(runs: Sequence[MotionRun]) -> dict[str, Any]:
    falls = [r for r in runs if r.recording.impact is not None]
    others = [r for r in runs if r.recording.impact is None]
    found = [r for r in falls if any(r.near_impact)]
    false = sum(len(r.run.detections.spans) for r in others)
    delays = [
        float(r.run.detections.reported_at[r.near_impact.index(True)]) - r.recording.impact
        for r in found
        if r.recording.impact is not None
    ]
    return {
        "falls": len(falls),
        "found": len(found),
        "recall": round(len(found) / len(falls), 4) if falls else None,
        "reporting_delay_s": median_and_p95(delays),
        "false_in_recordings_of_falls": sum(len(r.near_impact) - sum(r.near_impact) for r in falls),
        "other_motions": len(others),
        "other_minutes": round(sum(r.recording.seconds for r in others) / 60, 2),
        "false": false,
        "motions_with_false": sum(len(r.run.detections.spans) > 0 for r in others),
        "false_per_10_motions": round(10 * false / len(others), 3) if others else None,
    }


def _listed(r: MotionRun) -> dict[str, Any]:
    spans = r.run.detections.spans
    return {
        "name": r.recording.name,
        "words": r.recording.words,
        "subject": r.recording.subject,
        "impact": r.recording.impact,
        "events": [[round(a, 2), round(b, 2)] for a, b, _ in spans.rows()],
    }


def fall_table(found: Mapping[str, Any]) -> str:
    """Markdown: a row for each subject and for all, then the falls that were missed and the false events."""
    lines = [
        "| subject | falls | found | recall | reporting delay, s: median | p95 | other motions | false events "
        "| per 10 motions | false in recordings of falls |",
        "| --- |" + " ---: |" * 9,
    ]
    for name, f in [*found["subjects"].items(), ("all", found["overall"])]:
        delay = f["reporting_delay_s"]
        cells = [f["falls"], f["found"], f["recall"], delay["median"], delay["p95"], f["other_motions"], f["false"]]
        cells += [f["false_per_10_motions"], f["false_in_recordings_of_falls"]]
        lines.append(f"| {name} | " + " | ".join(table_cell(c) for c in cells) + " |")
    for r in found["recordings"]:
        events = ", ".join(f"{a:.1f} to {b:.1f} s" for a, b in r["events"])
        if r["impact"] is None and events:
            lines.append(f"false: {r['words']} ({r['name']}): {events}")
        elif r["impact"] is not None and not any(a - COLLAR <= r["impact"] <= b + COLLAR for a, b in r["events"]):
            lines.append(f"missed: {r['words']} at {r['impact']:.1f} s ({r['name']}); events: {events or 'none'}")
    return "\n".join(lines)
