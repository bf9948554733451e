"""Events of recorded sounds in noise, from the microphone alone, with prompts made of the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sensebind.evaluation.detection_runs import DetectionRun
from sensebind.evaluation.matching import match
from sensebind.evaluation.metrics import MIN_CALIBRATION_SCORE, calibration_error, median_and_p95, score_run, table_cell
from sensebind.evaluation.real.prompt_runs import PromptRun, run_samples, settings_for, with_prompts
from sensebind.evaluation.real.sound_streams import Clip, SoundStream, join_in_robot_noise
from sensebind.evaluation.spans import Spans
from sensebind.fusion.config.parameters import detector_values
from sensebind.fusion.core.events import EventKind
from sensebind.fusion.core.samples import AUDIO
from sensebind.fusion.core.space import Space
from sensebind.replay.progress import track
from sensebind.replay.session import Settings
from sensebind.simulation.messages import SIMULATION_START

ABSENT_SOUNDS = {  # label → phrase, for sounds that are in none of the streams
    "siren": "the sound of a siren",
    "gunshot": "the sound of a gunshot",
    "telephone": "the sound of a telephone",
    "speech": "the sound of speech",
    "music": "the sound of music",
    "train": "the sound of a train",
    "aeroplane": "the sound of an aeroplane",
    "church_bell": "the sound of a church bell",
    "frog": "the sound of a frog",
    "glass_breaking": "the sound of glass breaking",
}


@dataclass(frozen=True)
class StreamRun:
    """A stream, its truth with the labels of the prompts, the events with prompts of its classes, and the events with
    prompts of absent sounds (None: not run)."""

    stream: SoundStream
    truth: Spans
    present: PromptRun
    absent: PromptRun | None


def label_of(name: str) -> str:
    """The label of a class, a valid name of a parameter: "dog bark" → "dog_bark"."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def class_prompts(names: Sequence[str]) -> dict[str, list[str]]:
    """Label → phrases: "the sound of <class name>" for each class."""
    return {label_of(name): [f"the sound of {name}"] for name in sorted(set(names))}


def evaluate_clips(
    clips: Sequence[Clip],
    seeds: Iterable[int],
    seconds: float,
    snr: float,
    config: Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """`sound_metrics` of a stream of `seconds` s for each seed, with the clips at `snr` dB over robot noise, the
    prompts of their classes and the prompts `ABSENT_SOUNDS`. `config`: a parameter file; None: the shipped one."""
    settings = settings_for([AUDIO], class_prompts([clip.name for clip in clips]), config, device)
    space = settings.space()
    streams = (join_in_robot_noise(clips, seconds, snr, seed) for seed in track(seeds, "sounds in noise", "streams"))
    return sound_metrics([run_stream(stream, settings, space, ABSENT_SOUNDS) for stream in streams])


def run_stream(
    stream: SoundStream, settings: Settings, space: Space, absent: Mapping[str, str] | None = None
) -> StreamRun:
    """Detect events in a stream with the prompts of `settings`, and again with the prompts `absent` alone."""
    truth = Spans.of((a, b, label_of(name)) for a, b, name in stream.truth.rows())
    others = None
    if absent:
        values = with_prompts(settings.detector, {label: [phrase] for label, phrase in absent.items()})
        others = _run(stream, replace(settings, detector=detector_values(values)), space)
    return StreamRun(stream, truth, _run(stream, settings, space), others)


def _run(stream: SoundStream, settings: Settings, space: Space) -> PromptRun:
    return run_samples(stream.messages(), SIMULATION_START, settings, space)


def sound_metrics(runs: Sequence[StreamRun]) -> dict[str, Any]:
    """Metrics of all streams together: strings, finite numbers, None, lists and dicts.

    `event`, `segment`, `false_alarms_per_hour` and `labels`: as in `score_run`. `onset_error_s` and
    `reporting_delay_s`: n, median and p95 over the matched events. `first_report_delay_s`: see `first_report_delays`.
    `calibration`: see `calibration_error`. `absent`: the number and list of events of prompts of absent sounds.
    `other_kinds`: number of events of other kinds, with the prompts of the classes.
    """
    truths, seconds = [r.truth for r in runs], [r.stream.seconds for r in runs]
    found = [r.present.detections for r in runs]
    scored = score_run(truths, [d.spans for d in found], seconds, [d.reported_at for d in found], None)
    errors, delays = _delays(truths, found)
    first = [x for truth, run in zip(truths, found, strict=True) for x in first_report_delays(truth, run)]
    kinds: dict[str, int] = {}
    for r in runs:
        for kind, number in r.present.other_kinds.items():
            kinds[kind] = kinds.get(kind, 0) + number
    result = {
        "streams": [r.stream.name for r in runs],
        "seconds": round(sum(seconds), 3),
        "events": sum(len(t) for t in truths),
        "event": scored["overall"]["event"],
        "segment": scored["overall"]["segment"],
        "false_alarms_per_hour": scored["overall"]["false_alarms_per_hour"],
        "labels": scored["labels"],
        "onset_error_s": median_and_p95(errors),
        "reporting_delay_s": median_and_p95(delays),
        "first_report_delay_s": median_and_p95(first),
        "calibration": calibration_error(found, truths, seconds),
        "other_kinds": kinds,
    }
    if absent := [r for r in runs if r.absent is not None]:
        result["absent"] = _absent_metrics(absent)
    return result


def _absent_metrics(runs: Sequence[StreamRun]) -> dict[str, Any]:
    listed = []
    for r in runs:
        assert r.absent is not None
        spans = r.absent.detections.spans
        listed += [
            {"stream": r.stream.name, "label": label, "onset": round(a, 3), "offset": round(b, 3)}
            for a, b, label in spans.rows()
        ]
    return {
        "prompt_events": sum(r.absent.count(EventKind.PROMPT) for r in runs if r.absent),
        "unknown_events": sum(r.absent.count(EventKind.UNKNOWN) for r in runs if r.absent),
        "seconds": round(sum(r.stream.seconds for r in runs), 3),
        "list": listed,
    }


def _delays(truths: Sequence[Spans], runs: Sequence[DetectionRun]) -> tuple[list[float], list[float]]:
    """Of the matched events, in s: onset minus true onset, and stamp of the ONSET report minus true onset."""
    errors, delays = [], []
    for truth, run in zip(truths, runs, strict=True):
        for i, j in match(truth, run.spans).pairs:
            errors.append(float(run.spans.onsets[j] - truth.onsets[i]))
            delays.append(float(run.reported_at[j] - truth.onsets[i]))
    return errors, delays


def first_report_delays(truth: Spans, run: DetectionRun) -> list[float]:
    """For each true event that a detection of its label overlaps, also one that begins far too late: the stamp of the
    first ONSET report of these, minus the true onset, in s. A detection that began before the event counts as 0."""
    delays = []
    for onset, offset, label in truth.rows():
        own = [
            at
            for (a, b, name), at in zip(run.spans.rows(), run.reported_at.tolist(), strict=True)
            if name == label and a < offset and b > onset
        ]
        if own:
            delays.append(max(min(own) - onset, 0.0))
    return delays


def sound_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a row for each entry of `found` (title → `sound_metrics`), then for each its labels and notes."""
    lines = [
        "| sounds | events | event F1 | precision | recall | segment F1 | onset error, s | reporting delay, s: median "
        "| p95 | false alarms/h | calibration error | UNKNOWN |",
        "| --- |" + " ---: |" * 11,
    ]
    for title, m in found.items():
        e, delay = m["event"], m["reporting_delay_s"]
        cells = [
            table_cell(e["f1"]),
            table_cell(e["precision"]),
            table_cell(e["recall"]),
            table_cell(m["segment"]["f1"]),
        ]
        cells += [table_cell(m["onset_error_s"]["median"]), table_cell(delay["median"]), table_cell(delay["p95"])]
        cells += [table_cell(m["false_alarms_per_hour"], 1), table_cell(m["calibration"]["ece_high_scores"], 3)]
        cells.append(str(m["other_kinds"].get(EventKind.UNKNOWN.name, 0)))
        lines.append(f"| {title} | {m['events']} | {' | '.join(cells)} |")
    lines.append(f"\ncalibration error: over segments of 1 s with a score of {MIN_CALIBRATION_SCORE:g} or more")
    for title, m in found.items():
        lines += ["", f"| {title} | events | hits | false | missed | segment F1 |", "| --- |" + " ---: |" * 5]
        for label, own in m["labels"].items():
            e = own["event"]
            cells = [str(e["hits"] + e["missed"]), str(e["hits"]), str(e["false"]), str(e["missed"])]
            lines.append(f"| {label} | {' | '.join(cells)} | {table_cell(own['segment']['f1'])} |")
        if a := m.get("absent"):
            lines.append(
                f"\nprompts of absent sounds ({', '.join(ABSENT_SOUNDS)}): {a['prompt_events']} events in "
                f"{a['seconds'] / 60:.0f} minutes; {a['unknown_events']} UNKNOWN"
            )
            lines += [f"  {x['stream']}: {x['label']} from {x['onset']:.1f} to {x['offset']:.1f} s" for x in a["list"]]
    return "\n".join(lines)
