"""Metrics of evaluated recordings: as JSON for programs, and as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensebind.evaluation.activity_baseline import ANYTHING, best_label_per_modality, best_threshold
from sensebind.evaluation.detection_runs import ALL, LATE, DetectionRun, RecordingRuns
from sensebind.evaluation.fault_metrics import MAX_DELAY, FaultScore, score_faults
from sensebind.evaluation.matching import (
    SEGMENT_LENGTH,
    Counts,
    event_based_counts,
    false_alarm_indices,
    label_from_truth,
    match,
    segment_based_counts,
    sum_counts,
)
from sensebind.evaluation.psds import HOUR, PSDS_SCENARIOS, ScoreTimeline, psds
from sensebind.evaluation.reliability import Reliability, reliability
from sensebind.evaluation.spans import Array, Spans
from sensebind.fusion.core.embeddings import sort_modalities

MODEL_FREE = "model-free"  # each detection labelled by the truth: an upper bound
ONE_LABEL = "model-free, one label per modality"
MIN_CALIBRATION_SCORE = 0.1  # lower scores are not interesting for a user


def compute_metrics(recordings: Sequence[RecordingRuns]) -> dict[str, Any]:
    """All metrics of these recordings together: strings, finite numbers, None, lists and dicts.

    `ways`: detector → `overall` and `types` (label → metrics): event-based and segment-based counts and F1, onset
    latency, false alarms per hour; `overall` also has PSDS. `model_free_setting`: the choices of the model-free
    detector. `faults`: None without a faults file. `calibration`: see `calibration_error`. `notes`: for the reader.
    """
    truths = [o.truth for o in recordings]
    seconds = [o.seconds for o in recordings]
    names = list(dict.fromkeys(name for o in recordings for name in o.runs))
    names = [ALL, *sort_modalities(n for n in names if n not in (ALL, LATE)), *([LATE] if LATE in names else [])]
    scored = {}
    for name in names:
        own = [o.runs.get(name) for o in recordings]
        scored[name] = score_run(
            truths,
            [run.spans if run else Spans.of(()) for run in own],
            seconds,
            [run.reported_at if run else np.zeros(0) for run in own],
            [run.timeline if run else ScoreTimeline(np.zeros(1), (), np.zeros((0, 0))) for run in own],
        )
    setting, free = _model_free(recordings)
    scored |= free
    singles = [name for name in names if name not in (ALL, LATE)]
    best = max(singles, key=lambda name: scored[name]["overall"]["event"]["f1"] or 0.0, default=None)
    calibration = calibration_error([o.runs[ALL] for o in recordings], truths, seconds)
    return {
        "space": recordings[0].space,
        "recordings": [_recording(o) for o in recordings],
        "seconds": round(sum(seconds), 3),
        "prompts": sorted({p for o in recordings for p in o.prompts}),
        "labels": sorted({label for t in truths for label in t.labels}),
        "notes": notes(recordings),
        "detectors": scored,
        "best_single": best,
        "model_free_setting": setting,
        "calibration": calibration,
        "faults": _fault_metrics(recordings),
    }


def score_run(
    truths: Sequence[Spans],
    detections: Sequence[Spans],
    seconds: Sequence[float],
    reported_at: Sequence[Array] | None = None,
    timelines: Sequence[ScoreTimeline] | None = None,
) -> dict[str, Any]:
    """`overall` and `types` of one detector: a truth, detections and a duration (s) for each recording.

    `reported_at`: times in s at which the detections were reported (default: their onsets). `timelines`: the scores
    for PSDS, which is None without them.
    """
    labels = sorted({label for spans in (*truths, *detections) for label in spans.labels})
    events = [event_based_counts(t, d) for t, d in zip(truths, detections, strict=True)]
    segments = [segment_based_counts(t, d, s) for t, d, s in zip(truths, detections, seconds, strict=True)]
    latencies: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    alarms = dict.fromkeys(labels, 0)
    for number, (t, d) in enumerate(zip(truths, detections, strict=True)):
        for i, j in match(t, d).pairs:
            reported = float(reported_at[number][j]) if reported_at is not None else float(d.onsets[j])
            latencies[t.labels[i]].append((float(d.onsets[j] - t.onsets[i]), reported - float(t.onsets[i])))
        for j in false_alarm_indices(t, d):
            alarms[d.labels[j]] += 1
    hours = sum(seconds) / HOUR

    def block(which: Sequence[str]) -> dict[str, Any]:
        return {
            "event": _precision_recall([e[label] for e in events for label in which if label in e]),
            "segment": _precision_recall([s[label] for s in segments for label in which if label in s]),
            "onset_latency_s": _latency([x for label in which for x in latencies[label]]),
            "false_alarms_per_hour": round(sum(alarms[label] for label in which) / hours, 3),
        }

    types = {label: block([label]) for label in labels}
    overall = block(labels)
    true = [types[label]["event"]["f1"] for label in labels if any(label in t.labels for t in truths)]
    overall["event"]["f1_macro"] = _round(float(np.mean([f or 0.0 for f in true]))) if true else None
    for name, scenario in PSDS_SCENARIOS.items():
        value = psds(truths, timelines, sum(seconds), scenario) if timelines is not None else None
        overall[name] = _round(value)
    return {"overall": overall, "labels": types}


def _model_free(recordings: Sequence[RecordingRuns]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The choices of the model-free detector; its metrics with labels of the truth and with one label per modality."""
    truths, seconds = [o.truth for o in recordings], [o.seconds for o in recordings]
    modality, threshold, detections = best_threshold(truths, [o.activity for o in recordings])
    labelled = [label_from_truth(truth, spans, ANYTHING) for truth, spans in zip(truths, detections, strict=True)]
    label_choices, fixed = best_label_per_modality(truths, [o.activity for o in recordings])
    setting = {
        "modality": modality,
        "threshold": threshold,
        "labels": {m: {"label": label, "threshold": t} for m, (label, t) in label_choices.items()},
    }
    return setting, {MODEL_FREE: score_run(truths, labelled, seconds), ONE_LABEL: score_run(truths, fixed, seconds)}


def calibration_error(
    runs: Sequence[DetectionRun], truths: Sequence[Spans], seconds: Sequence[float], segment: float = SEGMENT_LENGTH
) -> dict[str, Any]:
    """Compare the mean score of each label in each segment with its presence in at least half of the segment.

    `ece`: expected calibration error over all segments and labels. `ece_high_scores`: over those with a score of
    `MIN_CALIBRATION_SCORE` or more. Most labels are absent most of the time, which is easy to score.
    """
    scores, right = [], []
    for run, truth, length in zip(runs, truths, seconds, strict=True):
        for label in sorted({*run.timeline.labels, *truth.labels}):
            s, r = _segment_scores(run.timeline, truth.with_labels(label), label, length, segment)
            scores.append(s)
            right.append(r)
    s = np.clip(np.concatenate(scores) if scores else np.zeros(0), 0.0, 1.0)
    r = np.concatenate(right) if right else np.zeros(0)
    everything, noticed = reliability(s, r), reliability(s[s >= MIN_CALIBRATION_SCORE], r[s >= MIN_CALIBRATION_SCORE])
    return {
        "ece": _round(everything.expected_calibration_error),
        "ece_high_scores": _round(noticed.expected_calibration_error),
        "segments": int(everything.counts.sum()),
        "segments_high_scores": int(noticed.counts.sum()),
        "bins": _bins(everything),
    }


def _segment_scores(
    timeline: ScoreTimeline, own: Spans, label: str, length: float, segment: float
) -> tuple[Array, Array]:
    """Mean scores (S,) and presence (S,), 0 or 1, of a label in the segments that were scored."""
    starts = np.arange(int(length / segment + 1e-9)) * segment
    covered = np.zeros(len(starts))
    for onset, offset, _ in own.rows():
        covered += np.clip(np.minimum(starts + segment, offset) - np.maximum(starts, onset), 0.0, segment)
    if not len(timeline.scores):
        return np.zeros(len(starts)), (covered >= segment / 2).astype(float)
    edges = timeline.edges
    summed = np.concatenate([[0.0], np.cumsum(timeline.scores_of(label) * np.diff(edges))])
    mean = (np.interp(starts + segment, edges, summed) - np.interp(starts, edges, summed)) / segment
    inside = (starts >= edges[0] - 1e-9) & (starts + segment <= edges[-1] + 1e-9)
    return mean[inside], (covered >= segment / 2)[inside].astype(float)


def _bins(found: Reliability) -> list[dict[str, float]]:
    columns = zip(found.counts.tolist(), found.mean_scores.tolist(), found.accuracies.tolist(), strict=True)
    return [{"segments": n, "score": round(s, 4), "fraction_present": round(r, 4)} for n, s, r in columns]


def _fault_metrics(recordings: Sequence[RecordingRuns]) -> dict[str, Any] | None:
    """Fault metrics over the recordings with a faults file. None if there is no faults file."""
    known = [(o, o.faults) for o in recordings if o.faults is not None]
    if not known:
        return None
    found = FaultScore()
    for o, faults in known:
        found += score_faults(faults, o.fault_reports)
    hours = sum(o.seconds for o, _ in known) / HOUR
    return {
        "recordings": len(known),
        "faults": found.faults,
        "detected_in_time": found.detected,
        "fraction_detected": _round(found.detected / found.faults) if found.faults else None,
        "fraction_cause_correct": _round(found.cause_correct / found.faults) if found.faults else None,
        "in_time_s": MAX_DELAY,
        "delay_s": _median_and_p90(found.delays),
        "false": found.false_alarms,
        "false_per_hour": round(found.false_alarms / hours, 3),
    }


def notes(recordings: Sequence[RecordingRuns]) -> list[str]:
    """Remarks for the reader: mismatches of truth, prompts and recordings."""
    prompts = {p for o in recordings for p in o.prompts}
    labels = {label for o in recordings for label in o.truth.labels}
    detected = {label for o in recordings for run in o.runs.values() for label in run.spans.labels}
    found = []
    if missing := sorted(labels - prompts - detected):
        found.append(f"labels of the truth without a prompt, counted as missed: {', '.join(missing)}")
    if extra := sorted(prompts - labels):
        found.append(
            f"prompts with a label that is not in the truth; all their events count as false: {', '.join(extra)}"
        )
    found += dict.fromkeys(warning for o in recordings for warning in o.warnings)
    others: dict[str, int] = {}
    for o in recordings:
        for kind, count in o.unscored_events.items():
            others[kind] = others.get(kind, 0) + count
    if others:
        listed = ", ".join(f"{count} {kind.lower()}" for kind, count in sorted(others.items()))
        found.append(f"events of other kinds, not in the truth and not scored: {listed}")
    for o in recordings:
        past = sum(offset > o.seconds + 1.0 for offset in o.truth.offsets.tolist())
        if past:
            found.append(f"{o.name}: {past} of {len(o.truth)} events of the truth end after the recording")
        if not len(o.truth):
            found.append(f"{o.name}: the truth is empty: all detections are false")
    return found


def _recording(o: RecordingRuns) -> dict[str, Any]:
    counts = sum_counts(list(event_based_counts(o.truth, o.runs[ALL].spans).values()))
    return {
        "name": o.name,
        "seconds": round(o.seconds, 3),
        "events": len(o.truth),
        "event": _precision_recall([counts]),
    }


def _precision_recall(parts: Sequence[Counts]) -> dict[str, Any]:
    c = sum_counts(parts)
    return {
        "f1": _round(c.f1),
        "precision": _round(c.precision),
        "recall": _round(c.recall),
        "hits": c.hits,
        "false": c.false,
        "missed": c.missed,
    }


def _latency(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Latencies of matched events: onset minus true onset, and time of the report minus true onset."""
    return {"stamp": _median_and_p90([p[0] for p in pairs]), "report": _median_and_p90([p[1] for p in pairs])}


def _median_and_p90(values: Sequence[float]) -> dict[str, Any]:
    if not len(values):
        return {"n": 0, "median": None, "p90": None}
    median, high = np.percentile(np.asarray(values, np.float64), [50, 90])
    return {"n": len(values), "median": _round(float(median)), "p90": _round(float(high))}


def median_and_p95(values: Sequence[float]) -> dict[str, Any]:
    """`n`, `median` and `p95` of some values; None without values."""
    if not len(values):
        return {"n": 0, "median": None, "p95": None}
    median, high = np.percentile(np.asarray(values, np.float64), [50, 95])
    return {"n": len(values), "median": _round(float(median)), "p95": _round(float(high))}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def metrics_table(found: Mapping[str, Any]) -> str:
    """Tables in Markdown: metrics of each detector; F1 of each label and detector; metrics of each label for the first
    detector. Then calibration, faults and notes."""
    runs = found["detectors"]
    lines = [
        "| detector | event F1 | macro | precision | recall | segment F1 | PSDS 1 | PSDS 2 | onset error, s "
        "| reporting delay, s | false alarms/h |",
        "| --- |" + " ---: |" * 10,
    ]
    for name, run in runs.items():
        o = run["overall"]
        latency = o["onset_latency_s"]
        cells = [o["event"]["f1"], o["event"]["f1_macro"], o["event"]["precision"], o["event"]["recall"]]
        cells += [o["segment"]["f1"], o["psds1"], o["psds2"], latency["stamp"]["median"], latency["report"]["median"]]
        best = " (best single)" if name == found["best_single"] else ""
        shown = [table_cell(c) for c in cells] + [table_cell(o["false_alarms_per_hour"], 1)]
        lines.append(f"| {name}{best} | " + " | ".join(shown) + " |")
    names = list(runs)
    lines += ["", "| label, event F1 | events | " + " | ".join(names) + " |", "| --- |" + " ---: |" * (1 + len(names))]
    first = runs[names[0]]["labels"]
    for label in sorted({label for run in runs.values() for label in run["labels"]}):
        own = next(run["labels"][label]["event"] for run in runs.values() if label in run["labels"])
        row = [table_cell(runs[n]["labels"].get(label, {}).get("event", {}).get("f1")) for n in names]
        lines.append(f"| {label} | {own['hits'] + own['missed']} | " + " | ".join(row) + " |")
    lines += [
        "",
        f"| label, {names[0]} | hits | false | missed | segment F1 | onset error, s | reporting delay, s "
        "| false alarms/h |",
        "| --- |" + " ---: |" * 7,
    ]
    for label, t in first.items():
        e, latency = t["event"], t["onset_latency_s"]
        cells = [str(e["hits"]), str(e["false"]), str(e["missed"]), table_cell(t["segment"]["f1"])]
        cells += [table_cell(latency["stamp"]["median"]), table_cell(latency["report"]["median"])]
        lines.append(f"| {label} | " + " | ".join([*cells, table_cell(t["false_alarms_per_hour"], 1)]) + " |")
    c = found["calibration"]
    lines += [
        "",
        f"expected calibration error: {table_cell(c['ece'], 3)} over {c['segments']} segments "
        f"({SEGMENT_LENGTH:g} s of one label); "
        f"{table_cell(c['ece_high_scores'], 3)} over the {c['segments_high_scores']} with a score of "
        f"{MIN_CALIBRATION_SCORE:g} or more",
    ]
    if f := found["faults"]:
        lines.append(
            f"faults: {f['detected_in_time']} of {f['faults']} detected within {f['in_time_s']:g} s "
            f"(fraction {table_cell(f['fraction_detected'])}; with the correct cause "
            f"{table_cell(f['fraction_cause_correct'])}), "
            f"median delay {table_cell(f['delay_s']['median'])} s; "
            f"{f['false']} false alarms ({table_cell(f['false_per_hour'], 1)} per hour)"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def table_cell(value: float | None, digits: int = 2) -> str:
    """A cell of a table: an int as it is, a float with `digits` decimals, "–" for None."""
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}"
