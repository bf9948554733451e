"""Fault recall and false alarms on simulated sensor faults, by seed, through the pipeline without a model.

Faults are detected in raw windows, so a space with constant vectors (`ConstantSpace`) replaces the encoders. Windows,
health checks, fusion and events are those of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensebind.evaluation.fault_metrics import FaultReport, FaultScore, score_faults
from sensebind.evaluation.run_recordings import fault_reports
from sensebind.evaluation.spans import FaultSpans, Spans
from sensebind.fusion.core import encodings
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SENSOR_MODALITIES, TEXT, THERMAL, Frame, Sample
from sensebind.fusion.core.space import Space, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import RosbagsMessageFactory
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.replay.session import Settings, open_with_sensors
from sensebind.simulation import scenario
from sensebind.simulation.messages import SIMULATION_START, merge_by_log_time
from sensebind.simulation.recorder import (
    GROUNDS,
    SimulatedScenario,
    SimulatedSensorData,
    message_streams,
    simulate_sensors,
)
from sensebind.simulation.sensor_faults import FAULT_SYNONYMS, FAULTS, FAULTS_RELATIVE_TO_PAST, SIMULATED_SENSORS, Fault

CASE_DURATION = 24.0  # s of a case
MIDWAY_ONSET = 12.0  # s: earliest onset of a fault that is not present from the start
HEALTHY_DURATION = 120.0  # s of a scene without faults
IMAGE_RATE = 4.0  # Hz: a window uses one image, and windows are 0.5 s apart
EVENT_TYPES = (
    "person",
    "dog",
    "fire",
    "pump",
    "glass_breaking",
    "bump",
    "alarm",
    "obstacle",
    "hot_spot",
    "vacuum_cleaner",
)


class ConstantSpace(Space):
    """A space with the starter's windows and constant vectors."""

    id = "blank@0"
    dimension = 2
    licence = "none"
    modalities: tuple[str, ...] = (TEXT, *SENSOR_MODALITIES)
    logit_scales: Mapping[str, float] = dict.fromkeys(modalities, 1.0)
    trained_windows: Mapping[str, TrainedWindow] = StarterSpace.trained_windows

    def __init__(self, modalities: Sequence[str] = SENSOR_MODALITIES) -> None:
        self.modalities = (TEXT, *modalities)

    def tensor(self, window: Window) -> torch.Tensor:
        """Decode a window as a model would, and return zeros. Raises `EncodingError` if it cannot be decoded."""
        frame = window.samples[-1].data
        if isinstance(frame, Frame):
            if window.modality == DEPTH:
                encodings.decode_depth(frame, window.calibration)
            elif window.modality == THERMAL:
                encodings.decode_thermal(frame, window.calibration)
            else:
                encodings.decode_rgb(frame)
        return torch.zeros(1)

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(batch), 2)

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(texts), 2)


@dataclass(frozen=True, slots=True)
class FaultCase:
    """A fault in the scene of a seed, from its start or from `MIDWAY_ONSET` on (up to 0.5 s later)."""

    seed: int
    fault: Fault

    @property
    def from_start(self) -> bool:
        return self.fault.onset == 0.0


@dataclass(frozen=True)
class FaultCaseResult:
    """The result of a case: its score, and all reports as text."""

    case: FaultCase
    score: FaultScore
    other_reports: tuple[str, ...]


def random_scene(seed: int, seconds: float) -> SimulatedScenario:
    """A random held-out scene: rooms, ground, motor level, darkness, thermal camera, events and distractors."""
    noise = np.random.default_rng([seed, 31])
    dark = float(noise.uniform(2, 0.6 * seconds))
    content = {
        "duration": seconds,
        "ground": list(GROUNDS)[seed % len(GROUNDS)],
        "motor": float(noise.uniform(-56, -40)),
        "places": [0.0, *([float(noise.uniform(0.3, 0.7) * seconds)] if seed % 2 else [])],
        "events": [
            {"type": kind, "rate": float(noise.uniform(0.5, 2.0))} for kind in noise.choice(EVENT_TYPES, 5, False)
        ],
        "distractors": [{"type": "radio", "rate": 1.0, "for": 3}, {"type": "picture", "rate": 1.0}],
        "dark": [[dark, dark + 6.0]] if seed % 3 == 0 else [],
        "thermal_camera": {"palette": scenario.PALETTES[seed // 2 % len(scenario.PALETTES)]},
    }
    return scenario.parse_scenario(content, f"scene {seed}", seed + scenario.HELD_OUT_SEED_OFFSET)


def is_detectable(plan: SimulatedScenario, fault: Fault) -> bool:
    """Whether raw data can show the fault.

    A fault that shows only as a change is not detectable from the start. A thermal camera without a temperature unit
    (grey or false colours) has no calibration to check, and its images are valid images of a colour camera.
    """
    units = plan.thermal_camera.palette == "radiometric"
    if fault.sensor == THERMAL and fault.canonical_kind == "miscalibrated" and not units:
        return False  # no unit, and a gain for each image
    if fault.onset > 0:
        return True
    if (fault.sensor, fault.canonical_kind) == ("vision", "swapped"):
        return units
    return (fault.sensor, fault.canonical_kind) not in FAULTS_RELATIVE_TO_PAST


def cases(plan: SimulatedScenario, seed: int) -> list[FaultCase]:
    """Every detectable fault of every sensor, from the start and midway, at a random phase of the windows."""
    noise, found = np.random.default_rng([seed, 37]), []
    for sensor in SIMULATED_SENSORS:
        for cause in (f for f in FAULTS if (sensor, f) not in FAULT_SYNONYMS):
            for onset in (0.0, MIDWAY_ONSET + float(noise.uniform(0, 0.5))):
                fault = Fault(sensor, cause, onset, CASE_DURATION)
                if is_detectable(plan, fault):
                    found.append(FaultCase(seed, fault))
    return found


def case_count(seeds: Iterable[int]) -> int:
    """The number of cases of these seeds."""
    return sum(len(cases(random_scene(seed, CASE_DURATION), seed)) for seed in seeds)


class SimulatedScene:
    """The sensors of a scene, simulated once. `samples` applies a fault to any of them."""

    def __init__(self, plan: SimulatedScenario) -> None:
        measured = simulate_sensors(plan, IMAGE_RATE)
        self._measured = replace(measured, images=list(measured.images))
        self._healthy = {sensor: list(_samples(self._measured, sensor)) for sensor in SIMULATED_SENSORS}

    def samples(self, fault: Fault | None = None) -> Iterator[Sample]:
        """All samples in order of log time, with this fault or without faults."""
        streams: list[Iterable[tuple[int, Sample]]] = list(self._healthy.values())
        if fault is not None:
            plan = replace(self._measured.plan, faults=(fault,))
            streams[SIMULATED_SENSORS.index(fault.sensor)] = _samples(replace(self._measured, plan=plan), fault.sensor)
        return (sample for _, sample in merge(*streams, key=lambda item: item[0]))


def _samples(measured: SimulatedSensorData, sensor: str) -> Iterator[tuple[int, Sample]]:
    """(log time, sample) of one sensor's messages."""
    types = {AUDIO: "audio_common_msgs/msg/AudioDataStamped", IMU: messages.IMU_TYPE}
    decoder = SampleDecoder(SensorOptions(sensor), types.get(sensor, messages.IMAGE_TYPE))
    for logged, _, kind, message in merge_by_log_time(message_streams(measured, RosbagsMessageFactory(), [sensor])):
        if kind == decoder.type_name:
            yield from ((logged, sample) for sample in decoder.decode(message, logged))
        else:  # CameraInfo or AudioInfo
            decoder.apply_side_message(message, logged)


def fault_pipeline(settings: Settings) -> Pipeline:
    """The pipeline of `settings` with the fault detector alone, without a model."""
    space = ConstantSpace(settings.modalities)
    return settings.pipeline(space, settings.with_detector({"detectors": ["fault"]}).events(space))


def detect_faults(
    samples: Iterable[Sample], pipeline: Pipeline, start: int = SIMULATION_START
) -> tuple[FaultReport, ...]:
    """The fault reports on these samples, with times in s from `start` (ns)."""
    return fault_reports([o for o in process_samples(pipeline, samples) if isinstance(o, Event)], start)


def run_cases(seeds: Iterable[int], settings: Settings) -> Iterator[FaultCaseResult]:
    """Run all cases of these seeds, one after the other."""
    for seed in seeds:
        plan = random_scene(seed, CASE_DURATION)
        simulated = SimulatedScene(plan)
        for case in cases(plan, seed):
            reports = detect_faults(simulated.samples(case.fault), fault_pipeline(settings))
            fault = case.fault
            truth = FaultSpans(Spans.of([(fault.onset, fault.offset, fault.sensor)]), (fault.canonical_kind,))
            yield FaultCaseResult(
                case,
                score_faults(truth, reports),
                tuple(f"{n.sensor}:{n.cause} at {n.reported_at:.1f}" for n in reports),
            )


def run_healthy(seeds: Iterable[int], settings: Settings) -> Iterator[tuple[int, tuple[FaultReport, ...]]]:
    """(seed, fault reports) of scenes without faults, `HEALTHY_DURATION` s each."""
    for seed in seeds:
        yield (
            seed,
            detect_faults(SimulatedScene(random_scene(seed, HEALTHY_DURATION)).samples(), fault_pipeline(settings)),
        )


def detect_in_recording(path: Path, settings: Settings) -> tuple[float, tuple[FaultReport, ...]]:
    """(duration in s, fault reports) of a recording."""
    with open_with_sensors(path, settings) as (settings, replay):
        events = [output for output in replay.outputs(fault_pipeline(settings)) if isinstance(output, Event)]
        return replay.seconds, fault_reports(events, replay.start)


def recall_rows(results: Sequence[FaultCaseResult]) -> list[dict[str, Any]]:
    """A row for each sensor and fault: [detected in time, cases] from the start and midway, [with the correct cause,
    cases], and the median and longest delay in s of all that were reported."""
    rows = []
    for sensor in SIMULATED_SENSORS:
        for cause in FAULTS:
            own = [r for r in results if (r.case.fault.sensor, r.case.fault.canonical_kind) == (sensor, cause)]
            if not own:
                continue
            row: dict[str, Any] = {"sensor": sensor, "fault": cause}
            for name, part in (
                ("from_start", [r for r in own if r.case.from_start]),
                ("midway", [r for r in own if not r.case.from_start]),
            ):
                row[name] = [sum(r.score.detected for r in part), len(part)]
            row["cause_correct"] = [sum(r.score.cause_correct for r in own), len(own)]
            delays = [delay for r in own for delay in r.score.delays]
            row["delay_median"] = round(float(np.median(delays)), 2) if delays else None
            row["delay_longest"] = round(max(delays), 2) if delays else None
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `recall_rows` in Markdown."""

    def ratio(pair: Sequence[int]) -> str:
        return f"{pair[0]} of {pair[1]}" if pair[1] else "–"

    lines = [
        "| sensor | fault | from the start | midway | correct cause | median delay, s | longest delay, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["sensor"], row["fault"], *(ratio(row[k]) for k in ("from_start", "midway", "cause_correct"))]
        cells += ["–" if row[k] is None else f"{row[k]:.1f}" for k in ("delay_median", "delay_longest")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summarize(results: Sequence[FaultCaseResult], false: Sequence[str], seconds: float) -> tuple[str, dict[str, Any]]:
    """The results as (text, JSON). `false`: a description of each fault reported in `seconds` of healthy sensors."""
    rows = recall_rows(results)
    named, explained = (sum(getattr(r.score, name) for r in results) for name in ("detected", "cause_correct"))
    text = table(rows) if rows else ""
    text += f"\n\ndetected within 3 s: {named} of {len(results)}; with the correct cause: {explained}"
    text += f"\nfalse alarms in these cases: {sum(r.score.false_alarms for r in results)}"
    text += f"\nfalse alarms without a fault: {len(false)} in {seconds / 3600:.2f} h" + "".join(
        f"\n  {f}" for f in false
    )
    missed = [
        {
            "seed": r.case.seed,
            "sensor": r.case.fault.sensor,
            "fault": r.case.fault.canonical_kind,
            "onset": r.case.fault.onset,
            "other_reports": list(r.other_reports),
        }
        for r in results
        if not r.score.detected
    ]
    return text, {
        "cases": len(results),
        "detected": named,
        "cause_correct": explained,
        "rows": rows,
        "missed": missed,
        "hours_without_fault": round(seconds / 3600, 3),
        "false": list(false),
    }
